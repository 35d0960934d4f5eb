"""A step that goes wrong: nothing is updated, its batch is kept, and the command that is named finds the loss."""

from __future__ import annotations

import json
import math
import re

import pytest
import torch

import jepa_world_model_trainer as trainer
from jepa_world_model.cli import main as cli
from jepa_world_model.core.checkpoint import latest_checkpoint
from jepa_world_model.core.log import read_metrics
from jepa_world_model.experiment import faults
from jepa_world_model.losses import LOSSES
from tests.experiment.test_run import TINY, numbers

FLAGS = [*TINY, "--no-report", "--loss-weights.z-smooth", "1", "--loss-weights.recon", "1"]


def breaking(monkeypatch: pytest.MonkeyPatch, name: str, wrong) -> None:
    """Let a loss go wrong on windows that begin at an odd frame first in the batch: a property of the batch alone."""
    loss = LOSSES[name]

    def function(view):
        value = loss.function(view)
        return wrong(value, view) if bool(view.batch.start[0] % 5 == 2) else value

    broken = type(loss)(loss.name, loss.family, loss.contract, function, loss.options, loss.trivial)
    monkeypatch.setitem(LOSSES._losses, name, broken)


def nan_value(value, view):
    return value * math.nan


def nan_gradient(value, view):
    """Finite, but its square root has no slope at 0."""
    return value + (view.z * 0).square().sum().sqrt()


@pytest.mark.parametrize(
    ("wrong", "mark"), [(nan_value, "<- not finite"), (nan_gradient, "<- gradient not finite on encoder")]
)
def test_the_replay_command_of_the_error_names_the_loss(here, monkeypatch, capsys, wrong, mark):
    breaking(monkeypatch, "z_smooth", wrong)
    assert trainer.main([*FLAGS, "--steps", "40", "--name", "a"]) == 2
    error = capsys.readouterr().err
    step = int(re.search(r"step (\d+) was not finite", error)[1])
    command = re.search(r"replay it with: jepa-wm (replay \S+)", error)[1]
    assert command == f"replay runs/a/faults/step-{step:08d}"
    assert cli(command.split()) == 0
    out = capsys.readouterr().out
    marked = [line for line in out.splitlines() if "<-" in line]
    assert [line.split()[0] for line in marked] == ["z_smooth"]
    assert mark in marked[0]
    assert not (here / f"runs/a/checkpoints/step-{step:08d}").exists()


def test_the_weights_that_are_kept_are_those_before_the_update(here, monkeypatch):
    from safetensors.torch import load_file

    breaking(monkeypatch, "z_smooth", nan_value)
    flags = [*FLAGS, "--name", "a", "--checkpoint-every", "1"]
    assert trainer.main([*flags, "--steps", "40"]) == 2
    kept = load_file(next((here / "runs/a/faults").iterdir()) / "model.safetensors")
    newest = load_file(latest_checkpoint(here / "runs/a/checkpoints") / "model.safetensors")
    assert all(torch.equal(value, newest[name]) for name, value in kept.items())


def test_what_is_finite_here_is_said_to_be(here, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        breaking(patch, "z_smooth", nan_value)
        assert trainer.main([*FLAGS, "--steps", "40", "--name", "a"]) == 2
    place = next((here / "runs/a/faults").iterdir())
    capsys.readouterr()
    assert cli(["replay", str(place)]) == 1  # the loss is whole again
    assert "everything is finite here" in capsys.readouterr().out
    (place / "batch-0.safetensors").write_bytes(b"")
    assert cli(["replay", str(place)]) == 2
    assert cli(["replay", str(here)]) == 2
    assert "is no kept step" in capsys.readouterr().err


def test_skipped_steps_are_counted_and_a_resumed_run_counts_on(here, monkeypatch):
    breaking(monkeypatch, "z_smooth", nan_value)
    flags = [*FLAGS, "--skip-non-finite", "30", "--optim.schedule", "constant", "--log-every", "2"]
    assert trainer.main([*flags, "--steps", "16", "--name", "whole"]) == 0
    assert trainer.main([*flags, "--steps", "7", "--name", "parts"]) == 0
    assert trainer.main([*flags, "--steps", "16", "--name", "parts", "--resume"]) == 0
    counts = {row["step"]: row["fault/skipped"] for row in numbers(here / "runs/whole")}
    resumed = {row["step"]: row["fault/skipped"] for row in numbers(here / "runs/parts")}
    assert counts[16] >= 2
    assert {step: resumed[step] for step in counts} == counts
    assert trainer.main([*flags[:-6], "--skip-non-finite", "1", "--steps", "40", "--name", "few"]) == 2


def test_a_spike_keeps_its_batch_and_training_goes_on(here, monkeypatch, capsys):
    monkeypatch.setattr(faults, "MOST", 2)
    from jepa_world_model.core import spikes

    monkeypatch.setattr(spikes, "FEWEST", 3)
    breaking(monkeypatch, "z_smooth", lambda value, view: value + 1e4)
    assert trainer.main([*FLAGS, "--steps", "30", "--name", "a", "--log-every", "7"]) == 0
    count = list(read_metrics(here / "runs/a/metrics.jsonl"))[-1]["fault/spikes"]
    kept = sorted((here / "runs/a/spikes").iterdir())
    assert count > 2
    assert len(kept) == 2
    about = json.loads((kept[0] / "fault.json").read_text())
    assert about["values"]["loss/z_smooth"] > 1e4
    assert about["not_finite"] == []
    assert cli(["replay", str(kept[0])]) == 2
    assert "give some with --weights" in capsys.readouterr().err
    weights = latest_checkpoint(here / "runs/a/checkpoints") / "model.safetensors"
    assert cli(["replay", str(kept[0]), "--weights", str(weights)]) == 0


def test_accumulated_batches_are_those_of_the_larger_batch_and_all_are_kept(here, monkeypatch, capsys):
    flags = [*FLAGS, "--steps", "3", "--eval-every", "0"]
    only = [
        w
        for name in LOSSES
        if name not in ("recon", "jepa", "h2z")
        for w in (f"--loss-weights.{name}".replace("_", "-"), "0")
    ]
    assert trainer.main([*flags, *only, "--loss-weights.recon", "1", "--name", "whole"]) == 0
    parts = ["--batch-size", "2", "--accumulate", "2", "--name", "parts"]
    assert trainer.main([*flags, *only, "--loss-weights.recon", "1", *parts]) == 0
    for a, b in zip(numbers(here / "runs/whole"), numbers(here / "runs/parts"), strict=True):
        for name in ("loss/recon", "loss/jepa", "grad_norm/predictor", "grad_norm/encoder"):
            assert b[name] == pytest.approx(a[name], rel=1e-4), name
    breaking(monkeypatch, "z_smooth", nan_value)
    assert (
        trainer.main([*flags, "--steps", "40", "--batch-size", "2", "--accumulate", "2", "--name", "bad"])
        == 2
    )
    place = next((here / "runs/bad/faults").iterdir())
    assert len(list(place.glob("batch-*"))) == 2
    capsys.readouterr()
    assert cli(["replay", str(place)]) == 0
    assert "batch 1: loss" in capsys.readouterr().out
