"""Worlds to plan in: the true state of all episodes as one array, moved and drawn together.

A world holds no episode: a place is a row of numbers, and every function takes as many as there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.graph import unknown
from jepa_world_model.data.batch import ActionSpace
from jepa_world_model.envs.gridworld import draw_all
from jepa_world_model.envs.layouts import (
    ACTION_NAMES,
    MOVES,
    NOOP,
    free_cells,
    make_layout,
    move,
    shortest_path_lengths,
)
from jepa_world_model.envs.two_rooms import (
    HIGH,
    LOW,
    MAX_STEP,
    WALL_HALF,
    draw_dots,
    draw_layouts,
    geodesic,
    move_dot,
    sample_pairs,
)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """When an episode counts as solved."""

    name: str
    radius: float  # solved when nearer to the goal than this, in the world's unit
    ever: bool  # at any step; else at the last one


class World(Protocol):
    """An environment whose episodes run side by side."""

    name: str
    unit: str  # of distances
    space: ActionSpace
    max_norm: float  # the longest encoded action that is executed as it is
    rules: tuple[Rule, ...]  # the first is the headline

    def pairs(self, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Fixed starts and goals [count,S], each goal within reach of its start."""
        ...

    def step(self, places: np.ndarray, raw: np.ndarray) -> np.ndarray:
        """The places [E,S] after raw actions [E,...]."""
        ...

    def draw(self, places: np.ndarray) -> np.ndarray:
        """What the model sees there: [E,C,H,W] uint8."""
        ...

    def show(self, place: np.ndarray) -> np.ndarray:
        """A picture for people of one place: [H,W,3] uint8."""
        ...

    def pixel(self, places: np.ndarray) -> np.ndarray:
        """Where places are in that picture: [...,2] x and y in px."""
        ...

    def distance(self, places: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """How far each place is from its goal, by which success is judged: [E]."""
        ...

    def steps_to_go(self, places: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """Steps that the best policy needs to the goal itself, walls considered: [E]."""
        ...


class TwoRoomsWorld:
    """Two Rooms: places (x, y, wall x, door y) in px. B1 judges by 4.5 and 1.41 px."""

    name, unit, max_norm = "two_rooms", "px", 1.0
    space = ActionSpace(
        kind="continuous", dim=2, names=("dx", "dy"), low=(-1.0, -1.0), high=(1.0, 1.0)
    )  # the space of `generate_two_rooms`
    rules = (
        Rule(name="final_4.5", radius=4.5, ever=False),
        Rule(name="ever_4.5", radius=4.5, ever=True),
        Rule(name="ever_1.41", radius=1.41, ever=True),
    )

    def __init__(self, *, random_wall: bool = False) -> None:
        self.random_wall = random_wall

    def pairs(self, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Start and goal in different rooms, uniform in each; with `random_wall` a layout for every pair."""
        if not self.random_wall:
            start, goal = sample_pairs(count, seed)
            walls = np.tile([[32.0, 18.0]], (count, 1))
        else:
            rng = np.random.default_rng([seed, 0x2B01])
            walls = draw_layouts(rng, count)
            y = rng.uniform(LOW, HIGH, (count, 2))
            left = rng.uniform(LOW, walls[:, 0] - WALL_HALF)
            right = rng.uniform(walls[:, 0] + WALL_HALF, HIGH)
            swap = rng.random(count) < 0.5
            start = np.stack([np.where(swap, left, right), y[:, 0]], -1)
            goal = np.stack([np.where(swap, right, left), y[:, 1]], -1)
        return np.concatenate([start, walls], 1), np.concatenate([goal, walls], 1)

    def step(self, places: np.ndarray, raw: np.ndarray) -> np.ndarray:
        """The simulator."""
        xy, _ = move_dot(places[:, :2], np.asarray(raw, np.float64), places[:, 2:])
        return np.concatenate([xy, places[:, 2:]], 1)

    def draw(self, places: np.ndarray) -> np.ndarray:
        """Dot and wall, [E,2,65,65]."""
        return draw_dots(places)

    def show(self, place: np.ndarray) -> np.ndarray:
        """Light rooms, dark walls, no dot."""
        wall = draw_dots(place[None])[0, 1][..., None] / 255.0
        picture = np.array((248.0, 246.0, 240.0)) * (1 - wall) + np.array((74.0, 88.0, 110.0)) * wall
        return picture.round().astype(np.uint8)

    def pixel(self, places: np.ndarray) -> np.ndarray:
        """Places are in px already; a pixel's centre is its number."""
        return places[..., :2] + 0.5

    def distance(self, places: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """The straight line in px."""
        return np.linalg.norm(places[:, :2] - goals[:, :2], axis=-1)

    def steps_to_go(self, places: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """The way through the door at full speed."""
        return geodesic(places[:, :2], goals[:, :2], places[:, 2:]) / MAX_STEP


class GridworldWorld:
    """The gridworld: places (x, y) in cells; solved when the agent stands in the goal's cell."""

    name, unit, max_norm = "gridworld", "cells", float("inf")
    space = ActionSpace(kind="discrete", dim=len(MOVES), names=ACTION_NAMES, noop=NOOP)
    rules = (Rule(name="ever", radius=0.5, ever=True), Rule(name="final", radius=0.5, ever=False))

    def __init__(
        self, *, layout: Any = "pinwheel", cells: int = 10, layout_seed: int = 0, size: int = 64
    ) -> None:
        self.walls = make_layout(layout, cells=cells, seed=layout_seed)
        self.pictures = draw_all(self.walls, size)  # [C,3,H,W], cell (x, y) at y * cells + x
        self.size = size

    @cached_property
    def lengths(self) -> np.ndarray:
        """Shortest paths between every two cells [C,C]; -1 where there is none."""
        return shortest_path_lengths(self.walls)

    def index(self, places: np.ndarray) -> np.ndarray:
        """Numbers of the cells [E]."""
        places = np.asarray(places).astype(np.int64)
        return places[..., 1] * self.walls.shape[1] + places[..., 0]

    def pairs(self, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Two different free cells that a path connects, drawn uniformly."""
        rng, free = np.random.default_rng([seed, 0x6B2D]), free_cells(self.walls)
        number = self.index(free)
        start, goal = np.nonzero(self.lengths[np.ix_(number, number)] > 0)
        chosen = rng.choice(len(start), count, replace=count > len(start))
        return free[start[chosen]], free[goal[chosen]]

    def step(self, places: np.ndarray, raw: np.ndarray) -> np.ndarray:
        """The simulator."""
        return move(self.walls, np.asarray(places).astype(np.int64), raw)[0]

    def draw(self, places: np.ndarray) -> np.ndarray:
        """The agent among its walls, [E,3,size,size]."""
        return self.pictures[self.index(places)]

    def show(self, place: np.ndarray) -> np.ndarray:
        """The world without its agent."""
        from jepa_world_model.envs.gridworld import draw_background

        return draw_background(self.walls, self.size)

    def pixel(self, places: np.ndarray) -> np.ndarray:
        """The middle of each cell."""
        cells = len(self.walls)
        side = (self.size - 2) // cells if (self.size - 2) // cells >= 3 else self.size // cells
        return (np.asarray(places) + 0.5) * side + (self.size - cells * side) / 2

    def distance(self, places: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """Steps to go: 0 in the goal's cell alone."""
        return self.steps_to_go(places, goals)

    def steps_to_go(self, places: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """The shortest path, by breadth-first search."""
        return self.lengths[self.index(places), self.index(goals)].astype(np.float64)


WORLDS: dict[str, tuple[type, tuple[str, ...]]] = {  # name -> class, the options that it shares with its data
    "two_rooms": (TwoRoomsWorld, ("random_wall",)),
    "gridworld": (GridworldWorld, ("layout", "cells", "layout_seed", "size")),
}


def make_world(name: str, options: Mapping[str, Any] | None = None) -> World:
    """The world of a built-in data set, with the options that its data were made with.

    Errors: UserError for a world that cannot be planned in.
    """
    if name not in WORLDS:
        raise UserError(
            f"{unknown('world to plan in', name, WORLDS)}; others can be planned with through the Python interface"
        )
    kind, shared = WORLDS[name]
    return kind(**{key: value for key, value in (options or {}).items() if key in shared})
