"""Walks through a gridworld, all episodes at once: data sets without stepping an environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jepa_world_model.envs.gridworld import draw_all
from jepa_world_model.envs.layouts import ACTION_NAMES, CORNER, MOVES, NOOP, free_cells, make_layout, move
from jepa_world_model.envs.lazy_frames import LazyFrames

PATTERNS = ("random", "loop", "random_corner_loops")
UP, DOWN, LEFT, RIGHT = 1, 2, 3, 4


def generate_gridworld(
    *,
    episodes: int = 400,
    length: int = 50,
    seed: int = 0,
    pattern: str = "random",
    layout: str | Sequence[str] | np.ndarray = "pinwheel",
    cells: int = 10,
    layout_seed: int = 0,
    size: int = 64,
    noop_share: float = 0.1,
    persistence: float = 0.5,
    bump_share: float = 0.0,
) -> dict[str, Any]:
    """A data set of `episodes` walks of `length` frames each, as plain arrays.

    pattern "random": a move repeats the one before with probability `persistence` unless that was blocked;
    "loop": round the outermost ring, either way; "random_corner_loops": from corner to corner round the ring,
    with loops inside the corner squares, so that the interior (`envs.loops.interior`) is never entered; there
    `bump_share` of the steps try a move that the edge or a wall blocks. A share of `noop_share` steps rests.

    Returns frames [N,3,size,size] (drawn on access; `np.asarray` makes them an array), actions [N] int64,
    states [N,2] float32 (x, y in cells), blocked [N] bool, bounds [E,2], action_space, state_names. Row i of
    actions and blocked belongs to the step after frame i; the last row of an episode is padding.
    """
    if episodes < 1 or length < 2:
        raise ValueError(
            f"{episodes} episodes of {length} frames asked for; use at least 1 episode of 2 frames"
        )
    if pattern not in PATTERNS:
        raise ValueError(f"pattern is {pattern!r}; use one of {', '.join(PATTERNS)}")
    if not (0 <= noop_share < 1 and 0 <= persistence < 1):
        raise ValueError(f"noop_share {noop_share} and persistence {persistence} must lie in [0, 1)")
    if not 0 <= bump_share < 1 or (bump_share and pattern != "random_corner_loops"):
        raise ValueError(
            f"bump_share {bump_share} must lie in [0, 1), and is of pattern random_corner_loops only"
        )
    walls = make_layout(layout, cells=cells, seed=layout_seed)
    rng = np.random.default_rng([seed, 0x6B1D])
    steps = length - 1
    if pattern == "random":
        xy, actions, blocked = _random_walk(walls, rng, episodes, steps, noop_share, persistence)
    elif pattern == "loop":
        xy, actions, blocked = _ring_walk(walls, rng, episodes, steps, noop_share)
    else:
        xy, actions, blocked = _corner_walk(walls, rng, episodes, steps, noop_share, bump_share)
    flat = xy.reshape(-1, 2)
    pictures = draw_all(walls, size)
    cell_of = (flat[:, 1] * len(walls) + flat[:, 0]).astype(np.int64)
    pad = ((0, 0), (0, 1))
    return {
        "frames": LazyFrames(pictures.__getitem__, cell_of),
        "actions": np.pad(actions, pad).reshape(-1),
        "states": flat.astype(np.float32),
        "blocked": np.pad(blocked, pad).reshape(-1),
        "bounds": np.stack([np.arange(episodes) * length, np.full(episodes, length)], 1),
        "action_space": {"kind": "discrete", "dim": len(MOVES), "names": list(ACTION_NAMES), "noop": NOOP},
        "state_names": ("x", "y"),
        "about": {"pattern": pattern, "layout": ["".join("#" if w else "." for w in row) for row in walls]},
    }


def _random_walk(
    walls: np.ndarray,
    rng: np.random.Generator,
    episodes: int,
    steps: int,
    noop_share: float,
    persistence: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions [E,steps+1,2], actions [E,steps], blocked [E,steps] of a walk with momentum."""
    free = free_cells(walls)
    xy = np.empty((episodes, steps + 1, 2), np.int64)
    actions = np.empty((episodes, steps), np.int64)
    blocked = np.zeros((episodes, steps), bool)
    xy[:, 0] = free[rng.integers(len(free), size=episodes)]
    heading = rng.integers(1, len(MOVES), size=episodes)
    for t in range(steps):
        turn = rng.random(episodes) >= persistence
        if t:
            turn |= blocked[:, t - 1]
        heading = np.where(turn, rng.integers(1, len(MOVES), size=episodes), heading)
        actions[:, t] = np.where(rng.random(episodes) < noop_share, NOOP, heading)
        xy[:, t + 1], blocked[:, t] = move(walls, xy[:, t], actions[:, t])
    return xy, actions, blocked


