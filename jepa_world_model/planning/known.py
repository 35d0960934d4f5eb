"""What the data of a model tell the planners of routes: graphs over its latents, and what each action adds to the pose."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch

from jepa_world_model.core.errors import UserError
from jepa_world_model.data.episodes import Episodes, rows_of
from jepa_world_model.planning.dynamics import Dynamics
from jepa_world_model.planning.graph import DataGraph, GraphConfig, build_graph
from jepa_world_model.planning.pose import ActionSteps, action_steps, imagined_increments, read_frames


class Known:
    """Evenly chosen whole episodes of a data set as a model sees them, each thing made when it is first asked for.

    frames: about how many are looked at. Errors: UserError for actions that are not discrete.
    """

    def __init__(self, dynamics: Dynamics, episodes: Episodes, *, frames: int = 6000) -> None:
        if episodes.space.kind != "discrete":
            raise UserError(
                f"routes are made of discrete actions, but this data set has {episodes.space.kind} ones; "
                "plan with cem, icem, mppi or gradient"
            )
        count = min(len(episodes), max(1, frames // int(np.median(episodes.lengths))))
        bounds = episodes.bounds[np.unique(np.linspace(0, len(episodes) - 1, count).round().astype(np.int64))]
        rows = rows_of(bounds)
        self.dynamics = dynamics
        self.frames = np.asarray(episodes.frames[rows])  # [N,C,H,W]
        self.source = np.setdiff1d(
            np.arange(len(rows)), np.cumsum(bounds[:, 1]) - 1
        )  # [M] rows with an action
        self.action = np.asarray(episodes.actions[rows])[self.source]  # [M] raw
        self._graphs: dict[str, DataGraph] = {}

    @cached_property
    def steps(self) -> ActionSteps:
        """What each action adds to the pose, imagined from every frame that it was taken in."""
        space = self.dynamics.space
        delta = imagined_increments(
            self.dynamics, self.frames[self.source], torch.from_numpy(space.encode(self.action))
        )
        return action_steps(delta, self.action, space.dim)

    def graph(self, latent: str, config: GraphConfig | None = None) -> DataGraph:
        """Places and observed ways in a latent of lone frames; with the default configuration made once."""
        if config is not None:
            return self._make(latent, config)
        if latent not in self._graphs:
            self._graphs[latent] = self._make(latent, GraphConfig())
        return self._graphs[latent]

    def _make(self, latent: str, config: GraphConfig) -> DataGraph:
        states = read_frames(self.dynamics, self.frames, latent)
        resting = self.dynamics.space.is_noop(self.action)
        return build_graph(states, self.source, self.source + 1, self.action, config, resting=resting)
