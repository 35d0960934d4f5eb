"""What docs/data.md and docs/environments.md tell users to type works, and the tables there are whole."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from jepa_world_model.cli import main
from jepa_world_model.commands.collect import CollectCommand
from jepa_world_model.core.config import from_toml, load_config
from jepa_world_model.data.sources import FORMATS
from jepa_world_model.envs.make import FAMILIES
from jepa_world_model.experiment import TrainConfig

ROOT = Path(__file__).parents[1]
DATA, ENVIRONMENTS = ROOT / "docs" / "data.md", ROOT / "docs" / "environments.md"


def commands(path: Path) -> list[list[str]]:
    """The words of every command in the blocks of a page, in order."""
    blocks = re.findall(r"```\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    return [
        shlex.split(line)[1:] for body in blocks for line in body.replace("\\\n", " ").splitlines() if line
    ]


@pytest.mark.extra
def test_the_commands_of_the_data_page_run_in_their_order(tmp_path, monkeypatch, capsys):
    for package in ("h5py", "minari", "pyarrow", "av"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    for words in commands(DATA):
        if words[0] == "train":
            load_config(TrainConfig, words[1:], prog="jepa-wm train")
            continue
        words = ["3" if word == "40" else word for word in words]  # episodes; as well with few
        assert main(words) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert "hdf5 -> minari" in out
    assert "LOSSY (crf 18)" in out
    assert {p.name for p in tmp_path.iterdir()} >= {"inspect.html", "sheet.png", "gridworld.h5", "small"}


def test_the_data_page_has_every_format():
    rows = re.findall(r"^\| `(\w+)` \|.*(?:lossless|raw)", DATA.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(FORMATS)


def test_the_commands_of_the_environments_page_are_those_of_the_configurations():
    said = commands(ENVIRONMENTS)
    recorded = {}
    for words in (w for w in said if w[0] == "collect"):
        cfg = load_config(CollectCommand, words[1:], prog="jepa-wm collect")
        recorded[cfg.out] = words
    for words in (w for w in said if w[0] == "train"):
        path = ROOT / words[words.index("--config") + 1]
        head = re.sub(r"\\\n#", " ", path.read_text(encoding="utf-8"))
        (line,) = re.findall(r"#   jepa-wm (collect .*)", head)
        source = from_toml(TrainConfig, path).data.source
        assert shlex.split(re.sub(r"  +\(.*", "", line)) == recorded[source], path.name


def test_every_family_and_picture_of_the_environments_page_is_there():
    text = ENVIRONMENTS.read_text(encoding="utf-8")
    for family in FAMILIES:
        assert f"| `{family.extra}` |" in text
    for picture in re.findall(r"\]\((pictures/\S+)\)", text):
        assert (ROOT / "docs" / picture).is_file()
