"""The page on adding things: its example, pasted into a copy of the package, is a loss like any other."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands.test_gradients import TINY

ROOT = Path(__file__).parents[1]
BLOCKS = re.compile(r"```python\n# (jepa_world_model/\S+?\.py)(?:, in \w+)?\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def with_example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package to which the page's two blocks are appended, and nothing else."""
    place = tmp_path_factory.mktemp("adding")
    shutil.copytree(
        ROOT / "jepa_world_model", place / "jepa_world_model", ignore=shutil.ignore_patterns("*.pyc")
    )
    blocks = BLOCKS.findall((ROOT / "docs" / "adding.md").read_text(encoding="utf-8"))
    assert [name for name, _ in blocks] == [
        f"jepa_world_model/losses/{x}.py" for x in ("weights", "algebra_h")
    ]
    for name, body in blocks:
        with open(place / name, "a", encoding="utf-8") as file:
            file.write(body if body.startswith("    ") else "\n\n" + body)
    return place


def jepa_wm(place: Path, *words: str) -> str:
    """What the command of a copy prints."""
    done = subprocess.run(
        [sys.executable, "-m", "jepa_world_model.cli", *words], cwd=place, env=os.environ | {"PYTHONPATH": str(place)},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_pasted_loss_stands_in_the_table_with_its_reach(with_example):
    flags = ("--loss-weights.norm-h", "0.1", "--loss-options.norm-h.radius", "2")
    rows = json.loads(jepa_wm(with_example, "gradients", "--format", "json", *TINY, *flags))["losses"]
    assert rows["norm_h"]["weight"] == 0.1
    assert rows["norm_h"]["derived"] == rows["norm_h"]["structural"] == ["predictor"]
