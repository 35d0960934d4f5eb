"""Worlds move and draw as the environments do, and their pairs are fixed, reachable and where they should be."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

import jepa_world_model.envs  # noqa: F401  registers the environments
from jepa_world_model.core.errors import UserError
from jepa_world_model.data.batch import ActionSpace
from jepa_world_model.envs import GENERATORS
from jepa_world_model.envs.two_rooms import is_free
from jepa_world_model.planning.worlds import WORLDS, GridworldWorld, TwoRoomsWorld, make_world

SMALL = {"gridworld": {"cells": 8, "size": 32, "layout": "pinwheel"}, "two_rooms": {}}


def env_frame(env: gymnasium.Env, observation: np.ndarray) -> np.ndarray:
    return observation.transpose(2, 0, 1)


@pytest.mark.parametrize("name", WORLDS)
def test_a_world_moves_and_draws_as_its_environment_does(name):
    world = make_world(name, SMALL[name])
    starts, goals = world.pairs(3, seed=1)
    ids = {"gridworld": "jepa_wm/Gridworld-v0", "two_rooms": "jepa_wm/TwoRooms-v0"}
    env = gymnasium.make(ids[name], disable_env_checker=True, **SMALL[name]).unwrapped
    rng = np.random.default_rng(0)
    for row in range(len(starts)):
        place = starts[row : row + 1]
        seen, _ = env.reset(seed=0, options={"start": place[0, :2], "goal": goals[row, :2]})
        for _ in range(12):
            np.testing.assert_array_equal(world.draw(place)[0], env_frame(env, seen))
            raw = (
                rng.integers(5, size=1)
                if name == "gridworld"
                else rng.uniform(-1, 1, (1, 2)).astype(np.float32)
            )
            place = world.step(place, raw)
            seen, _, _, _, info = env.step(raw[0])
            np.testing.assert_allclose(place[0, :2], info["state"], rtol=1e-6)


@pytest.mark.parametrize("name", WORLDS)
def test_the_action_space_is_that_of_the_generated_data(name):
    made = GENERATORS[name](episodes=1, length=3)
    assert ActionSpace.from_json(made["action_space"]) == make_world(name).space


@pytest.mark.parametrize("name", WORLDS)
def test_pairs_are_fixed_by_their_seed_and_reachable(name):
    world = make_world(name)
    one, same, other = (world.pairs(20, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (one[0] != other[0]).any()
    steps = world.steps_to_go(*one)
    assert (steps > 0).all()
    assert np.isfinite(steps).all()
    np.testing.assert_allclose(world.steps_to_go(one[1], one[1]), 0)
    assert (world.distance(one[1], one[1]) == 0).all()


def test_two_rooms_pairs_lie_in_different_rooms_also_with_random_walls():
    for world in (TwoRoomsWorld(), TwoRoomsWorld(random_wall=True)):
        starts, goals = world.pairs(50, 0)
        assert ((starts[:, 0] < starts[:, 2]) != (goals[:, 0] < goals[:, 2])).all()
        assert is_free(starts[:, :2], starts[:, 2:]).all()
        np.testing.assert_array_equal(starts[:, 2:], goals[:, 2:])
    assert len(np.unique(starts[:, 2])) > 5


def test_gridworld_success_is_the_goals_own_cell():
    world = GridworldWorld(cells=8, size=32)
    starts, goals = world.pairs(50, 0)
    solved = world.distance(starts, goals) < world.rules[0].radius
    assert not solved.any()
    assert world.distance(goals, goals).max() < world.rules[0].radius


@pytest.mark.parametrize("name", WORLDS)
def test_places_are_shown_where_the_picture_has_them(name):
    world = make_world(name, SMALL[name])
    places, _ = world.pairs(10, 0)
    for place in places:
        empty, drawn = (
            world.show(place).astype(float),
            world.draw(place[None])[0].transpose(1, 2, 0).astype(float),
        )
        changed = np.abs(drawn - empty).sum(-1) if name == "gridworld" else drawn[..., 0]
        middle = (np.argwhere(changed > 0.5 * changed.max()) + 0.5).mean(0)[::-1]
        assert np.abs(middle - world.pixel(place[None])[0]).max() < 1.0


def test_a_world_that_cannot_be_planned_in_is_named():
    with pytest.raises(UserError, match=r"two_roms.*did you mean 'two_rooms'"):
        make_world("two_roms")
    assert make_world("two_rooms", {"random_wall": True, "episodes": 3}).random_wall
