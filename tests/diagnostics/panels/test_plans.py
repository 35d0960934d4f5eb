"""What planning needs, against closed forms."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jepa_world_model.diagnostics.panels.evidence import ToGo
from jepa_world_model.diagnostics.panels.panel import MissingError
from jepa_world_model.diagnostics.panels.plans import plannability, ranking, reachable
from tests.diagnostics.panels.asked import broken, healthy


def test_the_ranking_of_a_clock_is_that_of_time():
    assert ranking(broken("p_clock")).values["p_beyond_clock"] == pytest.approx(0, abs=1e-6)
    assert ranking(healthy()).values["p_accuracy"] == 1


def test_costs_are_correlated_with_steps_goal_by_goal():
    rng = np.random.default_rng(0)
    steps = rng.integers(1, 30, (60, 4)).astype(float)
    costs = {"z": np.exp(steps / 9) * rng.uniform(1, 9, 4), "h": -steps, "p": np.ones_like(steps)}
    ahead = ToGo(steps=steps, straight=steps * 2, costs=costs)
    values = plannability(dataclasses.replace(healthy(), to_go=ahead)).values
    assert values == pytest.approx(
        {"z": 1, "h": -1, "p": 0, "straight": 1}
    )  # each goal has a scale of its own


def test_goals_without_a_way_do_not_count():
    steps = np.full((20, 2), np.nan)
    steps[:, 0] = np.arange(20)
    ahead = ToGo(steps=steps, straight=np.ones_like(steps), costs={"z": np.stack([np.arange(20)] * 2, 1)})
    assert plannability(dataclasses.replace(healthy(), to_go=ahead)).values["z"] == pytest.approx(1)


def test_the_graph_of_the_oracle_is_that_of_the_places():
    values = reachable(healthy()).values
    assert values["z_reachable"] == values["h_nodes"] == 1


def test_states_that_never_meet_again_make_no_graph_and_a_still_one_makes_none_either():
    seen = healthy()
    lonely = seen.latents["h"] + np.arange(len(seen.layout))[:, None, None] * 100.0
    values = reachable(dataclasses.replace(seen, latents={**seen.latents, "h": lonely})).values
    assert values["h_reachable"] < 0.2
    assert values["h_nodes"] > 3
    assert reachable(broken("z_collapsed")).values["z_reachable"] < 0.1


def test_walls_that_differ_make_no_common_graph():
    mixed = dataclasses.replace(healthy(), layout=np.arange(len(healthy().layout)))
    with pytest.raises(MissingError, match="one layout"):
        reachable(mixed)
