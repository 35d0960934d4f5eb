"""Rollouts, ablations, drift and norms."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jepa_world_model.diagnostics.panels.panel import MissingError
from jepa_world_model.diagnostics.panels.prediction import actions, drift, memory, norms, rollouts
from tests.diagnostics.panels.asked import ask, broken, healthy


def test_a_model_that_ignores_actions_scores_one():
    values = actions(broken("ignores_actions")).values
    assert values["error_ratio"] == 1
    assert values["h_effect"] == 0


def test_a_model_that_copies_scores_one_at_every_k():
    values = rollouts(ask(predictor=lambda z, h, a: z)).values
    for name in ("z_ratio_1", "z_ratio_k", "pixel_ratio_k"):
        assert values[name] == pytest.approx(1, abs=1e-6)


def test_a_steady_offset_grows_linearly():
    seen = healthy()
    true = seen.self_fed.true["z"].astype(np.float64)
    off = np.arange(len(true))[:, None, None] * np.array([0.3, 0.4])
    fed = dataclasses.replace(seen.self_fed, open={"z": true + off})
    assert rollouts(dataclasses.replace(seen, self_fed=fed)).values["growth"] == pytest.approx(1)


def test_a_model_without_memory_loses_nothing_when_h_is_zero():
    values = memory(ask(predictor=lambda z, h, a: z)).values
    assert values["error_ratio"] == pytest.approx(1)
    assert memory(healthy()).values["error_ratio"] > 100
    bare = dataclasses.replace(healthy(), one_step=dataclasses.replace(healthy().one_step, no_memory=None))
    with pytest.raises(MissingError, match="set to zeros"):
        memory(bare)


def test_drift_names_the_action_that_goes_wrong():
    seen = healthy()
    wrong = seen.self_fed.action_id == 3  # up
    opened = seen.self_fed.true["h"].copy()
    opened[1:][wrong] += 2.0
    fed = dataclasses.replace(seen.self_fed, open={**seen.self_fed.open, "h": opened})
    found = drift(dataclasses.replace(seen, self_fed=fed))
    assert found.values["worst"] == pytest.approx(np.sqrt(8), rel=1e-5)
    assert "up came last" in found.sentence
    assert found.figure().index(">up<") < found.figure().index(">down<")


def test_norms_count_growth_and_decay_alike():
    seen = healthy()
    usual = np.median(np.linalg.norm(seen.latents["h"].reshape(-1, 2), axis=1))
    for factor in (4.0, 0.25):
        sizes = usual * np.geomspace(1, factor, 65)[:, None] * np.ones((65, 3))
        values = norms(dataclasses.replace(seen, norms={"h": sizes})).values
        assert values["h_factor"] == pytest.approx(4, rel=1e-6)
    lost = np.full((65, 3), np.inf)
    assert norms(dataclasses.replace(seen, norms={"h": lost})).values["h_factor"] > 1e5
