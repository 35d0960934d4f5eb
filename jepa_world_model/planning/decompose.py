"""Telling model error from cost error: a model's cost under perfect dynamics, the true cost under a model's dynamics."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jepa_world_model.core.errors import UserError
from jepa_world_model.data.episodes import Episodes
from jepa_world_model.envs.two_rooms import HIGH, LOW
from jepa_world_model.planning.costs import Measure, goal_latent
from jepa_world_model.planning.dynamics import Dynamics, State, join_rows
from jepa_world_model.planning.reach import latents_of
from jepa_world_model.planning.worlds import GridworldWorld, TwoRoomsWorld, World

SPACING = 0.5  # px between the places of a table; a wall's faces lie on it, so that no cell spans a wall


@torch.no_grad()
def places_as_states(model: Dynamics, world: World, places: np.ndarray, rows_at_once: int = 512) -> State:
    """The model's states at places [N,S], each seen as a single frame."""
    parts = [
        model.encode(torch.from_numpy(world.draw(rows)))
        for rows in np.array_split(places, -(-len(places) // rows_at_once))
    ]
    return join_rows(parts)


@dataclass(frozen=True)
class TabulatedCost:
    """A model's cost as perfect dynamics see it: asked at every place of a fine grid, and interpolated.

    Two Rooms with its fixed wall: the grid is the plane. The gridworld: every cell.
    """

    model: Dynamics
    cost: Any  # of the model
    world: World

    @cached_property
    def _grid(self) -> tuple[np.ndarray, State]:
        if isinstance(self.world, GridworldWorld):
            cells = len(self.world.walls)
            places = np.stack(np.meshgrid(np.arange(cells), np.arange(cells)), -1).reshape(-1, 2)
        elif isinstance(self.world, TwoRoomsWorld) and not self.world.random_wall:
            axis = np.arange(LOW, HIGH + SPACING / 2, SPACING)
            xy = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)  # x runs fastest
            places = np.concatenate([xy, np.tile([[32.0, 18.0]], (len(xy), 1))], 1)
        else:
            raise UserError(
                f"a model's cost cannot be tabulated for {self.world.name} with walls that differ"
            )
        return places, places_as_states(self.model, self.world, places)

    @torch.no_grad()
    def _table(self, goal: State, dynamics: Dynamics) -> Tensor:
        """What each place costs for each goal [E,P]."""
        _, states = self._grid
        xy = goal_latent(dynamics, goal, "xy").cpu().numpy().astype(np.float64)
        if isinstance(self.world, TwoRoomsWorld):
            xy = np.concatenate([xy, np.tile([[32.0, 18.0]], (len(xy), 1))], 1)
        else:
            xy = xy.round().astype(np.int64)
        measure = self.cost.towards(self.model, places_as_states(self.model, self.world, xy))
        # Of one goal at a time: a measure takes the states of an episode beside its own goal.
        return torch.stack([measure(states, slice(e, e + 1)) for e in range(len(xy))])

    def towards(self, dynamics: Dynamics, goal: State) -> Measure:
        """Interpolate the table at the true position."""
        table = self._table(goal, dynamics)
        if isinstance(self.world, GridworldWorld):
            return lambda state, episodes: _expected(dynamics, state, table[episodes])
        side = round(table.shape[1] ** 0.5)
        return lambda state, episodes: _bilinear(dynamics.read(state, "xy"), table[episodes], side)


def _expected(dynamics: Dynamics, state: State, table: Tensor) -> Tensor:
    cell = dynamics.read(state, "cell").unflatten(0, (len(table), -1))
    return torch.einsum("esc,ec->es", cell, table).flatten()


def _bilinear(xy: Tensor, table: Tensor, side: int) -> Tensor:
    """Tables [e,side*side] at places [e*S,2]."""
    at = ((xy - LOW) / SPACING).clamp(0, side - 1 - 1e-4).unflatten(0, (len(table), -1))  # [e,S,2]
    low = at.floor()
    share, index = at - low, low.long()
    corner = index[..., 1] * side + index[..., 0]  # [e,S]
    total = torch.zeros_like(share[..., 0])
    for down in (0, 1):
        for right in (0, 1):
            weight = (share[..., 0] if right else 1 - share[..., 0]) * (
                share[..., 1] if down else 1 - share[..., 1]
            )
            total = total + weight * table.gather(1, corner + down * side + right)
    return total.flatten()


class Probed(Dynamics):
    """A model's dynamics with its latent "xy", the position that a linear probe reads off z."""

    def __init__(self, dynamics: Dynamics, weight: Tensor, bias: Tensor, error: float) -> None:
        self.inner, self.weight, self.bias = dynamics, weight, bias
        self.error = error  # root mean square error of the probe, in the world's unit
        self.space, self.latents = dynamics.space, (*dynamics.latents, "xy")
        self.goal_latents = (*dynamics.goal_latents, "xy")

    def encode(self, frames: Tensor) -> State:
        """The model's."""
        return self.inner.encode(frames)

    def step(self, state: State, action: Tensor) -> State:
        """The model's."""
        return self.inner.step(state, action)

    def observe(self, state: State, action: Tensor, frames: Tensor) -> State:
        """The model's."""
        return self.inner.observe(state, action, frames)

    def distance(self, state: State, goal: State) -> Tensor:
        """The model's."""
        return self.inner.distance(state, goal)

    def read(self, state: State, name: str) -> Tensor:
        """The model's latents, and the probed position."""
        if name != "xy":
            return self.inner.read(state, name)
        return self.inner.read(state, self.inner.latents[0]) @ self.weight + self.bias


def with_position(dynamics: Dynamics, episodes: Episodes, *, frames: int = 20_000) -> Probed:
    """Fit a ridge probe from the first latent to the first two true coordinates of a data set's frames.

    Errors: UserError for data that do not tell the true state.
    """
    if episodes.states is None:
        raise UserError(
            f"{episodes.name} does not tell true positions, so the true cost cannot be put on a model"
        )
    told = latents_of(dynamics, episodes, dynamics.latents[0], frames=frames)
    x = torch.from_numpy(told.latents).double()
    y = torch.from_numpy(np.asarray(episodes.states[told.rows], np.float64)[:, :2])
    mean_x, mean_y = x.mean(0), y.mean(0)
    centred = x - mean_x
    ridge = 1e-4 * centred.square().mean() * torch.eye(x.shape[1], dtype=torch.float64)
    weight = torch.linalg.solve(centred.T @ centred / len(x) + ridge, centred.T @ (y - mean_y) / len(x))
    error = (centred @ weight + mean_y - y).square().sum(1).mean().sqrt()
    return Probed(dynamics, weight.float(), (mean_y - mean_x @ weight).float(), float(error))
