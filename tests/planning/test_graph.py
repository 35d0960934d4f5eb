"""Graph search over data: places by radius, ways as they were observed."""

from __future__ import annotations

import numpy as np
import pytest

from jepa_world_model.envs.gridworld_walks import generate_gridworld
from jepa_world_model.envs.layouts import make_layout, move, shortest_path_lengths
from jepa_world_model.planning.graph import GraphConfig, build_graph, median_move, merge_states


def walks(**options):
    """States, source rows, target rows, actions and no-ops of gridworld walks, whose states are true cells."""
    data = generate_gridworld(episodes=60, length=40, **options)
    start, length = data["bounds"].T
    source = np.concatenate([s + np.arange(n - 1) for s, n in zip(start, length, strict=True)])
    action = data["actions"][source]
    return data["states"], source, source + 1, action, action == 0


def test_merge_takes_every_free_state_within_the_radius_and_the_first_stands_for_it():
    states = np.array([[0.0], [0.4], [0.9], [5.0], [0.1]])
    node_of, first = merge_states(states, 0.5)
    assert node_of.tolist() == [0, 0, 1, 2, 0]
    assert first.tolist() == [0, 2, 3]


def test_true_cells_make_one_node_a_cell_and_plans_as_short_as_the_worlds_own():
    states, source, target, action, resting = walks()
    walls = make_layout("pinwheel")
    graph = build_graph(states, source, target, action, GraphConfig(), resting=resting)
    assert len(graph.nodes) == (~walls).sum()
    best = shortest_path_lengths("pinwheel")
    rng = np.random.default_rng(0)
    for _ in range(25):
        start, goal = graph.nodes[rng.integers(len(graph.nodes), size=2)]
        route = graph.route(start, goal)
        xy = start.astype(np.int64)
        for act in route.actions:
            xy, blocked = move(walls, xy, np.array(act))
            assert not blocked
        assert route.reached
        assert (xy == goal).all()
        cell = lambda c: int(c[1] * len(walls) + c[0])
        assert len(route.actions) == best[cell(start), cell(goal)]
        assert len(route.states) == len(route.actions) + 1


def test_steps_to_a_goal_are_those_of_the_plans():
    graph = build_graph(*walks()[:4], GraphConfig())
    steps = graph.steps_to(3)
    assert steps[3] == 0
    for node in (0, 11, 40):
        assert len(graph.route(graph.nodes[node], graph.nodes[3]).actions) == steps[node]
    assert graph.reachable_share() == 1.0


def test_a_goal_off_the_data_is_refused_with_its_distance_and_a_missing_way_is_named():
    states = np.array([[0.0, 0], [1, 0], [2, 0], [8, 0], [9, 0]])
    graph = build_graph(states, np.array([0, 1, 3]), np.array([1, 2, 4]), np.array([1, 1, 1]), GraphConfig())
    off = graph.route(states[0], np.array([5.0, 0]))
    assert not off.reached
    assert "goal is not in the data: the nearest place is 3.00 median moves" in off.why
    assert "no observed way" in graph.route(states[0], states[4]).why
    assert "no observed way" in graph.route(states[2], states[0]).why  # ways are directed
    assert graph.route(states[0], states[2]).actions == (1, 1)
    assert graph.route(states[1], states[1]).actions == ()
    assert graph.route(states[1], states[1]).reached


def test_of_two_actions_between_two_places_the_commoner_is_taken():
    states = np.array([[0.0], [1.0]])
    source, target = np.array([0, 0, 0, 1]), np.array([1, 1, 1, 0])
    graph = build_graph(states, source, target, np.array([3, 4, 4, 2]), GraphConfig())
    assert graph.route(states[0], states[1]).actions == (4,)


def test_data_without_movement_or_beyond_the_limit_are_refused():
    states = np.zeros((4, 2))
    with pytest.raises(ValueError, match="no transition of the data moves"):
        build_graph(states, np.array([0, 1]), np.array([1, 2]), np.array([1, 1]), GraphConfig())
    with pytest.raises(ValueError, match="more than max_states 2"):
        build_graph(states, np.array([0]), np.array([1]), np.array([1]), GraphConfig(max_states=2))
    assert (
        median_move(np.zeros((3, 1)), np.array([[1.0], [2.0], [9.0]]), np.array([False, False, True])) == 1.5
    )
