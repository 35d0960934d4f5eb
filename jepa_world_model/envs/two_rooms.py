"""Two Rooms: a dot, a wall with one door, continuous steps; geometry, pictures and the environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

CANVAS = 65  # px, both sides
BORDER = 5  # px; the dot stays within BORDER - 1 .. CANVAS - BORDER
WALL_X, DOOR_Y = 32.0, 18.0  # px, of the fixed layout
WALL_HALF = 1.5  # px; the wall is 3 thick
DOOR_HALF = 4.0  # px, half-extent of the door
DOT_STD = 1.3  # px
MAX_STEP = 1.8  # px moved by an action of length 1; longer actions are shortened to it
LOW, HIGH = BORDER - 1.0, float(CANVAS - BORDER)  # where the centre of the dot may be
WALL_RANGE = (20.0, 44.0)  # px, wall of a random layout
DOOR_RANGE = (10.0, 54.0)  # px, door of a random layout


def move_dot(
    xy: np.ndarray, action: np.ndarray, wall: np.ndarray | Sequence[float] = (WALL_X, DOOR_Y)
) -> tuple[np.ndarray, np.ndarray]:
    """One step of the true dynamics, for any number of dots: it slides along what it touches.

    Shapes: xy [...,2] px, action [...,2], wall [...,2] (wall x, door y) -> next xy [...,2], blocked [...].
    """
    xy, wall = np.asarray(xy, np.float64), np.asarray(wall, np.float64)
    length = np.linalg.norm(action, axis=-1, keepdims=True)
    step = action * (MAX_STEP / np.maximum(length, 1.0))
    x, y = xy[..., 0], xy[..., 1]
    left, right = wall[..., 0] - WALL_HALF, wall[..., 0] + WALL_HALF
    top, bottom = wall[..., 1] - DOOR_HALF, wall[..., 1] + DOOR_HALF
    # A step is shorter than the wall is thick, so a dot that ends outside of it did not pass through.
    in_door = (y >= top) & (y <= bottom)
    to_x = np.clip(x + step[..., 0], LOW, HIGH)
    hits = ~in_door & (to_x > left) & (to_x < right)
    to_x = np.where(hits, np.where(x <= left, left, right), to_x)
    to_y = np.clip(y + step[..., 1], LOW, HIGH)
    in_wall = (to_x > left) & (to_x < right)
    to_y = np.where(in_wall, np.clip(to_y, top, bottom), to_y)
    to = np.stack([to_x, to_y], -1)
    return to, np.abs(to - xy - step).max(-1) > 1e-6


def is_free(xy: np.ndarray, wall: np.ndarray | Sequence[float] = (WALL_X, DOOR_Y)) -> np.ndarray:
    """Whether a dot may be there: inside the border and not inside the wall, [...] bool."""
    xy, wall = np.asarray(xy, np.float64), np.asarray(wall, np.float64)
    inside = ((xy >= LOW) & (xy <= HIGH)).all(-1)
    in_wall = np.abs(xy[..., 0] - wall[..., 0]) < WALL_HALF
    return inside & ~(in_wall & (np.abs(xy[..., 1] - wall[..., 1]) > DOOR_HALF))


def geodesic(
    start: np.ndarray, goal: np.ndarray, wall: np.ndarray | Sequence[float] = (WALL_X, DOOR_Y)
) -> np.ndarray:
    """Length in px of the shortest way that leads through the door, not through the wall.

    Shapes: start [...,2], goal [...,2], wall [...,2] -> [...]. The bends lie on 17 points of each door edge,
    so the length is at most 0.05 px too long.
    """
    start, goal = np.broadcast_arrays(np.asarray(start, np.float64), np.asarray(goal, np.float64))
    wall = np.broadcast_to(np.asarray(wall, np.float64), start.shape)
    swap = (start[..., 0] > goal[..., 0])[..., None]
    a, b = np.where(swap, goal, start), np.where(swap, start, goal)  # a is not right of b
    door = wall[..., 1, None] + np.linspace(-DOOR_HALF, DOOR_HALF, 17)  # [...,17]
    # A face that does not lie between the two is passed where the end itself is.
    left, right = wall[..., 0] - WALL_HALF, wall[..., 0] + WALL_HALF
    enters = ((a[..., 0] <= left) & (b[..., 0] > left))[..., None]
    leaves = ((a[..., 0] < right) & (b[..., 0] >= right))[..., None]
    in_x = np.where(enters, left[..., None], a[..., :1])
    in_y = np.where(enters, door, a[..., 1:])
    out_x = np.where(leaves, right[..., None], b[..., :1])
    out_y = np.where(leaves, door, b[..., 1:])
    first = np.hypot(in_x - a[..., :1], in_y - a[..., 1:])  # [...,17]
    last = np.hypot(out_x - b[..., :1], out_y - b[..., 1:])
    middle = np.hypot(
        np.subtract(in_x, out_x)[..., None], in_y[..., :, None] - out_y[..., None, :]
    )  # [...,17,17]
    return (first[..., :, None] + middle + last[..., None, :]).min((-2, -1))


def sample_pairs(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Starts and goals [count,2] in different rooms of the fixed layout, uniform in each room."""
    rng = np.random.default_rng([seed, 0x2B00])
    y = rng.uniform(LOW, HIGH, (count, 2))
    left = rng.uniform(LOW, WALL_X - WALL_HALF, count)
    right = rng.uniform(WALL_X + WALL_HALF, HIGH, count)
    goes_right = rng.random(count) < 0.5
    start = np.stack([np.where(goes_right, left, right), y[:, 0]], -1)
    goal = np.stack([np.where(goes_right, right, left), y[:, 1]], -1)
    return start, goal


