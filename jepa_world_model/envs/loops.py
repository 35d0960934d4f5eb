"""From loops to the interior: which cells walks along loops never show, and start and goal pairs on both sides."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jepa_world_model.envs.layouts import CORNER, free_cells, make_layout, shortest_path_lengths

TESTS = {
    0: "inside the data",
    1: "from the loop to the unseen interior",
    2: "inside the unseen interior",
}


def interior(walls: np.ndarray) -> np.ndarray:
    """The cells that the pattern "random_corner_loops" never enters, [C,C] bool: no ring, no corner, no wall."""
    inner = np.zeros_like(walls)
    inner[1:-1, 1:-1] = True
    for ys in (slice(CORNER), slice(-CORNER, None)):
        for xs in (slice(CORNER), slice(-CORNER, None)):
            inner[ys, xs] = False
    return inner & ~walls


@dataclass(frozen=True)
class Pairs:
    """Starts and goals of one test."""

    test: int
    start: np.ndarray  # [P,2] cells as (x, y)
    goal: np.ndarray  # [P,2]
    optimal: np.ndarray  # [P] steps of the shortest path

    @property
    def digest(self) -> str:
        """SHA-256 of the cells: two runs with the same digest were asked the same."""
        rows = np.concatenate([self.start, self.goal], 1).astype("<i8")
        return hashlib.sha256(bytes([self.test]) + np.ascontiguousarray(rows).tobytes()).hexdigest()


def make_pairs(
    test: int,
    *,
    layout: str | Sequence[str] | np.ndarray = "open",
    cells: int = 10,
    layout_seed: int = 0,
    count: int = 50,
    seed: int = 0,
    nearest: int = 3,
    farthest: int | None = None,
) -> Pairs:
    """Start and goal pairs that breadth-first search of the world itself says can be reached.

    Test 0 starts and ends on visited cells, 3 to 10 steps apart; test 1 starts on visited cells and ends in
    the interior; test 2 starts and ends in the interior. Pairs differ from each other. farthest: steps at
    most; None is 10 for test 0 and no limit otherwise.
    Errors: ValueError for a test that does not exist, or a world with fewer than `count` such pairs.
    """
    if test not in TESTS:
        raise ValueError(f"test is {test!r}; there are {', '.join(f'{k} ({v})' for k, v in TESTS.items())}")
    walls = make_layout(layout, cells=cells, seed=layout_seed)
    distance = shortest_path_lengths(walls)
    free, unseen = free_cells(walls), interior(walls)
    index = free[:, 1] * len(walls) + free[:, 0]
    hidden = unseen[free[:, 1], free[:, 0]]
    starts, goals = hidden if test == 2 else ~hidden, hidden if test else ~hidden
    steps = distance[np.ix_(index, index)]
    limit = (10 if test == 0 else steps.max()) if farthest is None else farthest
    fits = starts[:, None] & goals[None, :] & (steps >= nearest) & (steps <= limit)
    found = np.argwhere(fits)
    if len(found) < count:
        raise ValueError(
            f"test {test} ({TESTS[test]}) has {len(found)} pairs {nearest} to {limit} steps apart in this "
            f"layout, but {count} were asked for; ask for fewer, or use a larger world"
        )
    rng = np.random.default_rng([seed, test, 0xB2])
    start, goal = found[rng.choice(len(found), size=count, replace=False)].T
    return Pairs(test, free[start], free[goal], steps[start, goal])
