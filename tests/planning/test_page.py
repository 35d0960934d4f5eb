"""docs/planning.md: its tables and its text name what there is. Its blocks: tests/test_code_blocks.py."""

from __future__ import annotations

import re
from pathlib import Path

from jepa_world_model.core.config import load_config
from jepa_world_model.experiment import TrainConfig
from jepa_world_model.experiment.plan_config import COSTS, PlanConfig
from jepa_world_model.planning.planners import PLANNERS

TEXT = (Path(__file__).parents[2] / "docs" / "planning.md").read_text(encoding="utf-8")


def test_every_planner_and_cost_has_its_row():
    rows = "\n".join(line for line in TEXT.split("\n") if line.startswith("|"))
    for name in (*PLANNERS, *COSTS):
        assert f"`{name}`" in rows


def test_flags_that_the_text_names_exist():
    named = re.findall(r"`(--[\w.-]+(?: \w+)?)`", TEXT)
    assert len(named) > 10
    for flag in named:
        words = flag.split()
        if words[0].startswith("--loss-weights"):
            weights = load_config(TrainConfig, [words[0], "0.75"], prog="x").loss_weights
            assert getattr(weights, words[0].partition(".")[2].replace("-", "_")) == 0.75
            continue
        value = [] if words[0] == "--decompose" else words[1:] or ["2000"]
        changed = load_config(PlanConfig, [words[0], *value], prog="x")
        assert changed != load_config(PlanConfig, [], prog="x"), f"{flag} changes nothing"
