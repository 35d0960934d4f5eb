"""Environments by their Gymnasium id, those of other packages included: imported, set up to be seen, with their state.

A family is a group of ids from one optional package. Ids of no family are left to Gymnasium as they are.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np

from jepa_world_model.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Family:
    """What the environments of one package need, and what they tell."""

    prefixes: tuple[str, ...]  # of their ids
    package: str  # to import
    extra: str  # of ours that installs it
    what: str  # in errors
    options: Mapping[str, Any] = field(default_factory=dict)  # unless given otherwise
    action_names: tuple[str, ...] = ()
    state_names: tuple[str, ...] = ()
    # environment, observation, info -> numbers
    state: Callable[[Any, Any, Mapping[str, Any]], Any] | None = None
    prepare: Callable[[gymnasium.Env], None] | None = None


class Told(gymnasium.Wrapper):
    """An environment whose `info["state"]` tells what its family knows, and which names its actions."""

    def __init__(self, env: gymnasium.Env, family: Family) -> None:
        super().__init__(env)
        self.family = family
        self.action_names, self.state_names = family.action_names, family.state_names

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Reset, and tell the state."""
        observation, info = self.env.reset(**options)
        return observation, self._told(observation, info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step, and tell the state."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated, truncated, self._told(observation, info)

    def _told(self, observation: Any, info: dict[str, Any]) -> dict[str, Any]:
        state = self.family.state(self.env.unwrapped, observation, info)
        return {**info, "state": np.asarray(state, np.float32)}


def _push_state(env: Any, observation: Any, info: Mapping[str, Any]) -> np.ndarray:
    return np.concatenate([info["pos_agent"], info["block_pose"]])


def _grid_state(env: Any, observation: Any, info: Mapping[str, Any]) -> np.ndarray:
    return np.array([*env.agent_pos, env.agent_dir])


def _maze_state(env: Any, observation: Any, info: Mapping[str, Any]) -> np.ndarray:
    return observation["observation"]


def _look_down(env: gymnasium.Env) -> None:
    """From above, the maze filling the picture: at the usual angle the walls hide the ball."""
    maze, renderer = env.unwrapped.maze, env.unwrapped.point_env.mujoco_renderer
    distance = (
        1.33 * maze.maze_size_scaling * max(maze.map_length, maze.map_width)
    )  # the lens sees 45 degrees
    renderer.default_cam_config = {"distance": distance, "elevation": -90.0, "azimuth": 90.0}
    try:
        env.reset(seed=0)
        env.render()
    except Exception as error:  # whatever a driver that is not there makes MuJoCo raise
        raise UserError(
            f"MuJoCo cannot draw with MUJOCO_GL={os.environ.get('MUJOCO_GL')}: {' '.join(str(error).split())}; set "
            "MUJOCO_GL to egl or osmesa, and install libegl1 or libosmesa6"
        ) from None


FAMILIES = (
    Family(prefixes=("ALE/", "ale_py:"), package="ale_py", extra="atari", what="the Atari emulator"),
    Family(
        prefixes=("MiniGrid-", "BabyAI-"),
        package="minigrid",
        extra="envs",
        what="MiniGrid",
        options={"tile_size": 8, "highlight": False},  # px a cell; without the light cone, which is no part of the world
        # The last one is called done; it ends language missions and does nothing else.
        action_names=("left", "right", "forward", "pickup", "drop", "toggle", "noop"),
        state_names=("x", "y", "direction"),
        state=_grid_state,
    ),
    Family(
        prefixes=("gym_pusht/",),
        package="gym_pusht",
        extra="envs",
        what="PushT",
        # Pixels as observation: its render() draws the action into the picture, which gives it away.
        options={"obs_type": "pixels", "observation_width": 128, "observation_height": 128},
        action_names=("x", "y"),
        state_names=("agent_x", "agent_y", "block_x", "block_y", "block_angle"),
        state=_push_state,
    ),
    Family(
        prefixes=("PointMaze_",),
        package="gymnasium_robotics",
        extra="robotics",
        what="the MuJoCo mazes",
        options={"width": 128, "height": 128},
        action_names=("force_x", "force_y"),
        state_names=("x", "y", "velocity_x", "velocity_y"),
        state=_maze_state,
        prepare=_look_down,
    ),
)  # fmt: skip


def make_env(env_id: str, **options: Any) -> gymnasium.Env:
    """A Gymnasium environment that renders RGB frames; UserError when it or its package is missing."""
    family = next((f for f in FAMILIES if env_id.startswith(f.prefixes)), None)
    if family is not None:
        _import(env_id, family)
        options = {**family.options, **options}
    try:
        env = gymnasium.make(env_id, render_mode="rgb_array", **options)
    except gymnasium.error.Error as error:
        raise UserError(f"{env_id} cannot be made: {' '.join(str(error).split())}") from None
    except ModuleNotFoundError as error:
        raise UserError(f"{env_id} needs the package {error.name}, which is not installed") from None
    except TypeError as error:
        raise UserError(f"{env_id} does not take the options {sorted(options)}: {error}") from None
    if family is None or family.state is None:
        return env
    if family.prepare is not None:
        family.prepare(env)
    return Told(env, family)


def _import(env_id: str, family: Family) -> None:
    """Import and register a family's package."""
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")  # read when MuJoCo is imported
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):  # some greet
            gymnasium.register_envs(importlib.import_module(family.package))
    except ImportError:
        raise UserError(
            f"{env_id} needs {family.what}; install it with: pip install jepa-world-model[{family.extra}]"
        ) from None
