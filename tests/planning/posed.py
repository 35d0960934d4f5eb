"""The gridworld's own simulator with a pose: the true place under a linear map, as a perfect odometry has it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from jepa_world_model.planning.oracles import GridworldOracle
from jepa_world_model.planning.worlds import GridworldWorld

AXES = np.linalg.qr(np.random.default_rng(5).normal(size=(4, 2)))[0].T * [[1.0], [1.4]]  # [2,4] right, down


class PosedGridworld(GridworldOracle):
    """State {"cell", "p"}; p is measured on encoding and integrated by what each action adds to it."""

    latents = goal_latents = ("p", "h")

    def __init__(self, world: GridworldWorld, *, drift: float = 0.0) -> None:
        super().__init__(world)
        self.axes, self.drift = torch.from_numpy(AXES).float(), drift

    @torch.no_grad()
    def encode(self, frames: Tensor):
        """The cell, and the pose it has."""
        cell = super().encode(frames)
        return {"cell": cell, "p": cell @ self.places.float() @ self.axes + 7.0}

    def step(self, state, action: Tensor):
        """The true move; the pose goes on by it, and a little more."""
        cell = super().step(state["cell"], action)
        moved = (cell - state["cell"]) @ self.places.float() @ self.axes
        return {"cell": cell, "p": state["p"] + moved * (1 + self.drift)}

    def read(self, state, name: str) -> Tensor:
        """The pose, or the cell in the place of h."""
        return state["p"] if name == "p" else state["cell"]
