from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from jepa_world_model.data import ActionSpace
from jepa_world_model.envs import TwoRooms, generate_two_rooms
from jepa_world_model.envs.two_rooms import (
    DOT_STD,
    HIGH,
    LOW,
    MAX_STEP,
    draw_dots,
    draw_layouts,
    geodesic,
    is_free,
    move_dot,
    sample_pairs,
)

FIXED = (32.0, 18.0)


def test_a_free_step_has_the_length_of_its_action_and_long_ones_are_shortened():
    to, blocked = move_dot([10.0, 40.0], np.array([[1.0, 0.0], [0.0, 0.5], [3.0, 4.0]]))
    np.testing.assert_allclose(to, [[11.8, 40.0], [10.0, 40.9], [10 + 0.6 * 1.8, 40 + 0.8 * 1.8]])
    assert blocked.tolist() == [False, False, False]


def test_the_wall_stops_the_dot_and_the_door_lets_it_through():
    right, up = np.array([1.0, 0.0]), np.array([0.0, -1.0])
    assert move_dot([30.0, 40.0], right)[0].tolist() == [30.5, 40.0]
    assert move_dot([33.6, 40.0], -right)[0].tolist() == [33.5, 40.0]
    assert move_dot([30.0, 18.0], right)[0].tolist() == [31.8, 18.0]
    assert move_dot([32.0, 14.5], up)[0].tolist() == [32.0, 14.0]
    assert move_dot([4.5, 40.0], -right)[0].tolist() == [LOW, 40.0]
    assert move_dot([30.5, 40.0], np.array([0.6, 0.8]))[0].tolist() == [30.5, 40.0 + 0.8 * 1.8]  # it slides


def test_no_step_ever_ends_inside_a_wall_or_passes_through_one():
    rng = np.random.default_rng(0)
    walls = draw_layouts(rng, 2000)
    xy = rng.uniform(LOW, HIGH, (2000, 2))
    xy[~is_free(xy, walls)] = [LOW, LOW]
    for _ in range(200):
        to, blocked = move_dot(xy, rng.uniform(-1, 1, (2000, 2)), walls)
        assert is_free(to, walls).all()
        crossed = (xy[:, 0] - walls[:, 0]) * (to[:, 0] - walls[:, 0]) < 0
        assert (np.abs(to[crossed, 1] - walls[crossed, 1]) <= 4 + MAX_STEP).all()
        assert (np.linalg.norm(to - xy, axis=1) <= MAX_STEP + 1e-9).all()
        moved_freely = ~blocked
        assert (np.linalg.norm(to - xy, axis=1)[moved_freely] > 0).all()
        xy = to


def test_the_dot_is_a_gaussian_at_its_place():
    states = np.array([[20.3, 41.7, *FIXED], [4.0, 60.0, *FIXED], [60.0, 4.5, *FIXED]])
    pictures = draw_dots(states)
    grid = np.arange(65)
    for (x, y, *_), picture in zip(states, pictures, strict=True):
        whole = 255 * np.exp(-((grid - x) ** 2 + (grid[:, None] - y) ** 2) / (2 * DOT_STD**2))
        np.testing.assert_allclose(picture[0], whole, atol=0.51)  # rounding to whole grey levels


def test_the_wall_is_3_px_thick_and_its_door_9_px_high():
    wall = draw_dots(np.array([[20.0, 40.0, *FIXED]]))[0, 1]
    assert (np.flatnonzero(wall[40, 4:61]) + 4).tolist() == [31, 32, 33]
    assert (np.flatnonzero(wall[4:61, 32] == 0) + 4).tolist() == list(range(14, 23))


def test_geodesic_is_straight_inside_a_room_and_bends_at_the_door():
    assert geodesic([10, 10], [13, 14]) == pytest.approx(5)
    through = geodesic([30.5, 50.0], [33.5, 50.0])
    assert through == pytest.approx(2 * 28 + 3)  # up to the lower door edge at y = 22, through, down again
    assert geodesic([10, 18], [50, 18]) == pytest.approx(40)
    start, goal = sample_pairs(200, 0)
    lengths = geodesic(start, goal)
    assert (lengths >= np.linalg.norm(start - goal, axis=1) - 1e-9).all()
    np.testing.assert_allclose(lengths, geodesic(goal, start))