def draw_dots(states: np.ndarray) -> np.ndarray:
    """Pictures [M,2,65,65] uint8 of states [M,4] (x, y, wall x, door y): a Gaussian dot, and the walls."""
    xy = states[:, :2].astype(np.float32)
    # Only 11 x 11 pixels around the dot: farther than 4.6 px from it the Gaussian rounds to 0.
    near = np.clip(np.rint(xy).astype(np.int64) - 5, 0, CANVAS - 11)[..., None] + np.arange(11)  # [M,2,11]
    bell = np.exp((near - xy[..., None]) ** 2 * np.float32(-0.5 / DOT_STD**2))
    out = np.zeros((len(states), 2, CANVAS, CANVAS), np.uint8)
    rows, columns = near[:, 1, :, None], near[:, 0, None, :]
    values = bell[:, 1, :, None] * bell[:, 0, None, :] * np.float32(255) + np.float32(0.5)
    out[np.arange(len(states))[:, None, None], 0, rows, columns] = values.astype(np.uint8)
    layouts, which = np.unique(states[:, 2:], axis=0, return_inverse=True)
    walls = np.stack([_draw_wall(x, y) for x, y in layouts])
    out[:, 1] = walls[which.reshape(-1)]
    return out


def _draw_wall(wall_x: float, door_y: float) -> np.ndarray:
    grid = np.arange(CANVAS)
    wall = np.abs(grid - wall_x) <= WALL_HALF
    door = np.abs(grid - door_y) <= DOOR_HALF
    edge = [int(LOW) - 1, int(HIGH) + 1]
    inside = (grid >= edge[0]) & (grid <= edge[1])
    picture = wall[None, :] & (inside & ~door)[:, None]
    picture[edge] |= inside
    picture[:, edge] |= inside[:, None]
    return picture.astype(np.uint8) * 255


