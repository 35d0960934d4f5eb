"""Steps to go over a roadmap that the model imagines: it needs no data of the place at hand, only a picture of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch

from jepa_world_model.core.barrier import map_tree
from jepa_world_model.core.errors import UserError
from jepa_world_model.core.rng import Streams
from jepa_world_model.planning.costs import Measure, each_its_own, goal_latent
from jepa_world_model.planning.dynamics import Dynamics, State, device_of, join_rows, num_rows, pick_rows
from jepa_world_model.planning.planners import random_sequences
from jepa_world_model.planning.problem import Problem
from jepa_world_model.planning.reach import GraphDistance, ReachConfig, build_reach

KEPT = 24  # states of each imagined step that later walks may start from


@dataclass(frozen=True, kw_only=True)
class RoadmapConfig:
    """How far and how densely a model imagines the surroundings of a goal."""

    walks: int = 200  # side by side in a round; times rounds and steps: the states of a roadmap
    steps: int = 30  # of a walk
    rounds: int = 5  # the first starts at the goal, the others where few states are; errors add up over all
    apart: float = 3.0  # first moves within which states are counted when starts are chosen
    graph: ReachConfig = field(default_factory=lambda: ReachConfig(both_ways=True))

    def __post_init__(self) -> None:
        if self.walks < 1 or self.steps < 2 or self.rounds < 1 or not 0 < self.apart < math.inf:
            raise ValueError("walks and rounds must be 1, steps 2 or above, apart a finite number above 0")


@torch.no_grad()
def imagine(
    dynamics: Dynamics, goal: State, latent: str, cfg: RoadmapConfig, generator: torch.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Random walks around a goal of one row: latents [N,D], walk by walk; bounds [W,2] first row and length of each."""
    state = map_tree(lambda x: x.expand(cfg.walks, *x.shape[1:]), goal)
    paths, kept, reach = [], [], 0.0
    for _ in range(cfg.rounds):
        problem = Problem(
            score=torch.zeros_like, episodes=1, horizon=cfg.steps, space=dynamics.space, generator=generator, max_norm=1.0
        )  # fmt: skip
        path = [dynamics.read(state, latent)]
        for action in random_sequences(problem, cfg.walks, beta=2.0, hold=0.7)[0].unbind(1):
            state = dynamics.step(state, action)
            path.append(dynamics.read(state, latent))
            rows = torch.randint(cfg.walks, (KEPT,), generator=generator, device=generator.device)
            kept.append(pick_rows(state, rows))
        paths.append(torch.stack(path, 1))  # [walks,steps+1,D]
        reach = reach or cfg.apart * float((path[1] - path[0]).norm(dim=1).median())
        state = _sparse(dynamics, join_rows(kept), latent, cfg.walks, reach, generator)
    every = torch.cat(paths)
    if not every.isfinite().all():
        raise UserError(
            f"what the model imagines within {cfg.rounds * cfg.steps} steps of its own is not finite; use fewer "
            "--roadmap.rounds or --roadmap.steps, or another --cost"
        )
    lengths = np.full(len(every), every.shape[1])
    return every.flatten(0, 1).cpu().numpy(), np.stack([np.cumsum(lengths) - lengths, lengths], 1)


def _sparse(
    dynamics: Dynamics, states: State, latent: str, count: int, reach: float, generator: torch.Generator
) -> State:
    """States drawn evenly over the space that they cover: the more often the fewer others are near."""
    points = dynamics.read(states, latent)
    near = (torch.cdist(points, points) < reach).sum(1).clamp(min=1)  # itself, which rounding may miss
    return pick_rows(states, torch.multinomial(1.0 / near, count, replacement=True, generator=generator))


@dataclass(frozen=True, kw_only=True)
class RoadmapDistance:
    """Median moves to the goal along a graph of what the model imagines around it."""

    cfg: RoadmapConfig = field(default_factory=RoadmapConfig)
    latent: str = "z"
    seed: int = 0  # of the walks

    def towards(self, dynamics: Dynamics, goal: State) -> Measure:
        """A roadmap for each goal; each costs walks * steps * rounds steps of the model."""
        goal_latent(dynamics, goal, self.latent)
        streams, device, measures = Streams(self.seed), device_of(goal), []
        for e in range(num_rows(goal)):
            mine = pick_rows(goal, slice(e, e + 1))
            walks = imagine(dynamics, mine, self.latent, self.cfg, streams.torch("roadmap", e, device))
            graph = GraphDistance(graph=build_reach(*walks, self.cfg.graph), latent=self.latent)
            measures.append(graph.towards(dynamics, mine))
        return each_its_own(measures)
