"""Layouts: where the walls of a gridworld are, and how far its cells lie apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ACTION_NAMES = ("noop", "up", "down", "left", "right")
NOOP = 0
MOVES = np.array(
    [[0, 0], [0, -1], [0, 1], [-1, 0], [1, 0]], np.int64
)  # [A,2]: step in x (right) and y (down)
LAYOUTS = ("pinwheel", "open", "random")
CORNER = 3  # side of the square in each corner that every named layout leaves free, in cells


def make_layout(
    layout: str | Sequence[str] | np.ndarray = "pinwheel", cells: int = 10, seed: int = 0
) -> np.ndarray:
    """Walls [cells,cells] bool, indexed [y, x].

    `layout` is a name, rows of text in which "#" is a wall, or an array of walls. The named ones leave the
    outermost ring and a square in each corner free, so that loops along the edge fit into all of them: "open"
    has no walls, "pinwheel" four arms around a centre, "random" scattered walls drawn from `seed`.
    """
    if not isinstance(layout, str):
        return _given_walls(layout)
    if layout not in LAYOUTS:
        raise ValueError(
            f"layout is {layout!r}; use one of {', '.join(LAYOUTS)}, or rows of text with # for walls"
        )
    least = 2 if layout == "open" else 8
    if cells < least:
        raise ValueError(f"cells is {cells}; the layout {layout} needs at least {least}")
    walls = np.zeros((cells, cells), bool)
    if layout == "pinwheel":
        centre = cells // 2 - 1
        arm = np.zeros((cells, cells), bool)
        arm[1:centre, centre] = True
        for turn in range(4):
            walls |= np.rot90(arm, turn)
    if layout == "random":
        walls = _scatter(cells, np.random.default_rng([seed, 0x9A11]))
    return walls


def _given_walls(layout: Sequence[str] | np.ndarray) -> np.ndarray:
    if isinstance(layout, np.ndarray):
        walls = layout.astype(bool)
    elif len({len(row) for row in layout}) != 1:
        raise ValueError(f"rows of the layout have lengths {[len(row) for row in layout]}; make them equal")
    else:
        walls = np.array([[mark == "#" for mark in row] for row in layout], bool)
    if walls.ndim != 2 or walls.shape[0] != walls.shape[1]:
        raise ValueError(f"the layout has shape {walls.shape}; it must be square")
    if (~walls).sum() < 2:
        raise ValueError("the layout has fewer than 2 free cells, so nothing can move")
    return walls


def _scatter(cells: int, rng: np.random.Generator) -> np.ndarray:
    """Walls on a fifth of the interior, redrawn until every free cell can be reached."""
    interior = np.zeros((cells, cells), bool)
    interior[1:-1, 1:-1] = True
    for ys in (slice(CORNER), slice(-CORNER, None)):
        for xs in (slice(CORNER), slice(-CORNER, None)):
            interior[ys, xs] = False
    candidates = np.flatnonzero(interior)
    while True:
        walls = np.zeros((cells, cells), bool)
        walls.flat[rng.permutation(candidates)[: max(len(candidates) // 5, 1)]] = True
        if connected(walls):
            return walls


def free_cells(walls: np.ndarray) -> np.ndarray:
    """The cells without a wall as (x, y), [F,2] int64, row after row."""
    return np.argwhere(~walls)[:, ::-1].astype(np.int64)


def move(walls: np.ndarray, xy: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One step of the true dynamics, for any number of agents at once.

    Shapes: xy [...,2] int64, action [...] -> next xy [...,2], blocked [...] (a move met a wall or edge).
    """
    action = np.asarray(action)
    to = xy + MOVES[action]
    size = np.array(walls.shape[::-1])
    inside = ((to >= 0) & (to < size)).all(-1)
    held = np.clip(to, 0, size - 1)
    stays = ~inside | walls[held[..., 1], held[..., 0]]
    return np.where(stays[..., None], xy, to), stays & (action != NOOP)


def shortest_path_lengths(layout: str | Sequence[str] | np.ndarray, **options: int) -> np.ndarray:
    """Steps of the shortest path between every two cells, by breadth-first search from all at once.

    Shapes: [C,C] int64, C = cells squared, cell (x, y) at index y * cells + x; -1 where no path leads.
    """
    walls = make_layout(layout, **options)
    count = walls.size
    neighbour = np.zeros((count, count), bool)
    xy = free_cells(walls)
    index = xy[:, 1] * walls.shape[1] + xy[:, 0]
    for action in range(1, len(MOVES)):
        to, _ = move(walls, xy, np.full(len(xy), action))
        neighbour[index, to[:, 1] * walls.shape[1] + to[:, 0]] = True
    distance = np.full((count, count), -1, np.int64)
    reached = np.zeros((count, count), bool)
    reached[index, index] = True
    steps = 0
    while (new := reached & (distance < 0)).any():
        distance[new] = steps
        reached = (new.astype(np.float32) @ neighbour.astype(np.float32)) > 0
        steps += 1
    return distance


def connected(walls: np.ndarray) -> bool:
    """Whether every free cell can be reached from every other."""
    free = ~walls.reshape(-1)
    return bool((shortest_path_lengths(walls)[np.ix_(free, free)] >= 0).all())


def shortest_path(walls: np.ndarray, start: Sequence[int], goal: Sequence[int]) -> list[int]:
    """Actions of one shortest path from start to goal, both (x, y); ValueError when there is none."""
    to_goal = shortest_path_lengths(walls)[:, goal[1] * walls.shape[1] + goal[0]]
    xy, path = np.asarray(start, np.int64), []
    if to_goal[xy[1] * walls.shape[1] + xy[0]] < 0:
        raise ValueError(f"no path leads from {tuple(start)} to {tuple(goal)}")
    while tuple(xy) != tuple(goal):
        options, _ = move(walls, np.repeat(xy[None], len(MOVES), 0), np.arange(len(MOVES)))  # [A,2]
        action = int(to_goal[options[:, 1] * walls.shape[1] + options[:, 0]].argmin())
        path.append(action)
        xy = options[action]
    return path
