"""Steps to go over a graph of the data: they follow the walls, stitch episodes, and are zero at the goal."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jepa_world_model.core.errors import UserError
from jepa_world_model.data.store import from_arrays
from jepa_world_model.envs import generate_two_rooms
from jepa_world_model.planning.costs import stride_of
from jepa_world_model.planning.oracles import TwoRoomsOracle
from jepa_world_model.planning.reach import GraphDistance, ReachConfig, build_reach, latents_of
from jepa_world_model.planning.worlds import TwoRoomsWorld


@pytest.fixture(scope="module")
def rooms():
    """A graph over true positions of 250 walks."""
    made = generate_two_rooms(episodes=250, length=60, seed=3)
    return build_reach(made["states"], made["bounds"])


def measure_of(graph, goals: np.ndarray, **options):
    goal = {"xy": torch.from_numpy(goals[:, :2]).float(), "wall": torch.from_numpy(goals[:, 2:]).float()}
    measure = GraphDistance(graph=graph, latent="xy", **options).towards(TwoRoomsOracle(), goal)
    return lambda rows, episodes: measure({"xy": torch.from_numpy(rows[:, :2]).float()}, episodes).numpy()


def test_distances_follow_the_way_through_the_door(rooms):
    world = TwoRoomsWorld()
    starts, goals = world.pairs(100, 0)
    found = measure_of(rooms, goals)(starts, slice(0, 100))
    true = world.steps_to_go(starts, goals)
    straight = world.distance(starts, goals)
    ratio = found / true
    assert np.corrcoef(found, true)[0, 1] > 0.98
    assert ratio.std() / ratio.mean() < 0.05  # one unit for every pair
    assert (straight / true).std() / (straight / true).mean() > 0.1  # which the straight line has not
    assert rooms.reachable_share() > 0.95


def test_the_cost_falls_all_the_way_to_the_goal(rooms):
    """Along the last moves, where a grid alone would stop at the nearest node."""
    goals = np.array([[45.3, 40.7, 32.0, 18.0]])
    line = np.linspace([45.3, 40.7, 32, 18], [50.3, 44.7, 32, 18], 40)
    found = measure_of(rooms, goals)(line, slice(0, 1))
    assert found[0] < 0.02
    assert (np.diff(found) > -0.35).all()  # between nodes it may ripple by a fraction of a move
    assert np.polyfit(np.arange(40), found, 1)[0] > 0.1


def test_no_step_takes_off_more_than_the_stride_and_a_leap_through_the_wall_does(rooms):
    goals = np.array([[50.0, 50.0, 32.0, 18.0]])
    measure = GraphDistance(graph=rooms, latent="xy").towards(
        TwoRoomsOracle(), {"xy": torch.from_numpy(goals[:, :2]).float(), "wall": torch.tensor([[32.0, 18.0]])}
    )
    ask = lambda rows: measure({"xy": torch.from_numpy(np.asarray(rows)).float()}, slice(0, 1)).numpy()
    made = generate_two_rooms(episodes=40, length=60, seed=8)
    walks = made["states"][:, :2].reshape(40, 60, 2)
    falls = np.stack([-np.diff(ask(walk)) for walk in walks])
    excess = (falls - stride_of(measure)).clip(min=0).sum(1)  # of 59 moves
    assert np.quantile(excess, 0.5) == 0
    assert np.quantile(excess, 0.9) < 2  # the rest crosses places that these 250 walks hardly saw
    left, right = ask([[30.0, 50.0], [34.0, 50.0]])
    assert left - right > 5 * stride_of(measure)


def test_measures_of_many_candidates_equal_those_of_one_after_the_other(rooms):
    starts, goals = TwoRoomsWorld().pairs(4, 1)
    measure, rows = measure_of(rooms, goals), np.repeat(starts, 3, 0)
    rows[:, 0] += np.tile([0.0, 0.5, 1.0], 4)
    whole = measure(rows, slice(0, 4))
    np.testing.assert_allclose(measure(rows[3:9], slice(1, 3)), whole[3:9], rtol=1e-5)


def test_places_off_the_data_cost_more(rooms):
    goals = np.array([[10.0, 10.0, 32.0, 18.0]])
    inside = np.array([[20.0, 59.0, 32.0, 18.0]])
    outside = inside + np.array([0, 12, 0, 0])
    with_off, without = (measure_of(rooms, goals, off=off) for off in (1.0, 0.0))
    assert with_off(outside, slice(0, 1)) > with_off(inside, slice(0, 1)) + 5
    assert abs(without(outside, slice(0, 1)) - without(inside, slice(0, 1))) < 5


def line_of(*episodes: list[float]) -> tuple[np.ndarray, np.ndarray]:
    flat = np.array([value for episode in episodes for value in episode], np.float32)[:, None]
    lengths = np.array([len(episode) for episode in episodes])
    return np.concatenate([flat, np.zeros_like(flat)], 1), np.stack(
        [np.cumsum(lengths) - lengths, lengths], 1
    )


def test_episodes_are_stitched_where_they_meet_and_ways_have_a_direction():
    points, bounds = line_of([0, 1, 2, 3], [3, 4, 5, 6])
    graph = build_reach(points, bounds, ReachConfig(merge=0.1, hops=1, neighbours=1))
    goals = graph.project(torch.tensor([[6.0, 0.0], [0.0, 0.0]]))
    there, back = graph.to_go(goals)
    node = graph.nearest(graph.project(torch.tensor([[0.0, 0.0], [6.0, 0.0]])))
    assert there[node[0]] == pytest.approx(6.0, abs=1e-4)
    assert back[node[1]] > 6.0  # nobody went back: worse than any way, but nearer is still better
    assert back[node[1]] > back[graph.nearest(graph.project(torch.tensor([[3.0, 0.0]])))[0]]


def test_episodes_that_do_not_meet_are_joined_only_if_asked():
    points, bounds = line_of([0, 1, 2], [2.9, 3.9, 4.9])
    far = torch.tensor([[4.9, 0.0]])
    share = [
        build_reach(points, bounds, ReachConfig(merge=0.1, hops=1, join=j)).reachable_share()
        for j in (0, 1.0)
    ]
    assert share[0] < 0.5
    assert share[1] == 1.0
    graph = build_reach(points, bounds, ReachConfig(merge=0.1, hops=1, join=1.0, neighbours=1))
    assert graph.to_go(graph.project(far)).max() == pytest.approx(4.9, abs=1e-3)


def test_ways_lead_back_too_only_if_asked():
    points, bounds = line_of([0, 1, 2, 3])
    for both, expected in ((False, 1.0 / 4), (True, 1.0)):
        graph = build_reach(points, bounds, ReachConfig(merge=0.1, hops=1, both_ways=both, neighbours=1))
        assert graph.reachable_share() == expected
    assert graph.to_go(graph.project(torch.tensor([[0.0, 0.0]]))).max() == pytest.approx(3.0, abs=1e-4)


def test_a_shortcut_is_never_invented_across_a_thin_wall():
    """Two corridors a little more than a move apart, joined at one end only."""
    out = [[x, 0.0] for x in range(11)] + [[10, 1.5]] + [[x, 1.5] for x in range(10, -1, -1)]
    points = np.array(out, np.float32)
    graph = build_reach(points, np.array([[0, len(points)]]), ReachConfig(merge=0.5, hops=1, neighbours=1))
    goal = graph.project(torch.tensor([[0.0, 1.5]]))
    start = graph.nearest(graph.project(torch.tensor([[0.0, 0.0]])))
    assert graph.to_go(goal)[0, start] == pytest.approx(21.5, abs=0.6)


def test_latents_that_never_move_are_refused():
    with pytest.raises(UserError, match="no latent of the data differs"):
        build_reach(np.zeros((5, 2), np.float32), np.array([[0, 5]]))


def test_the_radius_grows_until_the_nodes_fit():
    points = np.cumsum(np.ones((50, 2), np.float32), 0)
    graph = build_reach(points, np.array([[0, 50]]), ReachConfig(merge=0.5, max_nodes=10, neighbours=1))
    assert 2 < len(graph.nodes) <= 10
    assert graph.radius > 2
    goal, start = graph.project(torch.from_numpy(points[-1:])), graph.project(torch.from_numpy(points[:1]))
    assert graph.to_go(goal)[0, graph.nearest(start)] == pytest.approx(49, rel=0.15)


def test_latents_of_a_data_set_are_those_of_its_frames():
    made = generate_two_rooms(episodes=6, length=10, seed=0)
    told = latents_of(TwoRoomsOracle(), from_arrays(made), "xy", frames=40, rows_at_once=7)
    assert told.bounds.tolist() == [[0, 10], [10, 10], [20, 10], [30, 10]]
    assert told.rows.tolist() == [row for e in (0, 2, 3, 5) for row in range(10 * e, 10 * e + 10)]
    assert np.abs(told.latents - made["states"][told.rows]).max() < 0.03
