"""Arithmetic that the panels share."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from jepa_world_model.diagnostics.panels.evidence import rank_correlation, share, squares
from tests.diagnostics.panels.asked import healthy


def test_ranks_correlate_whatever_the_scale_and_ties_share_theirs():
    x = np.array([1.0, 2.0, 2.0, 5.0, 9.0])
    assert rank_correlation(x, np.exp(x)) == pytest.approx(1)
    assert rank_correlation(x, -x) == pytest.approx(-1)
    assert np.isnan(rank_correlation(x, np.ones(5)))
    y = np.array([3.0, 1.0, 4.0, 1.0, 5.0])  # ranks 3, 1.5, 4, 1.5, 5 against 1, 2.5, 2.5, 4, 5
    assert rank_correlation(x, y) == pytest.approx(2.75 / 9.5)


def test_rank_correlation_is_that_of_scipy():
    rng = np.random.default_rng(0)
    for _ in range(5):
        x, y = rng.integers(0, 9, (2, 40)).astype(float)  # with ties
        assert rank_correlation(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-12)


def test_equal_rows_are_exactly_no_distance_apart():
    rows = np.random.default_rng(0).normal(1e3, 1, (40, 7))
    rows[20:] = rows[:20]
    made = squares(rows)
    assert (np.diag(made[:20, 20:]) == 0).all()
    assert made[0, 1] == pytest.approx(((rows[0] - rows[1]) ** 2).sum())


def test_a_part_of_nothing_is_not_measured():
    assert share(1, 4) == 0.25
    assert np.isnan(share(1, 0))


def test_neighbours_in_time_are_within_a_window_only():
    seen = healthy()
    T = seen.noop.shape[1] + 1
    near = seen.near_in_time
    assert near[0, 1]
    assert not near[0, 2]
    assert not near[T - 1, T]
    assert np.isfinite(seen.apart).all()
