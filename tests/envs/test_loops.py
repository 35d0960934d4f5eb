"""Loops to interior: the held-out cells, and pairs that the world's own search vouches for."""

from __future__ import annotations

import numpy as np
import pytest

from jepa_world_model.envs.gridworld_walks import generate_gridworld
from jepa_world_model.envs.layouts import make_layout, shortest_path
from jepa_world_model.envs.loops import TESTS, interior, make_pairs


@pytest.mark.parametrize("layout", ["open", "pinwheel", "random"])
def test_the_interior_is_what_corner_loops_never_enter(layout):
    walls = make_layout(layout)
    data = generate_gridworld(episodes=300, length=40, pattern="random_corner_loops", layout=layout)
    seen = np.zeros_like(walls)
    x, y = data["states"].astype(int).T
    seen[y, x] = True
    assert (seen | interior(walls) | walls).all()
    assert not (seen & interior(walls)).any()


@pytest.mark.parametrize("layout", ["open", "pinwheel"])
@pytest.mark.parametrize("test", TESTS)
def test_pairs_lie_where_their_test_says_and_take_as_long_as_a_shortest_path(test, layout):
    walls = make_layout(layout)
    pairs = make_pairs(test, layout=layout, count=50)
    unseen = interior(walls)
    is_unseen = lambda xy: unseen[xy[:, 1], xy[:, 0]]
    assert is_unseen(pairs.start).all() if test == 2 else not is_unseen(pairs.start).any()
    assert is_unseen(pairs.goal).all() if test else not is_unseen(pairs.goal).any()
    assert (pairs.optimal >= 3).all()
    assert test or (pairs.optimal <= 10).all()
    assert len(np.unique(np.concatenate([pairs.start, pairs.goal], 1), axis=0)) == 50
    for start, goal, steps in zip(pairs.start[:5], pairs.goal[:5], pairs.optimal[:5], strict=True):
        assert len(shortest_path(walls, start, goal)) == steps


def test_pairs_follow_their_seed_and_their_digest_tells_them_apart():
    one, same, other = (make_pairs(1, seed=seed) for seed in (0, 0, 1))
    assert (one.start == same.start).all()
    assert one.digest == same.digest != other.digest
    assert len({make_pairs(test).digest for test in TESTS}) == 3


def test_a_test_or_a_number_that_cannot_be_had_is_refused():
    with pytest.raises(ValueError, match="test is 7; there are 0"):
        make_pairs(7)
    with pytest.raises(ValueError, match="ask for fewer, or use a larger world"):
        make_pairs(2, cells=8, layout="pinwheel", count=5000)
