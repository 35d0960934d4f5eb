"""docs/python.md: its code runs in order on a trained run, its commands exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import torch

from jepa_world_model.cli import COMMANDS
from jepa_world_model.commands.completion import SHELLS
from jepa_world_model.core.config import load_config
from jepa_world_model.experiment import TrainConfig
from jepa_world_model.models.programs import programs

PAGE = (Path(__file__).parents[1] / "docs" / "python.md").read_text(encoding="utf-8")


def test_the_code_of_the_page_runs_in_order(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frames = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    scope = {"frames": frames, "actions": np.zeros(5, int)}
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(code.replace("runs/NAME", str(trained)), "python.md", "exec"), scope)
    assert scope["future"].frames.shape == (5, 3, 16, 16)
    assert scope["plan"].actions.shape == (20,)
    torch.testing.assert_close(scope["z"], scope["run"].encode(frames), atol=1e-5, rtol=1e-5)
    assert torch.equal(scope["again"].model.predictor.inner.weight, scope["model"].predictor.inner.weight)
    listed = re.findall(r"^\| `(\w+)\.pt2` \|", PAGE, re.MULTILINE)
    assert listed == list(programs(scope["model"], scope["model"].cfg))


def test_its_commands_exist():
    lines = [line.partition("  #")[0] for line in PAGE.split("\n") if line.startswith("jepa-wm ")]
    assert len(lines) >= 6
    for words in map(shlex.split, lines):
        assert words[1] in COMMANDS
        if words[1] == "train":
            assert load_config(TrainConfig, words[2:], prog="jepa-wm train").steps == 900
        if words[1] == "completion":
            assert words[2] in SHELLS
    scripts = set(re.findall(r"python (benchmarks/\w+\.py)", PAGE))
    assert all((Path(__file__).parents[1] / script).is_file() for script in scripts)
