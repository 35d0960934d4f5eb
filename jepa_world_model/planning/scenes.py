"""Steps to go over the data of similar scenes: for each goal a graph of those episodes whose surroundings look like its.

Where walls differ from episode to episode, one graph of all data leads through every wall that some episode did not have.
A goal's picture tells its surroundings, and among many episodes there are some with nearly the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch

from jepa_world_model.data.episodes import Episodes, rows_of
from jepa_world_model.planning.costs import Measure, each_its_own, goal_latent
from jepa_world_model.planning.dynamics import Dynamics, State, num_rows, pick_rows
from jepa_world_model.planning.reach import GraphDistance, ReachConfig, ReachGraph, build_reach

ROWS_AT_ONCE = 512  # frames that are encoded together
WALKS = 200  # whole episodes that tell what actions move
RIDGE = 1e-3  # of the regression, and 1e-3 of it of the covariance: in units of their mean variance


@dataclass(frozen=True, kw_only=True)
class ScenesConfig:
    """How episodes with a goal's surroundings are found, and become a graph."""

    scenes: int = 30  # episodes of a goal's graph: fewer resemble it more, more cover it better
    glances: int = 4  # frames of each episode that tell what stays as it is
    # of 30 walks hardly any passes a door in each direction
    graph: ReachConfig = field(default_factory=lambda: ReachConfig(both_ways=True))

    def __post_init__(self) -> None:
        if self.scenes < 1 or self.glances < 2:
            raise ValueError(f"scenes must be 1 and glances 2 or above, got {self.scenes} and {self.glances}")


def what_stays(glances: np.ndarray) -> np.ndarray:
    """Latents times this [D,D] lie near each other if they differ in what varies within episodes alone.

    glances [E,G,D]: several frames of each episode. The covariance within episodes is whitened, so that a Euclidean
    distance becomes Mahalanobis'.
    """
    within = (glances - glances.mean(1, keepdims=True)).reshape(-1, glances.shape[2]).astype(np.float64)
    floor = RIDGE**2 * glances.reshape(-1, glances.shape[2]).var(0).mean()
    values, vectors = np.linalg.eigh(within.T @ within / len(within))
    return vectors / np.sqrt(values.clip(min=0) + floor)


def what_moves(changes: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """Latents times this [D,A] are places in units of actions: what still surroundings look like is left out.

    The ridge regression of actions [N,A] on the changes [N,D] of the latent that they made; moves that a wall
    held are noise to it.
    """
    changes = changes.astype(np.float64)
    square = changes.T @ changes
    square += RIDGE * np.trace(square) / len(square) * np.eye(len(square))
    return np.linalg.solve(square, changes.T @ actions.astype(np.float64))


@dataclass(frozen=True)
class Scenes:
    """The episodes of a data set as a model sees them."""

    dynamics: Dynamics
    episodes: Episodes
    latent: str = "z"
    cfg: ScenesConfig = field(default_factory=ScenesConfig)

    @torch.no_grad()
    def _seen(self, rows: np.ndarray) -> np.ndarray:
        parts = np.array_split(rows, -(-len(rows) // ROWS_AT_ONCE))
        frames = (torch.from_numpy(np.asarray(self.episodes.frames[part])) for part in parts)
        read = [self.dynamics.read(self.dynamics.encode(some), self.latent) for some in frames]
        return torch.cat(read).cpu().numpy()

    @cached_property
    def _glances(self) -> np.ndarray:
        first, length = self.episodes.bounds[:, :1], self.episodes.bounds[:, 1:]
        rows = first + np.rint(np.linspace(0, 1, self.cfg.glances) * (length - 1)).astype(np.int64)  # [E,G]
        return self._seen(rows.ravel()).reshape(*rows.shape, -1)

    @cached_property
    def _still(self) -> np.ndarray:
        return what_stays(self._glances)

    @cached_property
    def moves(self) -> np.ndarray:
        """`what_moves` in this data [D,A], from evenly chosen episodes."""
        chosen = np.unique(np.linspace(0, len(self.episodes) - 1, WALKS).round().astype(np.int64))
        rows = self.episodes.transitions(chosen)
        actions = self.episodes.space.encode(np.asarray(self.episodes.actions[rows]))
        return what_moves(self._seen(rows + 1) - self._seen(rows), actions)

    def similar(self, latent: np.ndarray) -> np.ndarray:
        """The episodes whose mean glance differs least from a latent [D] in what stays, the nearest first."""
        apart = (self._glances.mean(1) - latent) @ self._still
        return np.argsort(np.square(apart).sum(1), kind="stable")[: self.cfg.scenes]

    def graph(self, latent: np.ndarray) -> ReachGraph:
        """The graph of similar episodes' places; it takes the latent itself."""
        bounds = self.episodes.bounds[self.similar(latent)]
        lengths, moves = bounds[:, 1], self.moves
        places = self._seen(rows_of(bounds)) @ moves
        made = build_reach(places, np.stack([np.cumsum(lengths) - lengths, lengths], 1), self.cfg.graph)
        mean = np.linalg.lstsq(moves.T, made.mean.numpy().astype(np.float64), rcond=None)[0]
        return replace(
            made, mean=torch.from_numpy(mean).float(), basis=torch.from_numpy(moves).float() @ made.basis
        )


@dataclass(frozen=True, kw_only=True)
class ScenesDistance:
    """Median moves to the goal along the graph of the data that look like the goal's surroundings."""

    scenes: Scenes

    def towards(self, dynamics: Dynamics, goal: State) -> Measure:
        """A graph for each goal, of `ScenesConfig.scenes` episodes that are encoded for it."""
        told = goal_latent(dynamics, goal, self.scenes.latent)
        measures = []
        for e in range(num_rows(goal)):
            graph = self.scenes.graph(told[e].cpu().numpy())
            mine = GraphDistance(graph=graph, latent=self.scenes.latent)
            measures.append(mine.towards(dynamics, pick_rows(goal, slice(e, e + 1))))
        return each_its_own(measures)
