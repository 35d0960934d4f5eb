"""What is kept of a model for its pictures."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jepa_world_model.core.errors import UserError
from jepa_world_model.diagnostics.records import load_snapshot, save_snapshot
from jepa_world_model.diagnostics.snapshot import STEPS, take_snapshot
from tests.diagnostics.oracle import oracle, walk

BATCH = walk()


def test_an_oracle_imagines_what_happens():
    shots = take_snapshot(oracle(), BATCH)
    assert shots["open_loop"].shape == (3, STEPS + 1, 1, 8, 8)
    np.testing.assert_array_equal(shots["open_loop"], shots["open_loop_true"])
    np.testing.assert_array_equal(shots["x_hat"], shots["frames"])
    np.testing.assert_allclose(shots["pose"], shots["path"], atol=1e-5)
    assert len(shots["place"]) == len(shots["z_plane"]) == len(shots["h_plane"])
    assert len(shots["increments"]) == len(shots["increment_action"]) == len(shots["increment_moved"])
    assert not shots["increment_moved"][shots["increment_noop"]].any()
    assert str(shots["action_kind"]) == "discrete"
    assert shots["action_names"].tolist() == ["stay", "right", "left", "up", "down"]


def test_a_measured_pose_and_the_counted_one_share_their_origin():
    shots = take_snapshot(oracle(pose_measurement=lambda z: z + 5), BATCH)
    np.testing.assert_allclose(shots["map_seen"], shots["map_place"] + 5, atol=1e-5)
    np.testing.assert_allclose(shots["map_counted"], shots["map_seen"], atol=1e-5)
    assert "map_seen" not in take_snapshot(oracle(), BATCH)


def test_what_is_not_built_or_not_told_is_absent():
    blind = take_snapshot(oracle(without=("decoder",)), BATCH)
    assert not {"frames", "x_hat", "open_loop"} & set(blind)
    assert not {"place", "path"} & set(take_snapshot(oracle(), dataclasses.replace(BATCH, state=None)))


def test_a_snapshot_comes_back_as_it_was(tmp_path):
    shots = take_snapshot(oracle(), BATCH)
    save_snapshot(tmp_path, shots)
    back = load_snapshot(tmp_path)
    assert set(back) == set(shots)
    for name, value in shots.items():
        np.testing.assert_array_equal(back[name], value)
    assert load_snapshot(tmp_path / "elsewhere") == {}


def test_a_torn_snapshot_is_one_sentence(tmp_path):
    (tmp_path / "snapshot.npz").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(UserError, match="cannot be read"):
        load_snapshot(tmp_path)
