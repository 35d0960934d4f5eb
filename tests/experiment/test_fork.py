"""A fork starts from another run's checkpoint: without changes it is that run, with changes it says what differs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import jepa_world_model_trainer as trainer
from jepa_world_model.cli import main as cli
from jepa_world_model.core.checkpoint import latest_checkpoint
from jepa_world_model.experiment import TrainConfig, read_config
from tests.experiment.test_run import TINY, numbers

FLAGS = [
    *TINY, "--steps", "6", "--checkpoint-every", "2", "--keep-checkpoints", "0", "--loss-normalization", "--ema", "0.9",
    "--eval-every", "2", "--loss-weights.sigreg", "0.1", "--loss-schedules", "jepa", "ramp:1:5", "--no-report",
]  # fmt: skip


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("parent")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert trainer.main([*FLAGS, "--name", "parent"]) == 0
    return place


@pytest.fixture
def family(here: Path, parent: Path) -> Path:
    """A working folder with the parent in it."""
    shutil.copytree(parent, here, dirs_exist_ok=True)
    return here / "runs"


def tensors(folder: Path) -> dict[str, bytes]:
    newest = latest_checkpoint(folder / "checkpoints")
    return {
        f"{file.name}: {name}": tensor.numpy().tobytes()
        for file in newest.glob("*.safetensors")
        for name, tensor in load_file(file).items()
    }


@pytest.mark.parametrize("source", ["parent", "runs/parent"])
def test_a_fork_without_changes_is_the_rest_of_its_parent_bit_for_bit(family, source, capsys):
    assert trainer.main(["--fork", f"{source}@4", "--name", "child"]) == 0
    assert tensors(family / "child") == tensors(family / "parent")
    assert numbers(family / "child") == [row for row in numbers(family / "parent") if row["step"] > 4]
    assert "no setting differs from the parent's" in capsys.readouterr().out


def test_a_fork_names_what_is_new_what_is_gone_and_what_changed(family, capsys):
    flags = [
        "--loss-weights.inverse_dynamics_h",
        "0",
        "--loss-weights.inverse_dynamics_z",
        "1",
        "--gates",
        "z->h",
        "0.5",
    ]
    assert trainer.main(["--fork=parent@2", "--name", "child", *flags]) == 0
    out = capsys.readouterr().out
    assert "note: a fork of runs/parent after step 2" in out
    assert "note: fresh weights, since the parent has none: inverse_dynamics_z" in out
    assert "note: of the parent, but needed by no loss here: inverse_dynamics_h" in out
    about = json.loads((family / "child/fork.json").read_text())
    assert (about["parent"], about["step"], about["new_groups"]) == ("runs/parent", 2, ["inverse_dynamics_z"])
    assert about["dropped_groups"] == ["inverse_dynamics_h"]
    assert about["changed"]["gates"] == [{}, {"z->h": 0.5}]
    assert any("inverse_dynamics_z" in sentence for sentence in about["routing"])
    assert json.loads((family / "child/environment.json").read_text())["fork"] == "parent@2"
    assert cli(["diff", "runs/parent", "runs/child"]) == 0
    out = capsys.readouterr().out
    assert "loss_weights.inverse_dynamics_z  0.0 -> 1.0" in out
    assert "At the last common step" in out


def test_weights_moments_average_and_running_sizes_are_taken_over(family, monkeypatch):
    from jepa_world_model.experiment import run

    seen = {}

    def look(start, experiment, average, table):
        seen.update(start=start, experiment=experiment, average=average)
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "_fit", look)
    assert trainer.main(["--fork", "parent@4", "--name", "child", "--loss-weights.z_smooth", "1"]) == 130
    place = family / "parent/checkpoints/step-00000004"
    task, optimizer = seen["experiment"].task, seen["experiment"].optimizer
    assert all(
        torch.equal(task.model.state_dict()[k], v) for k, v in load_file(place / "model.safetensors").items()
    )
    assert all(
        torch.equal(seen["average"].values[k], v) for k, v in load_file(place / "average.safetensors").items()
    )
    assert {int(state["step"]) for state in optimizer.state.values()} == {4}
    names = [loss.name for loss in task.losses]
    count = dict(zip(names, task.sizes.seen.tolist(), strict=True))
    assert count.pop("z_smooth") == 0
    assert set(count.values()) == {4.0}


def test_a_fork_that_was_killed_is_carried_on_by_the_same_command(family, monkeypatch):
    from jepa_world_model.experiment import run

    command = ["--fork", "parent@2", "--name", "child", "--resume"]
    real, calls = run.train_step, []

    def dying(*args: object, **kwargs: object) -> object:
        calls.append(args[3])
        if len(calls) in (2, 6):
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(run, "train_step", dying)
    assert [trainer.main(command) for _ in range(3)] == [130, 130, 0]
    assert calls == [
        2,
        3,
        2,
        3,
        4,
        5,
        4,
        5,
    ]  # before a checkpoint of its own again from the parent's, then from its own
    assert tensors(family / "child") == tensors(family / "parent")


@pytest.mark.parametrize(("fork", "words"), [
    ("parent", "write RUN@STEP"),
    ("nobody@4", "there is no run at nobody nor at runs/nobody"),
    ("parent@3", "keeps no checkpoint of step 3; it keeps 2, 4, 6"),
    ("parent@best", "keeps no checkpoint of step best"),
    ("parent@6", "has done 6 steps there, and this run asks for 6"),
])  # fmt: skip
def test_a_parent_that_cannot_be_is_one_sentence_and_leaves_no_run(family, capsys, fork, words):
    assert trainer.main(["--fork", fork, "--name", "child"]) == 2
    assert words in capsys.readouterr().err
    assert not (family / "child").exists()


def test_other_shapes_are_refused_by_name(family, capsys):
    assert (
        trainer.main(
            ["--fork", "parent@newest", "--name", "child", "--steps", "9", "--model.hidden-dim", "24"]
        )
        == 2
    )
    assert "predictor.inner.weight saved float32[16" in capsys.readouterr().err
    assert not (family / "child").exists()


def test_another_order_of_the_data_is_told(family, capsys):
    assert trainer.main(["--fork", "parent@4", "--name", "child", "--seed", "1"]) == 0
    assert "seed differs, so the windows come in another order" in capsys.readouterr().out


def test_no_flag_at_all_is_the_defaults():
    assert read_config([], prog="jepa-wm train", description="") == TrainConfig()  # what `make train` runs
