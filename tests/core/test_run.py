"""The run folder: complete, never overwritten, never half written."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from jepa_world_model.core.config import from_toml
from jepa_world_model.core.errors import UserError
from jepa_world_model.core.run import Run, atomic_write, environment, git_state, require_space, writing


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 5
    lr: float = 0.1


def test_a_new_run_holds_its_resolved_settings_and_its_environment(tmp_path: Path):
    run = Run.create(tmp_path / "runs", "first", Config(lr=1 / 3), argv=["jepa-wm", "train"])
    assert run.folder == tmp_path / "runs" / "first"
    assert from_toml(Config, run.config) == Config(lr=1 / 3)
    told = json.loads(run.environment.read_text())
    assert told["command"] == ["jepa-wm", "train"]
    assert {"torch", "numpy"} <= told["versions"].keys()
    assert {"git", "python", "devices", "cpus", "threads", "date"} <= told.keys()
    assert all(place.is_dir() for place in (run.checkpoints, run.figures, run.planning))
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "checkpoints", "config.toml", "environment.json", "figures", "planning"
    ]  # fmt: skip
    assert Run.open(run.folder) == run


def test_a_name_that_exists_is_refused_and_its_results_stay(tmp_path: Path):
    run = Run.create(tmp_path, "a", Config())
    run.metrics.write_text("precious")
    with pytest.raises(UserError, match=r"'a' exists already.*--name.*--resume"):
        Run.create(tmp_path, "a", Config(lr=9.0))
    assert run.metrics.read_text() == "precious"
    assert from_toml(Config, run.config) == Config()


def test_default_names_are_date_slug_and_seed_and_differ_within_a_second(tmp_path: Path):
    names = [Run.create(tmp_path, "", Config(), slug="Two Rooms/v0").name for _ in range(3)]
    assert len(set(names)) == 3
    assert all(re.fullmatch(r"\d{8}-\d{6}-two-rooms-v0-s5(-\d)?", name) for name in names)


@pytest.mark.parametrize("name", ["a/b", "..", ".", "a\\b"])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path, name: str):
    with pytest.raises(UserError, match="single folder name"):
        Run.create(tmp_path, name, Config())
    assert list(tmp_path.iterdir()) == []


def test_a_setting_that_cannot_be_written_leaves_no_folder(tmp_path: Path):
    with pytest.raises(UserError, match="lr = nan"):
        Run.create(tmp_path, "a", Config(lr=float("nan")))
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_the_output_folder_should_be_is_one_sentence(tmp_path: Path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(UserError, match="a file stands where a folder is needed"):
        Run.create(tmp_path / "runs", "a", Config())
    with pytest.raises(UserError, match="a file stands where a folder is needed"):
        Run.create(tmp_path / "runs" / "deeper", "a", Config())


def test_a_folder_without_config_is_no_run(tmp_path: Path):
    with pytest.raises(UserError, match=r"holds no config\.toml"):
        Run.open(tmp_path)


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "disk is full"), (errno.EACCES, "no permission"), (errno.EROFS, "no permission")],
)
def test_what_the_system_says_becomes_one_sentence(number: int, words: str):
    with pytest.raises(UserError, match=words), writing("somewhere"):
        raise OSError(number, os.strerror(number))


def test_atomic_write_replaces_whole_files_and_leaves_no_draft(tmp_path: Path):
    path = tmp_path / "a.json"
    atomic_write(path, "one")
    atomic_write(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.json"
    atomic_write(path, "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"a\.json: the disk is full"):
        atomic_write(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_larger_than_the_free_space_is_refused_before_it_starts(tmp_path: Path):
    require_space(tmp_path / "not" / "yet" / "there", 1)
    with pytest.raises(UserError, match=r"MB are needed and .* MB are free"):
        require_space(tmp_path, shutil.disk_usage(tmp_path).free * 2)


def test_environment_is_plain_json_and_git_state_is_a_commit_or_nothing():
    told = environment()
    assert json.loads(json.dumps(told)) == told
    state = git_state()
    assert state is None or re.fullmatch(r"[0-9a-f]{40}", state["commit"])
