"""Gridworld: one agent, four moves and a no-op among walls, drawn in numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from jepa_world_model.envs.layouts import ACTION_NAMES, MOVES, free_cells, make_layout, move

FRAME = (45, 55, 72)  # edge of the world, RGB
WALL = (74, 88, 110)
WALL_TOP = (113, 128, 150)  # the lit upper edge of a wall
CORNER_TINTS = ((250, 243, 224), (224, 240, 236), (247, 228, 222), (229, 230, 246))  # floor: NW, NE, SW, SE
LANDMARKS = ((86, 176, 160), (232, 178, 74), (142, 124, 195), (110, 160, 215))  # one a quarter of the world
AGENT = (214, 51, 60)
AGENT_RIM = (104, 16, 30)


def draw_background(walls: np.ndarray, size: int) -> np.ndarray:
    """The world without its agent, [size,size,3] uint8."""
    cells = len(walls)
    cell, margin = _geometry(cells, size)
    span = np.linspace(0.0, 1.0, cells)
    right, down = span[None, :, None], span[:, None, None]
    nw, ne, sw, se = np.array(CORNER_TINTS, np.float64)
    floor = (nw * (1 - right) + ne * right) * (1 - down) + (
        sw * (1 - right) + se * right
    ) * down  # [cells,cells,3]
    floor -= 7.0 * (np.add.outer(np.arange(cells), np.arange(cells)) % 2)[..., None]  # a faint chequer
    tiles = np.where(walls[..., None], np.array(WALL, np.float64), floor)
    picture = np.empty((size, size, 3))
    picture[:] = FRAME
    inner = picture[margin : margin + cells * cell, margin : margin + cells * cell]
    inner[:] = tiles.repeat(cell, 0).repeat(cell, 1)
    lit = max(cell // 5, 1)
    above = np.pad(walls, ((1, 0), (0, 0)))[:-1]
    for x, y in np.argwhere(walls & ~above)[:, ::-1]:
        inner[y * cell : y * cell + lit, x * cell : (x + 1) * cell] = WALL_TOP
    for (x, y), colour in zip(_landmark_cells(walls), LANDMARKS, strict=False):
        mark = _disc(cell, cell * 0.3, cell)[..., None] * 0.85
        patch = inner[y * cell : (y + 1) * cell, x * cell : (x + 1) * cell]
        patch[:] = patch * (1 - mark) + np.array(colour) * mark
    return picture.round().astype(np.uint8)


def draw_all(walls: np.ndarray, size: int) -> np.ndarray:
    """One picture for the agent in every cell, [C,3,size,size] uint8; cell (x, y) at index y * cells + x."""
    cells = len(walls)
    cell, margin = _geometry(cells, size)
    background = draw_background(walls, size).astype(np.float64)
    side = cell + 2 * margin if margin else cell  # the agent may overlap its neighbours by the margin
    rim = _disc(side, cell * 0.5 + min(margin, 1) * 0.6, cell)[..., None]
    body = _disc(side, cell * 0.5 + min(margin, 1) * 0.6 - max(cell / 7, 0.8), cell)[..., None]
    pictures = np.repeat(background[None], cells * cells, 0)
    shift = (side - cell) // 2
    for index in range(cells * cells):
        y, x = divmod(index, cells)
        top, left = margin + y * cell - shift, margin + x * cell - shift
        patch = pictures[index, top : top + side, left : left + side]
        patch[:] = patch * (1 - rim) + np.array(AGENT_RIM) * rim
        patch[:] = patch * (1 - body) + np.array(AGENT) * body
    return np.ascontiguousarray(pictures.round().astype(np.uint8).transpose(0, 3, 1, 2))


def _geometry(cells: int, size: int) -> tuple[int, int]:
    """Pixels of a cell, and of the frame around all cells."""
    if size < 3 * cells:
        raise ValueError(
            f"size is {size} px for {cells} cells; a cell needs 3 px, so use at least {3 * cells}"
        )
    cell = (size - 2) // cells if (size - 2) // cells >= 3 else size // cells
    return cell, (size - cells * cell) // 2


def _disc(side: int, radius: float, cell: int) -> np.ndarray:
    """Coverage [side,side] in [0, 1] of a centred disc; the edge is one pixel soft."""
    offset = np.arange(side) - (side - 1) / 2
    return np.clip(radius + 0.5 - np.hypot(offset[:, None], offset[None, :]), 0, 1)


def _landmark_cells(walls: np.ndarray) -> list[tuple[int, int]]:
    """One free cell a quarter, nearest to a spot off the quarter's centre, so that no symmetry is left."""
    cells = len(walls)
    free = free_cells(walls)
    spots = np.array([[0.22, 0.3], [0.8, 0.2], [0.3, 0.8], [0.7, 0.72]]) * (cells - 1)
    return [tuple(free[np.abs(free - spot).sum(1).argmin()]) for spot in spots]


class Gridworld(gymnasium.Env):
    """An agent among walls, seen from above; a goal ends the episode with reward 1 where one is set.

    Observation: RGB [size,size,3] uint8. Actions: noop, up, down, left, right; walls stop a move.
    `info["state"]` is (x, y) in cells as float32, x to the right and y down; `info["blocked"]` says that the
    last move met a wall. `reset(options={"start": (x, y), "goal": (x, y)})` places the agent and sets a goal.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    action_names = ACTION_NAMES
    state_names = ("x", "y")

    def __init__(
        self,
        render_mode: str | None = None,
        *,
        layout: str | Sequence[str] | np.ndarray = "pinwheel",
        cells: int = 10,
        layout_seed: int = 0,
        size: int = 64,
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode is {render_mode!r}; use 'rgb_array' or None")
        self.render_mode = render_mode
        self.walls = make_layout(layout, cells=cells, seed=layout_seed)
        self.action_space = gymnasium.spaces.Discrete(len(MOVES))
        self.observation_space = gymnasium.spaces.Box(0, 255, (size, size, 3), np.uint8)
        self._free = free_cells(self.walls)
        self._pictures = draw_all(self.walls, size).transpose(0, 2, 3, 1)
        self._xy = self._free[0]
        self._goal: np.ndarray | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Place the agent on a free cell, drawn at random unless `options` name it."""
        super().reset(seed=seed)
        options = dict(options or {})
        start, goal = options.pop("start", None), options.pop("goal", None)
        if options:
            raise ValueError(f"reset options {sorted(options)} are unknown; use start and goal")
        drawn = self._free[self.np_random.integers(len(self._free))]
        self._xy = drawn if start is None else self._cell(start, "start")
        self._goal = None if goal is None else self._cell(goal, "goal")
        return self.render(), self._info(False)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move the agent by one cell, or not at all where a wall stands."""
        self._xy, blocked = move(self.walls, self._xy, np.asarray(action))
        there = self._goal is not None and bool((self._xy == self._goal).all())
        return self.render(), float(there), there, False, self._info(bool(blocked))

    def render(self) -> np.ndarray:
        """The present picture, [size,size,3] uint8."""
        return self._pictures[self._xy[1] * len(self.walls) + self._xy[0]].copy()

    def _info(self, blocked: bool) -> dict[str, Any]:
        return {"state": self._xy.astype(np.float32), "blocked": blocked}

    def _cell(self, xy: Sequence[int], what: str) -> np.ndarray:
        cell = np.asarray(xy).astype(np.int64)
        if cell.shape != (2,) or not (self._free == cell).all(1).any():
            raise ValueError(f"{what} {tuple(np.asarray(xy).tolist())} is not a free cell of this layout")
        return cell
