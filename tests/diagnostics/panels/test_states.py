"""Spread and position."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jepa_world_model.diagnostics.panels.panel import MissingError
from jepa_world_model.diagnostics.panels.states import position, spread
from tests.diagnostics.panels.asked import broken, healthy


def test_a_still_z_has_no_spread_and_no_direction():
    values = spread(broken("z_collapsed")).values
    assert values["z_std"] == values["z_rank"] == 0
    assert spread(healthy()).values["z_rank"] == pytest.approx(2, abs=0.05)


def test_position_is_read_off_other_episodes():
    values = position(healthy()).values
    assert values["z_r2"] == values["h_r2"] == pytest.approx(1, abs=1e-4)
    assert values["p_minus_actions"] > 0.1  # walls: summed actions walk through them
    noise = np.random.default_rng(0).normal(size=healthy().latents["z"].shape).astype(np.float32)
    deaf = dataclasses.replace(healthy(), latents={**healthy().latents, "z": noise})
    assert position(deaf).values["z_r2"] < 0.1


def test_a_handful_of_episodes_says_nothing():
    few = dataclasses.replace(healthy(), episode=healthy().episode % 3)
    with pytest.raises(MissingError, match="10 held-out episodes"):
        position(few)
