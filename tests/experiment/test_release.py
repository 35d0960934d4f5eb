"""A released run opens anywhere with the same numbers, and its card tells what was proven and measured."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import types

import numpy as np
import pytest
import torch

import jepa_world_model as jwm
from jepa_world_model.core.errors import UserError
from jepa_world_model.core.log import read_metrics
from jepa_world_model.data.batch import ActionSpace
from jepa_world_model.experiment.release import actions_told, card, release, without_places


@pytest.fixture(scope="module")
def run(trained) -> jwm.LoadedRun:
    return jwm.load(trained, device="cpu")


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    place = tmp_path_factory.mktemp("release")
    names = {path.name for path in release(run, place, programs=False)}
    assert names == {
        "README.md", "config.json", "model.safetensors", "config.toml", "actions.json", "reach.json", "environment.json",
    }  # fmt: skip
    return place


def frames_and_actions(run: jwm.LoadedRun) -> tuple[np.ndarray, np.ndarray]:
    rng, size = np.random.default_rng(0), run.cfg.model.image_size
    return rng.integers(0, 256, (5, size, size, 3), dtype=np.uint8), rng.integers(0, run.space.dim, 6)


def test_a_released_run_gives_the_numbers_of_the_run(run, folder):
    back = jwm.load(folder, device="cpu")
    frames, actions = frames_and_actions(run)
    assert torch.equal(back.encode(frames), run.encode(frames))
    found, expected = back.imagine(frames, actions), run.imagine(frames, actions)
    assert torch.equal(found.p, expected.p)
    assert np.array_equal(found.frames, expected.frames)
    assert back.step == run.step == 4
    assert back.space == run.space
    plain = jwm.WorldModel.from_pretrained(folder)
    assert torch.equal(plain.encoder.readout.flat.weight, run.model.encoder.readout.flat.weight)


def test_a_released_run_can_be_released_again(folder, tmp_path):
    release(jwm.load(folder, device="cpu"), tmp_path / "again", programs=False)
    for name in ("model.safetensors", "config.json", "config.toml"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_the_card_holds_the_reach_table_and_the_last_evaluation(run, trained, folder):
    text = (folder / "README.md").read_text()
    assert (trained / "reach.md").read_text() in text
    last = [row for row in read_metrics(trained / "metrics.jsonl") if "eval/latent_one_step_ratio" in row][-1]
    value = float(re.search(r"\| One-step error \| ([\d.]+) \|", text)[1])
    assert value == pytest.approx(last["eval/latent_one_step_ratio"], rel=5e-3)  # three digits
    assert "4 steps on gridworld" in text


def test_a_card_of_an_earlier_checkpoint_tells_nothing_of_later_steps(trained):
    early = jwm.load(trained, device="cpu", step=2)
    text = card(early)
    assert "2 steps on gridworld" in text
    assert "On held-out episodes" not in text  # the run was evaluated at its end alone


def test_the_code_of_the_card_runs(run, folder, monkeypatch):
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]
    frames, actions = frames_and_actions(run)
    scope = {"frames": frames, "actions": actions}
    exec(compile(code.replace("<this folder>", str(folder)), "card", "exec"), scope)
    assert scope["z"].shape == (5, run.cfg.model.z_dim)
    assert scope["future"].shape == (2, 3, 16, 16)


def test_a_release_tells_no_place_of_this_machine(run, folder):
    cfg = dataclasses.replace(run.cfg, data=dataclasses.replace(run.cfg.data, source="/home/me/data/frames"))
    assert without_places(cfg).data.source == "frames"
    for path in folder.iterdir():
        assert str(run.folder.parents[1]).encode() not in path.read_bytes(), path.name
    assert "command" not in json.loads((folder / "environment.json").read_text())


def test_every_kind_of_action_is_told_in_words(run):
    said = [
        actions_told(dataclasses.replace(run, space=space))
        for space in (
            ActionSpace(kind="discrete", dim=3, names=("left", "right", "stay")),
            ActionSpace(kind="multi_binary", dim=4),
            ActionSpace(kind="continuous", dim=2, low=(-1.0, 0.0), high=(1.0, 0.5)),
        )
    ]
    assert said == ["whole numbers from 0 to 2 (left, right, stay)", "4 bits", "2 numbers, -1 to 1, 0 to 0.5"]


def test_a_place_that_cannot_be_written_is_one_sentence(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="a file stands where a folder is needed"):
        run.save_pretrained(tmp_path / "file")


def test_a_release_on_the_hub_is_loaded_by_its_name(run, folder, monkeypatch):
    calls = []
    download = lambda name, **options: calls.append((name, options["allow_patterns"])) or str(folder)
    errors = types.SimpleNamespace(HfHubHTTPError=RuntimeError)
    hub = types.SimpleNamespace(snapshot_download=download, errors=errors)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    frames, _ = frames_and_actions(run)
    assert torch.equal(jwm.load("hf://me/model", device="cpu").encode(frames), run.encode(frames))
    assert calls == [("me/model", ["*.json", "*.toml", "*.safetensors", "README.md"])]  # no programs
    with pytest.raises(UserError, match="is named owner/name"):
        jwm.load("hf://model")
