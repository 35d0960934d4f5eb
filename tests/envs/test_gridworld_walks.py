from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from jepa_world_model.data import ActionSpace
from jepa_world_model.envs import generate_gridworld
from jepa_world_model.envs.gridworld_walks import PATTERNS
from jepa_world_model.envs.layouts import NOOP, make_layout, move
from jepa_world_model.envs.loops import interior


def walk(**options):
    return generate_gridworld(**{"episodes": 30, "length": 40, **options})


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_step_obeys_the_true_dynamics(pattern):
    data = walk(pattern=pattern)
    xy = data["states"].astype(np.int64).reshape(30, 40, 2)
    actions, blocked = data["actions"].reshape(30, 40), data["blocked"].reshape(30, 40)
    to, stopped = move(make_layout(), xy[:, :-1], actions[:, :-1])
    assert (to == xy[:, 1:]).all()
    assert (stopped == blocked[:, :-1]).all()
    assert not make_layout()[xy[..., 1], xy[..., 0]].any()
    assert data["bounds"].tolist() == [[40 * e, 40] for e in range(30)]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_replaying_the_actions_in_the_environment_gives_the_same_pictures(pattern):
    data = walk(pattern=pattern, episodes=2)
    frames = np.asarray(data["frames"])
    env = gymnasium.make("jepa_wm/Gridworld-v0")
    start = tuple(data["states"][40].astype(int))
    frame, _ = env.reset(options={"start": start})
    for t in range(39):
        assert (frame.transpose(2, 0, 1) == frames[40 + t]).all()
        frame, *_ = env.step(data["actions"][40 + t])
    assert (frame.transpose(2, 0, 1) == frames[79]).all()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_walks_follow_their_seed_and_hold_all_actions(pattern):
    one, same, other = (walk(pattern=pattern, seed=s, episodes=100) for s in (1, 1, 2))
    assert (one["states"] == same["states"]).all()
    assert (one["actions"] == same["actions"]).all()
    assert (one["actions"] != other["actions"]).any()
    assert ActionSpace.from_json(one["action_space"]).dim == 5
    share = np.bincount(one["actions"].reshape(100, 40)[:, :-1].reshape(-1), minlength=5) / (100 * 39)
    assert 0.07 < share[NOOP] < 0.13  # 0.1 wanted
    assert (share[1:] > 0.15).all()


def test_random_walks_cover_every_free_cell():
    seen = np.unique(walk(episodes=200)["states"], axis=0)
    assert len(seen) == (~make_layout()).sum()


def test_loops_stay_on_the_ring_and_corner_loops_never_enter_the_interior():
    ring = walk(pattern="loop", episodes=100)["states"]
    assert ((ring == 0) | (ring == 9)).any(1).all()
    assert len(np.unique(ring, axis=0)) == 36
    xy = walk(pattern="random_corner_loops", episodes=300)["states"]
    on_ring = ((xy == 0) | (xy == 9)).any(1)
    in_corner = ((xy < 3) | (xy > 6)).all(1)
    assert (on_ring | in_corner).all()
    assert len(np.unique(xy, axis=0)) == 36 + 4 * 4  # the ring, and four inner cells of each corner square


def test_frames_are_drawn_on_access_and_equal_the_whole_array():
    frames = walk(episodes=3)["frames"]
    whole = np.asarray(frames)
    assert whole.shape == frames.shape == (120, 3, 64, 64)
    assert whole.dtype == frames.dtype == np.uint8
    assert (frames[np.array([5, 5, 119])] == whole[[5, 5, 119]]).all()
    assert (frames[7] == whole[7]).all()
    assert (frames[10:20] == whole[10:20]).all()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"pattern": "spiral"}, "use one of random, loop"),
        ({"length": 1}, "2 frames"),
        ({"noop_share": 1.0}, "must lie in"),
        ({"layout": ("....", "....", "....", "..#."), "pattern": "loop"}, r"wall at \(2, 3\)"),
    ],
)
def test_impossible_walks_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        walk(**options)


@pytest.mark.parametrize("layout", ["open", "pinwheel"])
def test_corner_loops_with_bumps_meet_walls_and_still_obey_the_dynamics_and_the_held_out_interior(layout):
    data = walk(pattern="random_corner_loops", layout=layout, bump_share=0.3, episodes=100)
    xy = data["states"].astype(np.int64).reshape(100, 40, 2)
    walls = make_layout(layout)
    to, stopped = move(walls, xy[:, :-1], data["actions"].reshape(100, 40)[:, :-1])
    assert (to == xy[:, 1:]).all()
    assert (stopped == data["blocked"].reshape(100, 40)[:, :-1]).all()
    assert 0.2 < stopped.mean() < 0.3  # 0.3 of the steps that do not rest, but not every cell has a wall
    assert not interior(walls)[xy[..., 1], xy[..., 0]].any()


def test_bumps_belong_to_corner_loops_only():
    with pytest.raises(ValueError, match="of pattern random_corner_loops only"):
        walk(pattern="random", bump_share=0.2)
