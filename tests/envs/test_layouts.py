from __future__ import annotations

from collections import deque

import numpy as np
import pytest

from jepa_world_model.envs.layouts import (
    CORNER,
    LAYOUTS,
    connected,
    free_cells,
    make_layout,
    move,
    shortest_path,
    shortest_path_lengths,
)

POCKET = ("..#.", "..#.", "..##", "....")


def slow_lengths(walls, start):
    """Breadth-first search with a queue, one cell at a time."""
    found, queue = {start: 0}, deque([start])
    while queue:
        x, y = queue.popleft()
        for dx, dy in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            to = (x + dx, y + dy)
            inside = 0 <= to[0] < len(walls) and 0 <= to[1] < len(walls)
            if inside and not walls[to[1], to[0]] and to not in found:
                found[to] = found[(x, y)] + 1
                queue.append(to)
    return found


@pytest.mark.parametrize("layout", [*LAYOUTS, POCKET], ids=str)
def test_shortest_path_lengths_equal_the_slow_twin(layout):
    walls = make_layout(layout, cells=8)
    lengths = shortest_path_lengths(layout, cells=8)
    n = len(walls)
    for start in map(tuple, free_cells(walls)):
        slow = slow_lengths(walls, start)
        expected = [slow.get((i % n, i // n), -1) for i in range(n * n)]
        assert lengths[start[1] * n + start[0]].tolist() == expected


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("cells", [8, 9, 10, 13])
def test_named_layouts_are_connected_and_leave_ring_and_corners_free(layout, cells):
    walls = make_layout(layout, cells=cells)
    assert connected(walls)
    assert not walls[[0, -1]].any()
    assert not walls[:, [0, -1]].any()
    assert not walls[:CORNER, :CORNER].any()
    assert not walls[-CORNER:, -CORNER:].any()
    assert walls.any() == (layout != "open")


def test_random_layouts_follow_their_seed():
    assert (make_layout("random", seed=1) == make_layout("random", seed=1)).all()
    assert (make_layout("random", seed=1) != make_layout("random", seed=2)).any()


def test_shortest_path_is_walkable_and_as_long_as_the_search_says():
    walls = make_layout("pinwheel")
    lengths = shortest_path_lengths(walls)
    free = free_cells(walls)
    for start, goal in ((free[0], free[-1]), (free[30], free[50]), (free[5], free[5])):
        xy = start
        path = shortest_path(walls, start, goal)
        assert len(path) == lengths[start[1] * 10 + start[0], goal[1] * 10 + goal[0]]
        for action in path:
            xy, blocked = move(walls, xy, action)
            assert not blocked
        assert (xy == goal).all()


def test_no_path_is_said():
    with pytest.raises(ValueError, match="no path leads from"):
        shortest_path(make_layout(POCKET), (0, 0), (3, 0))


def test_moves_stop_at_walls_and_edges_and_only_moves_are_blocked():
    walls = make_layout((".#", ".."))
    xy = np.zeros((5, 2), np.int64)
    to, blocked = move(walls, xy, np.arange(5))
    assert to.tolist() == [[0, 0], [0, 0], [0, 1], [0, 0], [0, 0]]
    assert blocked.tolist() == [False, True, False, True, True]


@pytest.mark.parametrize(
    ("layout", "cells", "says"),
    [
        ("maze", 10, "use one of pinwheel, open, random"),
        ("pinwheel", 7, "at least 8"),
        (("..", "."), 2, "make them equal"),
        (("...", "..."), 2, "must be square"),
        (("##", "#."), 2, "nothing can move"),
    ],
)
def test_impossible_layouts_are_refused(layout, cells, says):
    with pytest.raises(ValueError, match=says):
        make_layout(layout, cells=cells)
