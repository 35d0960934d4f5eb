"""Smooth random walks through Two Rooms, all episodes at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from jepa_world_model.envs.lazy_frames import LazyFrames
from jepa_world_model.envs.two_rooms import (
    DOOR_Y,
    MAX_STEP,
    WALL_X,
    draw_dots,
    draw_layouts,
    draw_starts,
    move_dot,
)

PATTERNS = ("random",)


def generate_two_rooms(
    *,
    episodes: int = 8000,
    length: int = 91,
    seed: int = 0,
    pattern: str = "random",
    random_wall: bool = False,
    turn_std: float = 0.2,
    step_mean: float = 1.0,
    step_std: float = 0.4,
) -> dict[str, Any]:
    """A data set of `episodes` walks of `length` frames each, as plain arrays.

    The heading drifts by a normal `turn_std` rad a step and is drawn anew where a wall held the dot; the
    length of a step is normal (`step_mean`, `step_std` px) between 0.2 and 1.8. `random_wall` draws wall and
    door for each episode.

    Returns frames [N,2,65,65] (drawn on access; `np.asarray` makes them an array: 8,450 bytes each), actions
    [N,2] float32 in steps of 1.8 px, states [N,2] float32 (x, y in px), walls [E,2], blocked [N],
    bounds [E,2], action_space, state_names, about. Row i of actions and blocked belongs to the step
    after frame i; the last row of an episode is padding.
    """
    if episodes < 1 or length < 2:
        raise ValueError(
            f"{episodes} episodes of {length} frames asked for; use at least 1 episode of 2 frames"
        )
    if pattern not in PATTERNS:
        raise ValueError(f"pattern is {pattern!r}; use one of {', '.join(PATTERNS)}")
    rng = np.random.default_rng([seed, 0x2200])
    walls = draw_layouts(rng, episodes) if random_wall else np.tile([[WALL_X, DOOR_Y]], (episodes, 1))
    xy = np.empty((episodes, length, 2))
    actions = np.zeros((episodes, length, 2), np.float32)
    blocked = np.zeros((episodes, length), bool)
    xy[:, 0] = draw_starts(rng, walls)
    heading = rng.uniform(-np.pi, np.pi, episodes)
    for t in range(length - 1):
        heading = heading + rng.normal(0.0, turn_std, episodes)
        if t:
            heading = np.where(blocked[:, t - 1], rng.uniform(-np.pi, np.pi, episodes), heading)
        size = np.clip(rng.normal(step_mean, step_std, episodes), 0.2, MAX_STEP)
        actions[:, t] = size[:, None] / MAX_STEP * np.stack([np.cos(heading), np.sin(heading)], -1)
        xy[:, t + 1], blocked[:, t] = move_dot(xy[:, t], actions[:, t].astype(np.float64), walls)
    drawn_from = np.concatenate([xy, np.repeat(walls[:, None], length, 1)], -1).reshape(-1, 4)  # [N,4]
    return {
        "frames": LazyFrames(draw_dots, drawn_from),
        "actions": actions.reshape(-1, 2),
        "states": xy.reshape(-1, 2).astype(np.float32),
        "walls": walls,
        "blocked": blocked.reshape(-1),
        "bounds": np.stack([np.arange(episodes) * length, np.full(episodes, length)], 1),
        "action_space": {
            "kind": "continuous",
            "dim": 2,
            "names": ["dx", "dy"],
            "low": [-1.0] * 2,
            "high": [1.0] * 2,
        },
        "state_names": ("x", "y"),
        "about": {"pattern": pattern, "walls": walls.tolist() if random_wall else walls[:1].tolist()},
    }
