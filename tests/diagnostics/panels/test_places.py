"""Places, against closed forms."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jepa_world_model.diagnostics.panels.panel import MissingError
from jepa_world_model.diagnostics.panels.places import laps, neighbours, revisit, same_frame, shift
from tests.diagnostics.panels.asked import broken, healthy


def noisy(scale: float):
    seen = healthy()
    noise = np.random.default_rng(0).normal(0, scale, seen.latents["z"].shape)
    return dataclasses.replace(seen, latents={**seen.latents, "z": seen.latents["z"] + noise})


def test_a_place_is_known_again_unless_z_is_noise_or_still():
    assert same_frame(healthy()).values["ratio"] == 0
    assert 0.1 < same_frame(noisy(0.5)).values["ratio"] < 0.5
    assert same_frame(noisy(100.0)).values["ratio"] == pytest.approx(1, abs=0.05)
    assert same_frame(broken("z_collapsed")).values["ratio"] == 1  # the same everywhere is no consistency


def test_distance_in_z_grows_with_displacement_unless_z_is_noise_or_still():
    assert shift(healthy()).values["rank_correlation"] == pytest.approx(1, abs=1e-6)
    assert abs(shift(noisy(100.0)).values["rank_correlation"]) < 0.1
    assert shift(broken("z_collapsed")).values == {"rank_correlation": 0.0, "rising": 0.0}


def test_neighbours_of_noise_are_chance():
    assert neighbours(healthy()).values["z_ratio"] < 0.1
    assert neighbours(noisy(1000.0)).values["z_ratio"] == pytest.approx(1, abs=0.1)
    assert neighbours(broken("z_collapsed")).values["z_ratio"] == 1


def test_neighbours_are_sought_among_the_same_walls_only():
    seen = healthy()
    half = dataclasses.replace(seen, layout=np.arange(len(seen.layout)) % 2)
    assert np.isnan(half.apart[0, half.noop.shape[1] + 1])
    assert neighbours(half).values["z_ratio"] < 0.15


def test_a_pose_that_comes_back_closes_and_a_clock_does_not():
    assert revisit(healthy()).values["p_ratio"] == pytest.approx(0, abs=1e-6)
    assert revisit(broken("p_clock")).values["p_ratio"] > 0.5
    still = dataclasses.replace(healthy(), places=np.zeros_like(healthy().places))
    with pytest.raises(MissingError):
        revisit(still)


def test_nodes_of_a_clock_grow_lap_by_lap_and_those_of_a_pose_do_not():
    assert laps(healthy()).values == {"h_growth": 0.0, "p_growth": 0.0}
    assert laps(broken("p_clock")).values["p_growth"] == pytest.approx(1, abs=0.05)
    assert "has 28 places" in laps(healthy()).sentence  # the outermost ring of 8 x 8
    with pytest.raises(MissingError, match="simulator"):
        laps(dataclasses.replace(healthy(), laps=None))
