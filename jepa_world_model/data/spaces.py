"""Gymnasium spaces and ours: what can be an action, and what is an image."""

from __future__ import annotations

from collections.abc import Sequence

import gymnasium
import numpy as np
from gymnasium import spaces

from jepa_world_model.core.errors import UserError
from jepa_world_model.data.batch import ActionSpace

QUIET = ("noop", "no-op", "nop")  # names of a discrete action that rests


def read_space(space: gymnasium.Space, names: Sequence[str] = ()) -> ActionSpace:
    """Our action space of a Gymnasium one; names are dropped where their number does not fit.

    Errors: UserError for spaces that a model cannot be conditioned on.
    """
    if isinstance(space, spaces.Discrete):
        count = int(space.n)
        names = tuple(names) if len(names) == count else ()
        quiet = [i for i, name in enumerate(names) if name.lower() in QUIET]
        return ActionSpace(kind="discrete", dim=count, names=names, noop=quiet[0] if quiet else None)
    if isinstance(space, spaces.MultiBinary):
        if len(space.shape) != 1:
            raise UserError(
                f"the actions are bits of shape {space.shape}; wrap the environment to make them flat"
            )
        names = tuple(names) if len(names) == space.shape[0] else ()
        return ActionSpace(kind="multi_binary", dim=int(space.shape[0]), names=names)
    if isinstance(space, spaces.Box):
        if len(space.shape) != 1 or not space.is_bounded("both"):
            raise UserError(
                f"the actions are {space}; continuous actions need one axis and finite bounds: wrap the "
                "environment, for instance in gymnasium.wrappers.RescaleAction"
            )
        names = tuple(names) if len(names) == space.shape[0] else ()
        low, high = (tuple(float(v) for v in bound) for bound in (space.low, space.high))
        return ActionSpace(kind="continuous", dim=len(low), names=names, low=low, high=high)
    raise UserError(
        f"actions of type {type(space).__name__} are not supported; Discrete, MultiBinary and Box are: wrap "
        "the environment, for instance to one Discrete action for each combination"
    )


def gym_space(space: ActionSpace) -> gymnasium.Space:
    """The Gymnasium space of our raw actions."""
    if space.kind == "discrete":
        return spaces.Discrete(space.dim)
    if space.kind == "multi_binary":
        return spaces.MultiBinary(space.dim)
    return spaces.Box(np.array(space.low, np.float32), np.array(space.high, np.float32), dtype=np.float32)


def from_zero(actions: np.ndarray, space: gymnasium.Space) -> np.ndarray:
    """Actions of a Gymnasium space, discrete ones counted from 0."""
    return actions - int(space.start) if isinstance(space, spaces.Discrete) else actions


def is_image(space: gymnasium.Space) -> bool:
    """An image has two large axes, and at most four channels if it has a third."""
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8:
        return False
    shape = space.shape
    return len(shape) in (2, 3) and min(shape[:2]) >= 8 and (len(shape) == 2 or shape[2] <= 4)
