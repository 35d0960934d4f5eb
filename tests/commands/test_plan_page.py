"""`jepa-wm plan-page`: a page for a gridworld run, and clear words where there can be none."""

from __future__ import annotations

from pathlib import Path

import pytest

from jepa_world_model.commands.plan_page import main
from jepa_world_model.core.config import load_config
from jepa_world_model.core.errors import UserError
from jepa_world_model.experiment import TrainConfig, train

TINY = [
    "--steps", "1", "--batch-size", "2", "--seq-len", "6", "--rollout-horizon", "3", "--eval-every", "0", "--no-report",
    "--eval-windows", "2", "--model.image-size", "32", "--model.hidden-dim", "16", "--model.state-dim", "16",
    "--model.z-dim", "8", "--model.keypoints", "4", "--model.encoder-schedule", "8", "16", "--model.decoder-schedule",
    "16", "8", "--data.episodes", "8", "--data.length", "12", "--data.options", "size", "32", "cells", "5", "layout", "open",
    "--precision", "fp32",
]  # fmt: skip


def run(folder: Path, name: str, *flags: str) -> Path:
    words = [
        *TINY,
        "--output-dir",
        str(folder),
        "--name",
        name,
        "--data.cache-dir",
        str(folder / "data"),
        *flags,
    ]
    return train(load_config(TrainConfig, words, prog="x"))


def test_a_run_with_a_measured_pose_gets_a_page_and_one_without_is_told_what_is_missing(tmp_path, capsys):
    with_pose = run(tmp_path, "posed", "--loss-weights.pose-measure-p", "1")
    capsys.readouterr()
    main([str(with_pose)])
    said = Path(capsys.readouterr().out.strip())
    assert said == with_pose / "planning" / "plan.html"
    assert "Plans of posed" in said.read_text()
    with pytest.raises(UserError, match="pose-measure-p above 0"):
        main([str(run(tmp_path, "plain"))])