def _ring_walk(
    walls: np.ndarray, rng: np.random.Generator, episodes: int, steps: int, noop_share: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same three arrays for walks around the outermost ring, half of them clockwise."""
    side = len(walls) - 1
    _need_free(walls, ring=True)
    clockwise = np.repeat([RIGHT, DOWN, LEFT, UP], side)  # the action that leaves each ring cell
    ring = np.concatenate([[[0, 0]], np.cumsum(MOVES[clockwise], 0)[:-1]])  # [4*side,2]
    way = rng.choice([-1, 1], size=episodes)[:, None]
    moves = rng.random((episodes, steps)) >= noop_share
    place = np.zeros((episodes, steps + 1), np.int64)
    place[:, 1:] = np.cumsum(moves * way, 1)
    place = (place + rng.integers(len(ring), size=episodes)[:, None]) % len(ring)
    opposite = np.array([NOOP, DOWN, UP, RIGHT, LEFT])
    back = opposite[clockwise[(place[:, :-1] - 1) % len(ring)]]
    actions = np.where(moves, np.where(way > 0, clockwise[place[:, :-1]], back), NOOP)
    return ring[place], actions, np.zeros((episodes, steps), bool)


def _corner_walk(
    walls: np.ndarray,
    rng: np.random.Generator,
    episodes: int,
    steps: int,
    noop_share: float,
    bump_share: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same three arrays for walks made of corner loops and of edges from corner to corner."""
    side = len(walls) - 1
    _need_free(walls, ring=True, corners=True)
    strings, lengths, ends, by_corner = _corner_segments(side)
    burn_in = 4 * side  # so that episodes do not all begin in a corner
    corner = rng.integers(4, size=episodes)
    segment = by_corner[corner, rng.integers(by_corner.shape[1], size=episodes)]
    place = np.zeros(episodes, np.int64)  # inside the segment
    xy = np.empty((episodes, burn_in + steps + 1, 2), np.int64)
    xy[:, 0] = np.array([[0, 0], [side, 0], [side, side], [0, side]])[corner]
    actions = np.empty((episodes, burn_in + steps), np.int64)
    blocked = np.zeros((episodes, burn_in + steps), bool)
    bumps, ways = _bumps(walls)
    for t in range(burn_in + steps):
        rests = rng.random(episodes) < noop_share
        actions[:, t] = np.where(rests, NOOP, strings[segment, place])
        if bump_share:
            cell = xy[:, t, 1] * len(walls) + xy[:, t, 0]
            tries = (rng.random(episodes) < bump_share) & (ways[cell] > 0) & ~rests
            pick = bumps[cell, rng.integers(12, size=episodes) % np.maximum(ways[cell], 1)]  # 12 = 3 * 4
            actions[:, t] = np.where(tries, pick, actions[:, t])
            blocked[:, t] = tries
            rests |= tries
        xy[:, t + 1] = np.where(blocked[:, t, None], xy[:, t], xy[:, t] + MOVES[actions[:, t]])
        place = place + ~rests
        done = place == lengths[segment]
        following = by_corner[ends[segment], rng.integers(by_corner.shape[1], size=episodes)]
        segment, place = np.where(done, following, segment), np.where(done, 0, place)
    return xy[:, burn_in:], actions[:, burn_in:], blocked[:, burn_in:]


def _bumps(walls: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Actions that are blocked in each cell, first in its row [C,4], and how many there are [C]."""
    cells = len(walls)
    table, count = np.zeros((cells * cells, len(MOVES) - 1), np.int64), np.zeros(cells * cells, np.int64)
    for x, y in free_cells(walls):
        _, stays = move(walls, np.repeat([[x, y]], len(MOVES), 0), np.arange(len(MOVES)))
        mine = np.flatnonzero(stays)
        table[y * cells + x, : len(mine)], count[y * cells + x] = mine, len(mine)
    return table, count


def _corner_segments(side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Ways from corner to corner: [S,L] actions, [S] lengths, [S] end corners, [4,M] by start corner."""
    inward = (
        (RIGHT, DOWN),
        (DOWN, LEFT),
        (LEFT, UP),
        (UP, RIGHT),
    )  # along the clockwise edge, then the other
    opposite = {UP: DOWN, DOWN: UP, LEFT: RIGHT, RIGHT: LEFT}
    strings, ends, by_corner = [], [], []
    for corner, (first, second) in enumerate(inward):
        mine = []
        for wide in range(1, CORNER):
            for high in range(1, CORNER):
                for a, b in ((first, second), (second, first)):
                    loop = [a] * wide + [b] * high + [opposite[a]] * wide + [opposite[b]] * high
                    mine.append((loop, corner))
        edges = [([first] * side, (corner + 1) % 4), ([second] * side, (corner - 1) % 4)]
        mine += edges * (len(mine) // 2)  # as many edges as loops
        by_corner.append(range(len(strings), len(strings) + len(mine)))
        strings += [actions for actions, _ in mine]
        ends += [end for _, end in mine]
    lengths = np.array([len(s) for s in strings])
    table = np.zeros((len(strings), lengths.max()), np.int64)
    for row, actions in enumerate(strings):
        table[row, : len(actions)] = actions
    return table, lengths, np.array(ends), np.array([list(r) for r in by_corner])


def _need_free(walls: np.ndarray, *, ring: bool, corners: bool = False) -> None:
    needed = np.zeros_like(walls)
    if ring:
        needed[[0, -1]] = needed[:, [0, -1]] = True
    if corners:
        for ys in (slice(CORNER), slice(-CORNER, None)):
            for xs in (slice(CORNER), slice(-CORNER, None)):
                needed[ys, xs] = True
    if (walls & needed).any():
        x, y = np.argwhere(walls & needed)[0][::-1]
        raise ValueError(
            f"the layout has a wall at ({x}, {y}), where walks along the edge pass; use pattern 'random'"
        )
