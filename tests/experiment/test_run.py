"""A run from flags to report: it repeats, resumes, and refuses what cannot work before anything is written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import jepa_world_model_trainer as trainer
from jepa_world_model.core.checkpoint import latest_checkpoint
from jepa_world_model.core.log import read_metrics

TINY = [
    "--model.image-size", "16", "--model.encoder-schedule", "8", "8", "--model.decoder-schedule", "8", "8",
    "--model.z-dim", "8", "--model.state-dim", "8", "--model.hidden-dim", "16", "--model.keypoints", "4",
    "--model.pose-dim", "2", "--seq-len", "6", "--rollout-horizon", "4", "--batch-size", "4", "--log-every", "1",
    "--data.options", "size", "16", "cells", "5", "layout", "open",
    "--data.episodes", "12", "--data.length", "14", "--eval-windows", "6",
    "--precision", "fp32", "--threads", "1", "--no-diagnostics",
]  # fmt: skip


def run(*flags: str) -> int:
    return trainer.main([*TINY, *flags])


def without_options() -> list[str]:
    """The tiny flags for data other than the built-in gridworld."""
    first = TINY.index("--data.options")
    return [*TINY[:first], *TINY[first + 7 :]]


def numbers(folder: Path) -> list[dict]:
    """The records without what a clock says."""
    rows = read_metrics(folder / "metrics.jsonl")
    return [{name: v for name, v in row.items() if not name.startswith("time")} for row in rows]


def test_a_run_leaves_what_the_design_promises(here, capsys):
    assert run("--steps", "3", "--name", "a") == 0
    folder = here / "runs" / "a"
    for name in (
        "config.toml",
        "environment.json",
        "reach.json",
        "reach.md",
        "metrics.jsonl",
        "report.html",
        "graph.json",
    ):
        assert (folder / name).stat().st_size > 0
    assert latest_checkpoint(folder / "checkpoints") is not None
    out = capsys.readouterr().out
    assert "Which loss moves which module" in out
    assert f"report: {Path('runs/a/report.html')}" in out
    assert "http://" not in (folder / "report.html").read_text().replace("http://www.w3.org", "")
    assert json.loads((folder / "reach.json").read_text())["faults"] == []
    assert {"loss/jepa", "weighted/jepa", "loss/total", "grad_norm/encoder", "lr"} <= set(numbers(folder)[-1])
    assert "eval/latent_one_step_ratio" in numbers(folder)[-1]


def test_the_saved_configuration_repeats_the_run_to_the_same_numbers(here):
    assert (
        run(
            "--steps",
            "4",
            "--name",
            "a",
            "--loss-weights.h2z",
            "0",
            "--detach-decoder",
            "--model.pose-dim",
            "3",
        )
        == 0
    )
    assert trainer.main(["--config", "runs/a/config.toml", "--name", "b"]) == 0
    assert numbers(here / "runs/a") == numbers(here / "runs/b")
    assert "loss/h2z" not in numbers(here / "runs/a")[-1]


def test_hooks_leave_no_trace_in_training(here):
    assert run("--steps", "4", "--name", "a", "--eval-every", "0", "--checkpoint-every", "0") == 0
    assert (
        run(
            "--steps",
            "4",
            "--name",
            "b",
            "--eval-every",
            "1",
            "--checkpoint-every",
            "1",
            "--grad-report-every",
            "2",
        )
        == 0
    )
    strip = lambda rows: [
        {k: v for k, v in row.items() if k.startswith(("loss/", "grad_norm/"))} for row in rows
    ]
    assert strip(numbers(here / "runs/a")) == strip(numbers(here / "runs/b"))


@pytest.mark.parametrize(("flags", "words"), [
    (["--loss-weights.jepaa", "1"], "did you mean --loss-weights.jepa"),
    (["--loss-weights.jepa", "-1"], "0 (off) or above"),
    (["--loss-weights.jepa", "nan"], "finite"),
    (["--gates", "z->hh", "0"], "did you mean 'z->h'"),
    (["--gates", "z->h", "2"], "[0, 1]"),
    (["--rollout-horizon", "6"], "a window of 6 frames cannot hold the horizon 6"),
    (["--model.image-size", "2"], "image_size"),
    (["--model.image-size", "32"], "--model.image-size 16"),
    (["--model.in-channels", "1"], "--model.in-channels 3"),
    (["--model.action-dim", "3"], "leave it at 0"),
    (["--seq-len", "40"], "no usable window"),
    (["--data.source", "gridwrld"], "did you mean 'gridworld'"),
    (["--data.options", "patern", "loop"], "has no option patern"),
    (["--optim.lr-scale", "encodr", "1"], "encoder"),
    (["--precision", "fp8"], "auto, fp32 or bf16"),
    (["--device", "tpu9"], "unknown"),
    (["--loss-schedules", "jepa", "rampp:1:2"], "ramp:START:END"),
    (["--resume", "--name", "../a"], "single folder name"),
    (["--best-metric", "eval/recon_mze"], "did you mean 'eval/recon_mse'"),
    (["--ema", "1"], "ema must lie in [0, 1)"),
    (["--config", "none.toml"], "none.toml"),
    (["--wandb.mode", "on"], "online, offline or disabled"),
])  # fmt: skip
def test_what_the_user_can_mend_is_one_sentence_and_code_2_and_leaves_no_run(here, capsys, flags, words):
    assert run("--steps", "2", "--name", "a", *flags) == 2
    err = capsys.readouterr().err
    assert words in err
    assert "Traceback" not in err
    assert err.strip().count("\n") == 0
    assert not (here / "runs").exists()


def test_a_name_that_is_taken_is_refused_and_the_run_stays(here, capsys):
    assert run("--steps", "2", "--name", "a") == 0
    before = (here / "runs/a/metrics.jsonl").read_bytes()
    assert run("--steps", "2", "--name", "a") == 2
    assert "choose another --name" in capsys.readouterr().err
    assert (here / "runs/a/metrics.jsonl").read_bytes() == before


def test_a_checkpoint_of_another_shape_names_the_keys(here, capsys):
    assert run("--steps", "2", "--name", "a") == 0
    assert run("--steps", "4", "--name", "a", "--resume", "--model.hidden-dim", "12") == 2
    assert "predictor.inner.weight" in capsys.readouterr().err


def test_all_losses_off_is_refused(here, capsys):
    off = [word for name in ("jepa", "recon-multi-box", "pixel-delta-multi-box", "h2z", "z2h", "action-delta-h",
           "rollout-kstep-h", "rollout-kstep-delta-h", "action-delta-dp", "additivity-dp", "rollout-kstep-p", "scale-dp",
           "geometry-rank-p", "inverse-dynamics-h") for word in (f"--loss-weights.{name}", "0")]  # fmt: skip
    assert run("--steps", "2", *off) == 2
    assert "nothing would train" in capsys.readouterr().err


def test_one_loss_alone_builds_only_what_it_needs(here):
    off = [word for name in ("recon-multi-box", "pixel-delta-multi-box", "z2h", "action-delta-h", "rollout-kstep-h",
           "rollout-kstep-delta-h", "action-delta-dp", "additivity-dp", "rollout-kstep-p", "scale-dp", "geometry-rank-p",
           "inverse-dynamics-h") for word in (f"--loss-weights.{name}", "0")]  # fmt: skip
    assert run("--steps", "2", "--name", "a", "--model.h-init", "zero", *off) == 0
    groups = json.loads((here / "runs/a/reach.json").read_text())["groups"]
    assert set(groups) == {"encoder", "predictor", "h_to_z"}


@pytest.mark.parametrize("source", ["two_rooms", "trajectories"])
def test_other_data_train_too(here, source):
    flags = ["--steps", "2", "--name", "a"]
    if source == "two_rooms":
        flags += [
            "--data.source",
            "two_rooms",
            "--data.episodes",
            "6",
            "--model.in-channels",
            "2",
            "--model.image-size",
            "65",
        ]
        assert trainer.main([*without_options(), *flags]) == 0
        return
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(4):
        states = here / "recorded" / f"traj_{number}" / "states"
        states.mkdir(parents=True)
        for t in range(12):
            Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(states / f"state_{t}.png")
        buttons = rng.integers(0, 2, (11, 8)).astype(np.uint8)
        np.savez(states.parent / "actions.npz", actions=buttons)
    assert trainer.main([*without_options(), *flags, "--data.source", "recorded"]) == 0
    assert "inverse_dynamics_h" in json.loads((here / "runs/a/reach.json").read_text())["losses"]


def test_help_is_quick_and_names_every_loss():
    done = subprocess.run(
        [sys.executable, trainer.__file__, "--help"], capture_output=True, text=True, timeout=60, check=True
    )
    assert "--loss-weights.geometry-rank-p" in done.stdout


def test_a_compiled_run_says_what_it_compiled_and_learns_the_same(here, capsys, monkeypatch):
    monkeypatch.setattr("jepa_world_model.core.compiled.inductor", lambda listed, inputs: listed)
    assert run("--steps", "3", "--name", "plain") == 0
    assert "compiled" not in capsys.readouterr().out
    assert run("--steps", "3", "--name", "compiled", "--compile", "--accumulate", "1") == 0
    out = capsys.readouterr().out
    assert out.count("compiled ") == 1
    assert "gradients within 0.0e+00 of the plain step's" in out
    assert numbers(here / "runs" / "compiled") == numbers(here / "runs" / "plain")


def test_compiling_and_recomputing_exclude_each_other(here, capsys):
    assert run("--steps", "3", "--compile", "--model.checkpointing") == 2
    assert "use one of them" in capsys.readouterr().err
    assert not (here / "runs").exists()
