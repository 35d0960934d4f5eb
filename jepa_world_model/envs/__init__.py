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
from jepa_world_model.envs.two_rooms import TwoRooms
from jepa_world_model.envs.two_rooms_walks import generate_two_rooms

SHORT_NAMES: dict[str, str] = {"gridworld": "jepa_wm/Gridworld-v0", "two_rooms": "jepa_wm/TwoRooms-v0"}
GENERATORS: dict[str, Callable[..., dict[str, Any]]] = {
    "gridworld": generate_gridworld,
    "two_rooms": generate_two_rooms,
}

_ENTRY_POINTS = {  # id -> class, steps an episode
    "jepa_wm/Gridworld-v0": (Gridworld, 200),
    "jepa_wm/TwoRooms-v0": (TwoRooms, 200),
}

for _id, (_class, _steps) in _ENTRY_POINTS.items():
    if _id not in gymnasium.registry:
        gymnasium.register(_id, entry_point=_class, max_episode_steps=_steps)

__all__ = [
    "GENERATORS",
    "SHORT_NAMES",
    "Gridworld",
    "TwoRooms",
    "generate_gridworld",
    "generate_two_rooms",
    "make_layout",
    "shortest_path",
    "shortest_path_lengths",
]
