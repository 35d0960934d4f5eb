"""What a user can get wrong ends in one clear sentence and exit code 2, before anything is trained or written."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from jepa_world_model.cli import main
from jepa_world_model.vla_ki.lerobot import RobotData, write_lerobot
from tests.vla_ki.tiny import CFG, flags, tiny_model

for package in ("tokenizers", "pyarrow", "av"):
    pytest.importorskip(package)
pytestmark = pytest.mark.extra

CAMERA = "observation.images.top"


def demonstrations(episodes: int = 6, **changes) -> RobotData:
    """Episodes of 20 steps, smooth, with three action dimensions."""
    rng, count = np.random.default_rng(0), 20 * episodes
    path = np.cumsum(rng.normal(size=(episodes, 20, 3)), axis=1).reshape(-1, 3).astype(np.float32)
    data = RobotData(
        name="own", fps=10.0, tasks=("push the box",), states=path, actions=path.copy(),
        bounds=np.stack([np.arange(episodes) * 20, np.full(episodes, 20)], 1), task=np.zeros(count, np.int64),
        cameras={CAMERA: rng.integers(0, 256, (count, 3, 64, 64), dtype=np.uint8)},
    )  # fmt: skip
    return dataclasses.replace(data, **changes)


def own(tmp_path, data: RobotData, **more) -> list[str]:
    """The flags of a training on one's own folder."""
    folder = write_lerobot(tmp_path / "own", data)
    return flags(tmp_path, **{"data.folder": folder, "data.vqa_share": 0, "name": "run"}, **more)


def refusal(argv: list[str], capsys, tmp_path) -> str:
    """The one sentence of a refusal, from a command that ended with 2 and wrote no run."""
    assert main(["ki-train", *argv]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    assert not (tmp_path / "runs" / "run").exists()
    return said[0]


def missing(said: str, *parts: str) -> list[str]:
    """Which of the parts a sentence does not have."""
    return [part for part in parts if part not in said]


@pytest.mark.parametrize(
    ("change", "cause"),
    [({"ki_fast_loss_weight": 0}, "ki_fast_loss_weight is 0"), ({"freeze_vlm": True}, "freeze_vlm is on")],
)
def test_insulation_that_nothing_teaches(tmp_path, capsys, change, cause):
    said = refusal(flags(tmp_path, name="run", **change), capsys, tmp_path)
    assert not missing(said, cause, "frozen backbone in disguise", "--freeze-vlm")


def test_more_action_dimensions_than_the_model_has(tmp_path, capsys):
    argv = own(tmp_path, demonstrations(), **{"model.action_dim": 2})
    said = refusal(argv, capsys, tmp_path)
    assert not missing(said, "3 dimensions", "action_dim 2", "raise --model.action-dim")


def test_a_data_set_without_quantiles_trains_on_its_own(tmp_path):
    argv = own(tmp_path, demonstrations(), steps=1, **{"data.fast_vocab": 600})
    path = tmp_path / "own" / "meta" / "stats.json"
    stats = json.loads(path.read_text())
    for column in stats.values():
        for name in [n for n in column if n.startswith("q")]:
            del column[name]
    path.write_text(json.dumps(stats))
    assert main(["ki-train", *argv]) == 0  # quantiles are those of the training split, never the file's
    norm = json.loads((tmp_path / "runs" / "run" / "tokenizers.json").read_text())["norm"]["action"]
    assert len(norm["q01"]) == len(norm["q99"]) == 3


def test_a_dimension_that_hardly_ever_moves(tmp_path, capsys):
    actions = demonstrations(15).actions.copy()
    actions[:, 1] = 0
    actions[[7, 293], 1] = 5  # a gripper that closes twice in 300 steps
    argv = own(tmp_path, demonstrations(15, actions=actions))
    said = refusal(argv, capsys, tmp_path)
    assert not missing(said, "action dimensions [1]", "degenerate")


def test_a_dimension_that_never_moves_is_named_and_left_out(tmp_path, capsys):
    actions = demonstrations().actions.copy()
    actions[:, 1] = 0.5
    argv = own(tmp_path, demonstrations(actions=actions), steps=1, **{"data.fast_vocab": 600})
    assert main(["ki-train", *argv]) == 0
    assert "action dimensions [1] never change" in capsys.readouterr().err


def test_actions_that_fast_would_blur(tmp_path, capsys):
    argv = own(tmp_path, demonstrations(), **{"data.fast_scale": 0.2})
    said = refusal(argv, capsys, tmp_path)
    assert not missing(said, "FAST loses", "raise --data.fast-scale")


def test_values_that_are_not_numbers(tmp_path, capsys):
    actions = demonstrations().actions.copy()
    actions[:, 2] = np.nan
    said = refusal(own(tmp_path, demonstrations(actions=actions)), capsys, tmp_path)
    assert not missing(said, "dimensions [2]", "not finite")


def test_cameras_that_are_not_there(tmp_path, capsys):
    argv = own(tmp_path, demonstrations())
    said = refusal([*argv, "--model.cameras", "2"], capsys, tmp_path)
    assert not missing(said, "gives 1 cameras", "--model.cameras")
    said = refusal([*argv, "--data.cameras", "wrist"], capsys, tmp_path)
    assert not missing(said, "no camera 'wrist'", CAMERA)


def test_prompts_longer_than_the_window_are_counted_and_stop_a_training(tmp_path, capsys):
    long = "push the box " * 20
    argv = own(
        tmp_path,
        demonstrations(tasks=(long,)),
        steps=60,
        eval_rows=1,
        **{"data.fast_vocab": 600, "model.answer_length": 48},
    )
    assert main(["ki-train", *argv]) == 2
    assert (
        "prompts were cut at 23 tokens, more than 1 %; raise --model.prompt-length" in capsys.readouterr().err
    )


def test_a_checkpoint_whose_keys_do_not_fit(tmp_path, place, capsys):
    model = tiny_model(
        dataclasses.replace(CFG, vocab_size=1024, horizon=16, prompt_length=24, answer_length=20)
    )
    tensors = {name: p.detach().clone() for name, p in model.state_dict().items()}
    tensors.pop("vlm.decoder.norm.weight")
    tensors["vlm.decoder.strange"] = torch.zeros(3)
    save_file(tensors, tmp_path / "weights.safetensors", metadata={"format": "jepa-wm-vla-1"})
    argv = flags(place, name="run", init=tmp_path / "weights.safetensors", output_dir=tmp_path / "runs")
    said = refusal(argv, capsys, tmp_path)
    assert not missing(said, "vlm.decoder.norm.weight", "vlm.decoder.strange")


def test_a_folder_that_is_not_whole(tmp_path, capsys):
    argv = own(tmp_path, demonstrations())
    shutil.rmtree(tmp_path / "own" / "data")
    said = refusal(argv, capsys, tmp_path)
    assert not missing(said, "own")