def test_geodesic_equals_a_search_on_a_fine_lattice():
    rng = np.random.default_rng(1)
    faces = [(x, y) for x in (30.5, 33.5) for y in np.linspace(14, 22, 161)]
    for start, goal in zip(*sample_pairs(5, int(rng.integers(99))), strict=True):
        left, right = (start, goal) if start[0] < goal[0] else (goal, start)
        best = min(
            np.hypot(*(left - a)) + np.hypot(a[0] - b[0], a[1] - b[1]) + np.hypot(*(right - b))
            for a in faces[:161:4]
            for b in faces[161::4]
        )
        assert geodesic(start, goal) == pytest.approx(best, abs=0.05)


def test_pairs_lie_in_different_rooms():
    start, goal = sample_pairs(100, 3)
    assert is_free(start).all()
    assert is_free(goal).all()
    assert ((start[:, 0] < 32) != (goal[:, 0] < 32)).all()
    assert (sample_pairs(100, 3)[0] == start).all()


@pytest.mark.parametrize("random_wall", [False, True])
def test_walks_obey_the_dynamics_and_follow_their_seed(random_wall):
    data = generate_two_rooms(episodes=50, length=30, random_wall=random_wall, seed=5)
    xy = data["states"].astype(np.float64).reshape(50, 30, 2)
    actions = data["actions"].astype(np.float64).reshape(50, 30, 2)
    to, _ = move_dot(xy[:, :-1], actions[:, :-1], data["walls"][:, None])
    np.testing.assert_allclose(to, xy[:, 1:], atol=1e-4)  # states are stored in float32
    space = ActionSpace.from_json(data["action_space"])
    assert np.linalg.norm(space.encode(data["actions"]), axis=1).max() <= 1 + 1e-6
    again = generate_two_rooms(episodes=50, length=30, random_wall=random_wall, seed=5)
    assert (again["actions"] == data["actions"]).all()
    assert (len(np.unique(data["walls"], axis=0)) > 1) == random_wall


def test_walks_fill_both_rooms_and_some_pass_the_door():
    xy = generate_two_rooms(episodes=500)["states"].reshape(500, 91, 2)
    right = xy[..., 0] > 32
    assert 0.05 < (right.any(1) & ~right.all(1)).mean() < 0.3
    assert 0.4 < right.mean() < 0.6


@pytest.mark.parametrize("random_wall", [False, True])
def test_the_environment_replays_a_walk_with_the_same_pictures(random_wall):
    data = generate_two_rooms(episodes=2, length=60, random_wall=random_wall)
    env = gymnasium.make("jepa_wm/TwoRooms-v0", random_wall=random_wall)
    start = data["states"][60].astype(np.float64)
    frame, info = env.reset(options={"start": start, "wall": data["walls"][1]})
    for t in range(59):
        error = np.abs(frame.transpose(2, 0, 1).astype(int) - data["frames"][60 + t]).max()
        assert error <= 1  # the start is stored in float32
        frame, *_, info = env.step(data["actions"][60 + t])
    np.testing.assert_allclose(info["state"], data["states"][119], atol=1e-3)


def test_a_goal_ends_the_episode_within_its_radius():
    env = TwoRooms()
    env.reset(options={"start": (10, 40), "goal": (16, 40)})
    assert env.step(np.array([1.0, 0.0]))[1:3] == (1.0, True)
    assert env.reset(options={"start": (10, 40), "goal": (17, 40)})[1]["blocked"] is False
    assert env.step(np.array([1.0, 0.0]))[1:3] == (0.0, False)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"start": (32, 40)}, "not a free place"),
        ({"goal": (0, 0)}, "not a free place"),
        ({"a": 1}, "unknown"),
    ],
)
def test_reset_options_that_cannot_be_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        TwoRooms().reset(options=options)


@pytest.mark.parametrize("options", [{"pattern": "loop"}, {"length": 1}])
def test_impossible_walks_are_refused(options):
    with pytest.raises(ValueError, match="use"):
        generate_two_rooms(**options)
