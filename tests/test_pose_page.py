"""docs/pose.md and configs/pose_planning.toml: what they name exists, and the run can plan in p."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from jepa_world_model.core.config import from_toml
from jepa_world_model.core.task import needed_groups
from jepa_world_model.envs import generate_gridworld
from jepa_world_model.envs.layouts import make_layout
from jepa_world_model.envs.loops import interior
from jepa_world_model.experiment import TrainConfig
from jepa_world_model.experiment.data import option_value
from jepa_world_model.losses import LOSSES

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "pose.md").read_text(encoding="utf-8")
CONFIG = ROOT / "configs" / "pose_planning.toml"


def test_the_run_builds_what_a_plan_in_p_needs_and_never_shows_the_interior():
    cfg = from_toml(TrainConfig, CONFIG)
    groups = needed_groups(cfg.graph(), LOSSES.active(dataclasses.asdict(cfg.loss_weights)))
    assert {"pose_measurement", "p_action_delta_projector", "encoder", "z_to_h"} <= set(groups)
    assert cfg.loss_weights.geometry_rank_p == 0
    options = {name: option_value(text) for name, text in cfg.data.options.items()}
    data = generate_gridworld(episodes=30, length=20, **options)
    hidden = interior(make_layout(options["layout"]))
    x, y = data["states"].astype(int).T
    assert not hidden[y, x].any()
    assert data["blocked"].any()