class TwoRooms(gymnasium.Env):
    """A dot in two rooms; a goal ends the episode with reward 1 within 4.5 px of it, where one is set.

    Observation: [65,65,2] uint8, dot and walls. Actions: (dx, dy) in steps of 1.8 px, shortened to length 1.
    `info["state"]` is (x, y) in px as float32, y down; `info["wall"]` is (wall x, door y); `info["blocked"]`:
    a wall held the dot. `reset(options={"start": (x, y), "goal": (x, y), "wall": (x, y)})` sets each of them;
    `random_wall=True` draws a wall and a door for every episode.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}
    state_names = ("x", "y")
    goal_radius = 4.5  # px

    def __init__(self, render_mode: str | None = None, *, random_wall: bool = False) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode is {render_mode!r}; use 'rgb_array' or None")
        self.render_mode = render_mode
        self.random_wall = random_wall
        self.action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
        self.observation_space = gymnasium.spaces.Box(0, 255, (CANVAS, CANVAS, 2), np.uint8)
        self._wall = np.array([WALL_X, DOOR_Y])
        self._xy = np.array([LOW, LOW])
        self._goal: np.ndarray | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Place the dot where it is free, drawn at random unless `options` name it."""
        super().reset(seed=seed)
        options = dict(options or {})
        start, goal, wall = (options.pop(name, None) for name in ("start", "goal", "wall"))
        if options:
            raise ValueError(f"reset options {sorted(options)} are unknown; use start, goal and wall")
        drawn = draw_layouts(self.np_random, 1)[0] if self.random_wall else np.array([WALL_X, DOOR_Y])
        self._wall = drawn if wall is None else np.asarray(wall, np.float64)
        self._xy = draw_starts(self.np_random, self._wall[None])[0]
        if start is not None:
            self._xy = self._point(start, "start")
        self._goal = None if goal is None else self._point(goal, "goal")
        return self._observe(), self._info(False)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move the dot by 1.8 (dx, dy) px, as far as the walls let it."""
        self._xy, blocked = move_dot(self._xy, np.asarray(action, np.float64), self._wall)
        there = self._goal is not None and bool(np.linalg.norm(self._xy - self._goal) < self.goal_radius)
        return self._observe(), float(there), there, False, self._info(bool(blocked))

    def render(self) -> np.ndarray:
        """A picture for people, [65,65,3] uint8: light rooms, dark walls, a red dot."""
        dot, wall = self._observe().transpose(2, 0, 1)[..., None] / 255.0
        picture = np.full((CANVAS, CANVAS, 3), (248.0, 246.0, 240.0))
        picture = picture * (1 - wall) + np.array((74.0, 88.0, 110.0)) * wall
        picture = picture * (1 - dot) + np.array((214.0, 51.0, 60.0)) * dot
        return picture.round().astype(np.uint8)

    def _observe(self) -> np.ndarray:
        picture = draw_dots(np.concatenate([self._xy, self._wall])[None])[0]
        return np.ascontiguousarray(picture.transpose(1, 2, 0))

    def _info(self, blocked: bool) -> dict[str, Any]:
        wall = self._wall.astype(np.float32)
        return {"state": self._xy.astype(np.float32), "wall": wall, "blocked": blocked}

    def _point(self, xy: Sequence[float], what: str) -> np.ndarray:
        point = np.asarray(xy, np.float64)
        if point.shape != (2,) or not is_free(point, self._wall):
            raise ValueError(f"{what} {point.tolist()} is not a free place: it lies outside or inside a wall")
        return point


def draw_layouts(rng: np.random.Generator, count: int) -> np.ndarray:
    """Random (wall x, door y) [count,2] in whole px."""
    x = rng.integers(int(WALL_RANGE[0]), int(WALL_RANGE[1]) + 1, count)
    y = rng.integers(int(DOOR_RANGE[0]), int(DOOR_RANGE[1]) + 1, count)
    return np.stack([x, y], -1).astype(np.float64)


def draw_starts(rng: np.random.Generator, walls: np.ndarray) -> np.ndarray:
    """Uniform free places [E,2], one for each layout of walls [E,2]."""
    xy = rng.uniform(LOW, HIGH, (len(walls), 2))
    while (bad := ~is_free(xy, walls)).any():
        xy[bad] = rng.uniform(LOW, HIGH, (int(bad.sum()), 2))
    return xy
