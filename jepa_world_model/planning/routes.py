"""Following routes: plan once from the first frame to the goal's frame, or look, and plan again when it differs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from jepa_world_model.core.errors import UserError
from jepa_world_model.planning.dynamics import Dynamics
from jepa_world_model.planning.graph import DataGraph, Route
from jepa_world_model.planning.lattice import Lattice, LatticeConfig
from jepa_world_model.planning.pose import read_frames


class Router(Protocol):
    """What finds the way from one latent to another for one episode."""

    latent: str

    def route(self, start: np.ndarray, goal: np.ndarray) -> Route:
        """The way from one latent [D] to another."""
        ...

    def learn(self, here: np.ndarray, action: int, there: np.ndarray) -> None:
        """What an executed action did."""
        ...


@dataclass
class GraphRouter:
    """Ways that the data show."""

    graph: DataGraph
    latent: str = "h"

    def route(self, start: np.ndarray, goal: np.ndarray) -> Route:
        """The shortest observed way."""
        return self.graph.route(start, goal)

    def learn(self, here: np.ndarray, action: int, there: np.ndarray) -> None:
        """A graph of the data holds what there is to know."""


@dataclass
class LatticeRouter:
    """Sums of increments, and the walls that the episode ran into."""

    increments: np.ndarray  # [A,Dp]
    config: LatticeConfig = field(default_factory=LatticeConfig)
    walls: Sequence[tuple[np.ndarray, int]] = ()  # known before the episode begins
    latent: str = "p"

    def __post_init__(self) -> None:
        self.met = list(self.walls)
        self._lattice = Lattice(self.increments, self.config, self.met)

    def route(self, start: np.ndarray, goal: np.ndarray) -> Route:
        """The shortest sum of increments that meets no known wall."""
        return self._lattice.route(start, goal)

    def learn(self, here: np.ndarray, action: int, there: np.ndarray) -> None:
        """A move that left the pose where it was met a wall."""
        if action in self._lattice.actions and np.linalg.norm(there - here) < 0.5 * self._lattice.step:
            self.met.append((here, action))
            self._lattice = Lattice(self.increments, self.config, self.met)


class RoutePolicy:
    """One router an episode; rests once a route is done, or where none was found.

    look: read the latent of every frame; where it lies more than `tolerance` median moves from where the
    route led, tell the router and plan anew. Without it a route is executed with closed eyes.
    step: a median move, in the latent's unit.
    Errors: UserError for actions that are not discrete, or none of which rests.
    """

    def __init__(
        self, dynamics: Dynamics, routers: Sequence[Router], *, look: bool = False, tolerance: float = 0.5,
        step: float = 1.0,
    ) -> None:  # fmt: skip
        space = dynamics.space
        if space.kind != "discrete" or space.noop is None:
            raise UserError(
                f"routes are made of discrete actions, one of which rests; this space is {space.kind} "
                f"with no-op {space.noop}. Use cem, icem, mppi or gradient instead"
            )
        self.dynamics, self.routers, self.look = dynamics, routers, look
        self.off = tolerance * step  # in the latent's unit
        self.latent = routers[0].latent

    def begin(self, frames: Tensor, goals: Tensor) -> None:
        """Plan every episode."""
        self.here = read_frames(self.dynamics, frames.numpy(), self.latent)
        self.goals = read_frames(self.dynamics, goals.numpy(), self.latent)
        if len(frames) != len(self.routers):
            raise ValueError(f"{len(self.routers)} routers for {len(frames)} episodes; give one each")
        self.first: list[Route] = [
            router.route(a, b) for router, a, b in zip(self.routers, self.here, self.goals, strict=True)
        ]
        self.routes, self.into = list(self.first), np.zeros(len(frames), np.int64)

    def act(self) -> Tensor:
        """The next action of each route; rest where it is done or none was found."""
        space = self.dynamics.space
        chosen = [
            route.actions[at] if at < len(route.actions) else space.noop
            for route, at in zip(self.routes, self.into, strict=True)
        ]
        self.last = np.array(chosen)
        return torch.from_numpy(space.encode(self.last))

    def see(self, action: Tensor, frames: Tensor) -> None:
        """Go on; with open eyes, correct."""
        if self.look:
            seen = read_frames(self.dynamics, frames.numpy(), self.latent)
            for e in range(len(self.routes)):
                self._correct(e, seen[e])
            self.here = seen
        else:
            self.into += 1

    def _correct(self, e: int, seen: np.ndarray) -> None:
        route = self.routes[e]
        done = self.into[e] >= len(route.actions)
        if not done:
            self.into[e] += 1
        due = self.goals[e] if done else route.states[self.into[e]]
        if np.linalg.norm(seen - due) <= self.off:
            return
        if not done:
            self.routers[e].learn(self.here[e], int(self.last[e]), seen)
        self.routes[e], self.into[e] = self.routers[e].route(seen, self.goals[e]), 0
