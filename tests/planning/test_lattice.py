"""The pose delta lattice: shortest sums of increments, whatever the pose's axes and however it drifts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from jepa_world_model.planning.lattice import Lattice, LatticeConfig

MOVES = np.array([[0.0, 0], [0, -1], [0, 1], [-1, 0], [1, 0]])  # no-op, up, down, left, right


def skewed(seed: int = 0, noise: float = 0.0) -> np.ndarray:
    """The five increments under a random linear map into 8 dimensions, jittered by `noise`."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(8, 2)))[0].T * [[1.0], [1.3]]
    return MOVES @ axes + noise * rng.normal(size=(5, 8)) / 8**0.5


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_plans_take_the_fewest_moves_to_poses_never_seen(noise):
    clean, increments = skewed(), skewed(noise=noise)
    lattice = Lattice(increments)
    rng = np.random.default_rng(1)
    for _ in range(20):
        cells = rng.integers(-5, 6, size=2)
        start = rng.normal(size=8)
        goal = start + np.array([cells[0], cells[1]]) @ clean[[4, 2]]
        route = lattice.route(start, goal)
        assert route.reached
        assert (sum((MOVES[a] for a in route.actions), np.zeros(2)) == cells).all()
        assert len(route.actions) == np.abs(cells).sum()
        assert np.allclose(route.states[0], start)
        assert np.linalg.norm(route.states[-1] - goal) < 0.75 * lattice.step


def test_a_goal_between_places_is_answered_with_the_nearest_one():
    lattice = Lattice(MOVES)
    for goal in ((3.45, 2.4), (3.45, 2.6), (-2.55, 0.4)):
        route = lattice.route(np.zeros(2), np.array(goal))
        assert (route.states[-1] == np.round(goal)).all()


def test_the_heuristic_never_promises_more_than_the_way_takes_and_is_consistent():
    for increments in (
        MOVES,
        skewed(3, 0.05),
        MOVES[[0, 1, 4]],
        np.array([[1.0, 0], [0.9, 0.1], [1.0, 0.2]]),
    ):
        lattice = Lattice(increments)
        rng = np.random.default_rng(2)
        for _ in range(50):
            way = rng.normal(size=lattice.moves.shape[1]) * 4
            for move in lattice.moves:
                assert lattice.at_least(way, 0.3) <= 1 + lattice.at_least(way - move, 0.3) + 1e-9
        for counts in itertools.product(range(4), repeat=2):
            way = np.array(counts) @ lattice.moves[:2]
            assert lattice.at_least(way) <= sum(counts) + 1e-9
    assert Lattice(MOVES).at_least(np.array([3.0, 4.0])) == pytest.approx(7)  # city blocks, not 5


def test_the_search_looks_at_little_more_than_the_way():
    route = Lattice(MOVES).route(np.zeros(2), np.array([9.0, 0.0]))
    assert len(route.actions) == 9
    assert route.expanded < 60  # a search without a bound looks at 200


def test_visits_on_both_sides_of_a_hash_box_are_one_place():
    # Increments that do not quite undo each other: every detour lands a little elsewhere.
    lattice = Lattice(np.array([[1.0, 0.02], [-0.98, 0.01], [0.01, 1.0], [0.0, -1.02]]))
    poses, steps = lattice.sweep(np.array([0.25, 0.25]), 4)
    assert len(poses) == 41  # 1 + 4 + 8 + 12 + 16 cells within four steps
    assert np.bincount(steps).tolist() == [1, 4, 8, 12, 16]


def test_known_walls_are_walked_round():
    blocked = [(np.array([1.0, y]), 4) for y in (-1.0, 0.0, 1.0)]  # right from x = 1
    route = Lattice(MOVES, blocked=blocked).route(np.zeros(2), np.array([3.0, 0.0]))
    assert route.reached
    assert len(route.actions) == 3 + 4
    poses = [tuple(p) for p in route.states.round().astype(int).tolist()]
    for pose, action in zip(poses, route.actions, strict=False):
        assert not (action == 4 and pose in {(1, -1), (1, 0), (1, 1)})


def test_an_action_that_adds_nothing_is_left_out_and_a_clock_cannot_turn_back():
    assert 0 not in Lattice(skewed(noise=0.02)).actions
    clock = Lattice(np.array([[1.0, 0.0], [1.0, 0.02], [1.0, -0.02]]), LatticeConfig(max_expanded=200))
    assert clock.route(np.zeros(2), np.array([4.0, 0.0])).reached
    back = clock.route(np.zeros(2), np.array([-4.0, 0.0]))
    assert not back.reached
    assert "gave up after 200 places" in back.why


def test_the_start_may_be_the_goal_and_increments_must_move():
    assert Lattice(MOVES).route(np.ones(2), np.ones(2)).actions == ()
    with pytest.raises(ValueError, match="no action moves the pose"):
        Lattice(np.zeros((5, 2)))
    with pytest.raises(ValueError, match="reach must be above 0"):
        LatticeConfig(reach=0)
