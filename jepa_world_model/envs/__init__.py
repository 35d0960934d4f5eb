"""Floor 1: environments. Plain Gymnasium environments, registered on import, and data set generators.

`SHORT_NAMES` maps the names that users type to Gymnasium ids, `GENERATORS` to functions that return arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium

from jepa_world_model.envs.gridworld import Gridworld
from jepa_world_model.envs.gridworld_walks import generate_gridworld
from jepa_world_model.envs.layouts import make_layout, shortest_path, shortest_path_lengths

SHORT_NAMES: dict[str, str] = {"gridworld": "jepa_wm/Gridworld-v0"}
GENERATORS: dict[str, Callable[..., dict[str, Any]]] = {"gridworld": generate_gridworld}

_ENTRY_POINTS = {"jepa_wm/Gridworld-v0": (Gridworld, 200)}  # id -> class, steps an episode

for _id, (_class, _steps) in _ENTRY_POINTS.items():
    if _id not in gymnasium.registry:
        gymnasium.register(_id, entry_point=_class, max_episode_steps=_steps)

__all__ = [
    "GENERATORS",
    "SHORT_NAMES",
    "Gridworld",
    "generate_gridworld",
    "make_layout",
    "shortest_path",
    "shortest_path_lengths",
]
