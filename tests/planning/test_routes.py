"""Following routes in the world: with closed eyes, and looking."""

from __future__ import annotations

import numpy as np
import pytest

from jepa_world_model.core.errors import UserError
from jepa_world_model.data.batch import ActionSpace
from jepa_world_model.envs.gridworld_walks import generate_gridworld
from jepa_world_model.envs.layouts import MOVES
from jepa_world_model.envs.loops import make_pairs
from jepa_world_model.planning.closed_loop import run_episodes
from jepa_world_model.planning.graph import GraphConfig, build_graph
from jepa_world_model.planning.pose import read_frames
from jepa_world_model.planning.routes import GraphRouter, LatticeRouter, RoutePolicy
from jepa_world_model.planning.worlds import GridworldWorld
from tests.planning.posed import AXES, PosedGridworld

INCREMENTS = MOVES @ AXES


def lattice_episodes(layout: str, test: int, *, look: bool, steps: int = 60):
    world = GridworldWorld(layout=layout)
    pairs = make_pairs(test, layout=layout, count=20)
    routers = [LatticeRouter(INCREMENTS) for _ in pairs.start]
    policy = RoutePolicy(PosedGridworld(world), routers, look=look, step=1.2)
    return run_episodes(world, policy, pairs.start, pairs.goal, steps), policy


@pytest.mark.parametrize("test", [0, 1, 2])
def test_a_lattice_over_true_increments_solves_an_open_world_by_shortest_ways(test):
    episodes, policy = lattice_episodes("open", test, look=False)
    assert episodes.success["final"].all()
    assert [len(route.actions) for route in policy.first] == episodes.optimal.tolist()


def test_closed_eyes_run_into_walls_never_seen_and_open_ones_walk_round_them():
    blind, _ = lattice_episodes("pinwheel", 2, look=False)
    assert blind.success["final"].mean() < 0.9
    looking, policy = lattice_episodes("pinwheel", 2, look=True, steps=120)
    assert looking.success["final"].all()
    assert sum(len(router.met) for router in policy.routers) > 5
    assert (looking.steps_to_goal >= looking.optimal).all()


def test_walls_that_data_showed_are_avoided_from_the_start():
    world = GridworldWorld(layout="pinwheel")
    dynamics = PosedGridworld(world)
    free = np.argwhere(~world.walls)[:, ::-1]
    walls = [
        (read_frames(dynamics, world.draw(free[i : i + 1]), "p")[0], action)
        for action in range(1, 5)
        for i in np.flatnonzero((world.step(free, np.full(len(free), action)) == free).all(1))
    ]
    pairs = make_pairs(2, layout="pinwheel", count=10)
    policy = RoutePolicy(dynamics, [LatticeRouter(INCREMENTS, walls=walls) for _ in pairs.start], step=1.2)
    episodes = run_episodes(world, policy, pairs.start, pairs.goal, 40)
    assert episodes.success["final"].all()
    assert [len(route.actions) for route in policy.first] == episodes.optimal.tolist()


def test_graphs_of_loops_find_ways_inside_the_data_and_none_to_the_interior():
    world = GridworldWorld(layout="open")
    dynamics = PosedGridworld(world)
    data = generate_gridworld(episodes=60, length=40, pattern="random_corner_loops", layout="open")
    rows = np.arange(60 * 40 - 1)
    rows = rows[rows % 40 != 39]
    latent = read_frames(dynamics, np.asarray(data["frames"]), "p")
    graph = build_graph(latent, rows, rows + 1, data["actions"][rows], GraphConfig())
    won = {}
    for test in (0, 1, 2):
        pairs = make_pairs(test, count=20)
        policy = RoutePolicy(dynamics, [GraphRouter(graph, "p") for _ in pairs.start])
        episodes = run_episodes(world, policy, pairs.start, pairs.goal, 60)
        won[test] = episodes.success["final"].mean()
        assert all("not in the data" in route.why for route in policy.first) == (test > 0)
    assert won == {0: 1.0, 1: 0.0, 2: 0.0}


def test_actions_without_a_rest_are_refused():
    dynamics = PosedGridworld(GridworldWorld())
    dynamics.space = ActionSpace(kind="continuous", dim=2, low=(-1, -1), high=(1, 1))
    with pytest.raises(UserError, match="routes are made of discrete actions"):
        RoutePolicy(dynamics, [LatticeRouter(INCREMENTS)])
