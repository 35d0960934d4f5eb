"""The map of poses: figure and words from a snapshot's arrays."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jepa_world_model.diagnostics.pose_pictures import pose_map, pose_map_figure, read_map
from jepa_world_model.diagnostics.records import Record


def arrays(*, clock: bool = False) -> dict[str, np.ndarray]:
    """Thirty walks on a plane, p a turned copy of the place, or the time."""
    rng = np.random.default_rng(0)
    moves = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
    place = np.pad(moves[rng.integers(0, 5, (30, 12))].cumsum(1), ((0, 0), (1, 0), (0, 0))).astype(np.float32)
    seen = place @ np.array([[0.8, 0.6], [-0.6, 0.8]], np.float32)
    time = np.arange(13, dtype=np.float32)[None, :, None] * np.ones((30, 1, 2), np.float32)
    return {"map_seen": seen, "map_counted": seen[:, :1] + time if clock else seen, "map_place": place}


def record(shots: dict[str, np.ndarray]) -> Record:
    empty = {field.name: {} for field in dataclasses.fields(Record)}
    return Record(**empty | {"folder": None, "gradients": [], "snapshot": shots})


def test_a_true_map_has_no_drift_and_closes_its_loops_and_a_clock_does_not():
    found, closure = read_map(arrays())
    assert found.step == pytest.approx(1)
    assert found.drift.max() < 1e-5
    assert closure.error.max() < 1e-5
    assert closure.apart > 1
    found, closure = read_map(arrays(clock=True))
    assert np.median(found.drift[:, -1]) > 8
    assert closure.error.min() > 2


def test_the_section_says_in_words_what_the_picture_shows():
    body = pose_map(record(arrays())).body
    assert "<svg" in body
    assert "After 12 steps the two are 0 moves apart (median)" in body
    assert "Returns miss by 0 moves" in body
    assert len(pose_map_figure(arrays()).axes) == 3
    without_truth = {k: v for k, v in arrays().items() if k != "map_place"}
    assert "<svg" in pose_map(record(without_truth)).body


def test_what_is_missing_is_said():
    assert "needs a training with --loss-weights.pose-measure-p 1" in pose_map(record({})).body
    still = {key: np.zeros((4, 5, 2), np.float32) for key in ("map_seen", "map_counted")}
    assert "The measured pose never moves" in pose_map(record(still)).body
