"""Poses of lone frames, what actions add to them, and where looking and counting part."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jepa_world_model.core.errors import UserError
from jepa_world_model.envs.gridworld_walks import generate_gridworld
from jepa_world_model.planning.pose import (
    action_steps,
    imagined_increments,
    loop_closure,
    need_measured_pose,
    pose_map,
    read_frames,
)
from jepa_world_model.planning.worlds import GridworldWorld
from tests.planning.posed import AXES, PosedGridworld


def windows(count: int = 20, length: int = 16, **options):
    data = generate_gridworld(episodes=count, length=length, **options)
    frames = torch.from_numpy(np.asarray(data["frames"])).unflatten(0, (count, length))
    actions = torch.eye(5)[torch.from_numpy(data["actions"]).view(count, length)[:, :-1]]
    return frames, actions, data["states"].reshape(count, length, 2)


def test_without_a_measurement_the_refusal_names_the_loss_that_gives_one():
    dynamics = PosedGridworld(GridworldWorld())
    need_measured_pose(dynamics)
    dynamics.goal_latents = ("h",)
    for ask in (need_measured_pose, lambda d: read_frames(d, np.zeros((1, 3, 64, 64), np.uint8), "p")):
        with pytest.raises(UserError, match=r"pose-measure-p above 0 \(see configs/pose_planning.toml\)"):
            ask(dynamics)
    with pytest.raises(UserError, match="no 'q'; it has h"):
        read_frames(dynamics, np.zeros((1, 3, 64, 64), np.uint8), "q")


def test_blocked_moves_do_not_count_into_what_an_action_adds():
    delta = np.array([[1.0, 0.0]] * 6 + [[0.02, 0.0]] * 4 + [[0.0, 0.01]] * 3 + [[-0.9, 0.1]] * 2)
    action = np.array([1] * 10 + [0] * 3 + [2] * 2)
    steps = action_steps(delta, action, 4)
    assert np.allclose(steps.mean, [[0, 0.01], [1, 0], [-0.9, 0.1], [0, 0]])
    assert steps.count.tolist() == [3, 6, 2, 0]
    assert steps.step == pytest.approx((1 + np.hypot(0.9, 0.1)) / 2)
    assert steps.spread[1] == 0
    with pytest.raises(ValueError, match="no action moves the pose"):
        action_steps(np.zeros((4, 2)), np.zeros(4, int), 2)


def test_increments_of_a_true_odometry_are_its_moves():
    frames, actions, _ = windows()
    dynamics = PosedGridworld(GridworldWorld())
    here, act = frames[:, :-1].flatten(0, 1).numpy(), actions.flatten(0, 1)
    delta = imagined_increments(dynamics, here, act)
    found = action_steps(delta, act.argmax(-1).numpy(), 5)
    assert np.allclose(found.mean, [[0] * 4, -AXES[1], AXES[1], -AXES[0], AXES[0]], atol=1e-5)


def test_drift_grows_with_every_move_and_loops_close_as_far_as_it_allows():
    frames, actions, xy = windows(pattern="random_corner_loops")
    true = pose_map(PosedGridworld(GridworldWorld()), frames, actions)
    assert true.drift.max() < 1e-4
    assert loop_closure(true).error.max() < 1e-4
    drifting = pose_map(PosedGridworld(GridworldWorld(), drift=0.2), frames, actions)
    assert (drifting.drift[:, 0] == 0).all()
    travelled = np.abs(xy - xy[:, :1]) @ [1.0, 1.4]  # a scaled odometry errs with the distance from its start
    far = travelled[:, -1] > 3
    assert drifting.drift[far, -1].min() > 0.2 * 3 / 1.4 / 2
    closure = loop_closure(drifting, lambda i, j: (xy[:, i] == xy[:, j]).all(-1))
    assert len(closure.error) == len(closure.gap) > 20
    assert closure.error.max() < 1e-4  # scaled loops still close
    assert closure.apart > 1


def test_the_map_lies_in_the_plane_of_the_moves_in_units_of_a_move():
    frames, actions, xy = windows()
    found = pose_map(PosedGridworld(GridworldWorld()), frames, actions)
    flat = found.flat(found.measured).reshape(-1, 2)
    true = (xy.reshape(-1, 2) - xy.reshape(-1, 2).mean(0)) * [1.0, 1.4] / found.step
    i, j = np.random.default_rng(0).integers(len(flat), size=(2, 100))
    near = lambda a: np.linalg.norm(a[i] - a[j], axis=1)
    assert np.allclose(near(flat), near(true), atol=1e-3)
    assert 1.0 <= found.step <= 1.4
