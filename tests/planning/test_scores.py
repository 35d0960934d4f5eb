"""What episodes add up to: intervals against known ones, summaries by hand, hashes that tell things apart."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from jepa_world_model.planning.closed_loop import Episodes
from jepa_world_model.planning.scores import data_hash, pairs_hash, summary, table_text, weights_hash, wilson


@pytest.mark.parametrize(("won", "of", "interval"), [
    (0, 10, (0.0, 0.2775)), (10, 10, (0.7225, 1.0)), (21, 30, (0.5212, 0.8334)), (50, 100, (0.4038, 0.5962)),
    (0, 0, (0.0, 1.0)),
])  # fmt: skip
def test_wilson_intervals_are_the_published_ones(won, of, interval):
    assert wilson(won, of) == pytest.approx(interval, abs=1e-4)


@pytest.mark.parametrize(("won", "of"), [(0, 7), (1, 3), (40, 41), (123, 1000)])
def test_intervals_are_those_of_scipy(won, of):
    theirs = scipy.stats.binomtest(won, of).proportion_ci(0.95, method="wilson")
    assert wilson(won, of) == pytest.approx((theirs.low, theirs.high), abs=2e-5)  # z is rounded to 1.96


def episodes() -> Episodes:
    distance = np.array([[10.0, 6.0, 4.0, 5.0], [3.0, 4.0, 1.0, 1.0], [9.0, 9.0, 9.0, 9.0]])
    near = distance < 4.5
    return Episodes(
        starts=np.zeros((3, 2)), goals=np.ones((3, 2)), places=np.zeros((3, 4, 2)), actions=np.zeros((3, 3, 2)),
        distance=distance, optimal=np.array([4.0, 2.0, 5.0]),
        success={"final": near[:, -1], "ever": near.any(1)}, solved_at_start=near[:, 0],
        steps_to_goal=np.array([2.0, 0.0, np.nan]),
    )  # fmt: skip


def test_a_summary_counts_by_hand():
    found = summary(episodes())
    assert found["success"]["final"]["solved"] == 1
    assert found["success"]["ever"]["rate"] == pytest.approx(0.6667, abs=1e-4)
    assert found["success"]["ever"]["interval"] == pytest.approx(wilson(2, 3), abs=1e-4)
    assert found["solved_at_start"] == pytest.approx(1 / 3, abs=1e-4)
    assert found["mean_final_distance"] == 5.0
    assert found["mean_least_distance"] == pytest.approx((4 + 1 + 9) / 3, abs=1e-3)
    assert found["mean_steps_to_goal"] == 2.0  # the one that starts solved has walked no way
    assert found["path_over_optimal"] == 0.5


def test_the_table_has_a_row_an_arm_and_a_dash_where_nobody_arrives():
    rows = episodes()
    nobody = Episodes(**{**rows.__dict__, "steps_to_goal": np.full(3, np.nan)})
    text = table_text({"model": summary(rows), "random": summary(nobody)})
    assert len(text.split("\n")) == 3
    assert "66.7% [ 21%,  94%]" in text
    assert text.split("\n")[2].split()[-1] == "-"


def test_hashes_tell_models_pairs_and_data_apart():
    torch.manual_seed(0)
    model = nn.Linear(2, 3)
    before = weights_hash(model)
    assert before == weights_hash(model)
    with torch.no_grad():
        model.bias[1] += 1e-6
    assert before != weights_hash(model)
    half = nn.Linear(2, 3).bfloat16()
    assert len(weights_hash(half)) == 16
    starts = np.zeros((3, 2))
    assert pairs_hash(starts, starts + 1) == pairs_hash(starts.copy(), starts + 1)
    assert pairs_hash(starts, starts + 1) != pairs_hash(starts + 1, starts)
    assert data_hash({"sha256": {"frames": "a"}, "created": "now"}) == data_hash({"sha256": {"frames": "a"}})
    assert data_hash({"pattern": "loop"}) != data_hash({"pattern": "random"})
    assert data_hash({}) == ""
