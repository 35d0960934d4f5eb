"""Probes against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jepa_world_model.diagnostics import probes

DRAW = np.random.default_rng(0)


def test_linear_probe_is_one_for_a_linear_code_and_near_zero_for_noise():
    x, weight = DRAW.normal(size=(400, 6)), DRAW.normal(size=(6, 2))
    y = x @ weight + 3.0
    noise = DRAW.normal(size=(400, 6))
    assert probes.linear_probe_r2(x[:200], y[:200], x[200:], y[200:]) > 0.9999
    assert abs(probes.linear_probe_r2(noise[:200], y[:200], noise[200:], y[200:])) < 0.15


def test_linear_probe_does_not_score_what_it_was_fitted_on():
    x, y = DRAW.normal(size=(60, 50)), DRAW.normal(size=(60, 2))
    assert probes.linear_probe_r2(x, y, x, y) > 0.5  # memorised
    assert probes.linear_probe_r2(x[:55], y[:55], x[55:], y[55:]) < 0.3


def test_linear_probe_of_the_same_value_everywhere_is_not_a_number():
    x = DRAW.normal(size=(10, 2))
    assert math.isnan(probes.linear_probe_r2(x, np.ones((10, 2)), x, np.ones((10, 2))))
    assert math.isnan(probes.linear_probe_r2(x[:0], x[:0], x, x))


def test_linear_probe_ignores_dead_features():
    x = DRAW.normal(size=(100, 3))
    dead = np.concatenate([x, np.full((100, 4), 7.0)], 1)
    assert probes.linear_probe_r2(dead[:50], x[:50], dead[50:], x[50:]) > 0.999


def test_effective_rank_counts_equal_directions():
    orthogonal = np.concatenate([np.eye(5), -np.eye(5)])
    assert probes.effective_rank(orthogonal) == pytest.approx(5)
    assert probes.effective_rank(np.pad(orthogonal, ((0, 0), (0, 20)))) == pytest.approx(5)
    assert probes.effective_rank(np.outer(np.arange(9.0), np.ones(4))) == pytest.approx(1, abs=1e-4)
    assert probes.effective_rank(np.full((9, 4), 0.1, np.float32)) == 0


def test_effective_rank_of_unequal_directions_is_the_entropy():
    values = np.array([3.0, 1.0])
    samples = np.concatenate([np.diag(values), -np.diag(values)])
    share = values / values.sum()
    assert probes.effective_rank(samples) == pytest.approx(np.exp(-(share * np.log(share)).sum()))


def test_principal_plane_keeps_distances_of_a_plane():
    plane, turn = DRAW.normal(size=(50, 2)), np.linalg.qr(DRAW.normal(size=(7, 7)))[0][:2]
    found, share = probes.principal_plane(plane @ turn)
    gap = lambda s: np.linalg.norm(s[:, None] - s[None], axis=-1)
    np.testing.assert_allclose(gap(found), gap(plane), atol=1e-9)
    assert share.sum() == pytest.approx(1)
    assert probes.principal_plane(np.arange(5.0)[:, None])[0].shape == (5, 2)


def test_increments_give_mean_spread_and_q():
    delta = np.array([[1.0, 0.3], [1.0, -0.3], [0.0, 2.0], [0.0, 2.0], [5.0, 5.0]])
    table = probes.increments_by_action(delta, np.array([0, 0, 3, 3, 4]))
    assert set(table) == {0, 3}  # a single sample has no spread
    assert table[0].q == pytest.approx(0.3)
    assert table[3].q == 0
    assert table[3].length == 2


def test_inverse_ratio_is_zero_for_opposites_and_two_for_equals():
    right = np.array([1.0, 0.5])
    assert probes.inverse_ratio(right, -right) == 0
    assert probes.inverse_ratio(right, right) == pytest.approx(2)
    assert math.isnan(probes.inverse_ratio(right * 0, right * 0))


def test_noop_ratio():
    delta, noop = np.array([[1.0, 0], [0, 3.0], [0.5, 0]]), np.array([False, False, True])
    assert probes.noop_ratio(delta, noop) == pytest.approx(0.25)
    assert math.isnan(probes.noop_ratio(delta, noop & False))


def test_opposite_actions_by_name():
    assert probes.opposite_actions(("noop", "up", "right", "down", "left")) == [(1, 3), (4, 2)]
    assert probes.opposite_actions(("MoveLeft", "MoveRight", "FIRE")) == [(0, 1)]
    assert probes.opposite_actions(()) == []


def test_a_clock_gains_nothing_and_the_truth_gains_what_the_clock_misses():
    place = np.array([[0.0, 1.0, 2.0, 1.0, 2.0, 3.0]])  # goes back once
    truth = np.abs(place - place[:, -1:])
    clock = np.arange(5.0, -1, -1)[None]
    right, time = probes.rank_accuracy(truth, truth)
    assert right == 1
    assert time == pytest.approx(7 / 8)
    assert probes.rank_accuracy(clock, truth)[0] == time
    assert probes.rank_accuracy(truth * 0, truth)[0] == 0.5


def test_loops_close_in_the_truth_and_not_in_a_drift():
    place = np.array([[[0.0], [1.0], [1.0], [0.0], [1.0]]])
    assert probes.loop_residual(place, place) == 0
    assert probes.loop_residual(np.arange(5.0)[None, :, None], place) > 0.9
    assert math.isnan(probes.loop_residual(place[:, :3], place[:, :3]))
