"""Steps to go over a graph of the data's latents: a distance that knows walls, fast enough to stand inside a search.

Nodes cover the latents that data showed; an edge joins two nodes that some episode led from one to the other, so that
episodes are stitched where they meet and nothing leads through a wall that a straight line would cross.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jepa_world_model.core.errors import UserError
from jepa_world_model.data.episodes import Episodes, rows_of
from jepa_world_model.planning.costs import Measure, ToGo, goal_latent
from jepa_world_model.planning.dynamics import Dynamics, State
from jepa_world_model.planning.graph import merge_states

ROWS_AT_ONCE = (
    128  # of a nearest-node look-up: the scores stay in the cache; 2.4 ms for 2048 rows, at 1024 6.6
)


@dataclass(frozen=True, kw_only=True)
class ReachConfig:
    """How data become a graph. Radii in median moves: the median distance of two frames in a row that differ."""

    merge: float = 0.5  # states nearer than this share a node; near 1 neighbouring cells of a grid would fuse
    hops: int = 4  # frames this many steps apart are joined too: straighter ways; 1: single steps only
    # nodes nearer than this are joined unseen, for sparse data; may lead through thin walls
    join: float = 0.0
    both_ways: bool = False  # what led from one node to another is taken to lead back too
    # with more, `merge` is raised until they fit: each look-up costs a product with all
    max_nodes: int = 2500
    kept_variance: float = 0.9995  # of the latent; the rest is dropped, for speed
    neighbours: int = 6  # nodes that a state's cost is interpolated between
    near: float = 2.0  # a state nearer to the goal than this takes the straight way, which no grid blurs

    def __post_init__(self) -> None:
        if not (self.merge > 0 and self.hops >= 1 and self.join >= 0 and self.near >= 0):
            raise ValueError("merge must be above 0, hops 1 or above, join and near 0 or above")
        if not (0 < self.kept_variance <= 1 and self.neighbours >= 1 and self.max_nodes >= 2):
            raise ValueError("kept_variance must lie in (0, 1], neighbours be 1 and max_nodes 2 or above")


@dataclass(frozen=True)
class ReachGraph:
    """Nodes over the data's latents, and how far each is from another."""

    cfg: ReachConfig
    mean: Tensor  # [D] of the data
    basis: Tensor  # [D,d] the directions that are kept, in units of the median move
    nodes: Tensor  # [K,d]
    near: Tensor  # [K,n] the nodes nearest to each, itself first
    radius: float  # within which states share a node: `merge`, or what it was raised to
    longest: float  # what 999 of 1,000 moves of the data stay below, in median moves
    edges: np.ndarray  # [M,2] from, to
    lengths: np.ndarray  # [M] in median moves

    def to(self, device: torch.device) -> ReachGraph:
        """The same graph with its tensors on a device."""
        if self.nodes.device == device:
            return self
        moved = {name: getattr(self, name).to(device) for name in ("mean", "basis", "nodes", "near")}
        return replace(self, **moved)

    def project(self, latent: Tensor) -> Tensor:
        """Latents [...,D] in the graph's own directions and unit, [...,d]."""
        return (latent - self.mean) @ self.basis

    @cached_property
    def _offset(self) -> Tensor:
        return self.nodes.square().sum(1) / 2

    @cached_property
    def _across(self) -> Tensor:
        return self.nodes.T.contiguous()

    def nearest(self, points: Tensor) -> Tensor:
        """The node nearest to each projected point: [N,d] -> [N]."""
        if points.device.type != "cpu":
            return torch.addmm(self._offset, points, self.nodes.T, alpha=-1).argmin(1)
        found, points = np.empty(len(points), np.int64), points.detach()
        room = torch.empty(min(ROWS_AT_ONCE, len(points)), len(self.nodes))
        for rows in range(0, len(points), ROWS_AT_ONCE):
            some = points[rows : rows + ROWS_AT_ONCE]
            score = torch.addmm(self._offset, some, self._across, alpha=-1, out=room[: len(some)])
            # numpy's argmin is vectorised on the CPU, torch's is not: 0.6 against 8.7 ms for 2048 x 1924.
            score.numpy().argmin(1, out=found[rows : rows + ROWS_AT_ONCE])
        return torch.from_numpy(found)

    @cached_property
    def matrix(self) -> Any:
        """Edges as a sparse matrix [K,K] of lengths."""
        from scipy.sparse import csr_array

        count = len(self.nodes)
        return csr_array((self.lengths, (self.edges[:, 0], self.edges[:, 1])), shape=(count, count))

    def to_go(self, goals: Tensor) -> Tensor:
        """Median moves from every node to each goal, along edges and the last stretch straight: [E,d] -> [E,K].

        Where no edge leads, what the farthest node needs, plus the straight line: still worse than any way.
        """
        from scipy.sparse.csgraph import dijkstra

        ends = self.near[self.nearest(goals)]  # [E,n]
        rest = (self.nodes[ends] - goals[:, None]).norm(dim=-1).cpu().numpy()
        unique, place = np.unique(ends.cpu().numpy(), return_inverse=True)
        ways = dijkstra(self.matrix.T.tocsr(), indices=unique)  # [U,K]
        found = (ways[place.reshape(rest.shape)] + rest[..., None]).min(1)  # [E,K]
        straight = torch.cdist(goals, self.nodes).cpu().numpy()
        farthest = found[np.isfinite(found)].max(initial=0.0)
        found = np.where(np.isfinite(found), found, farthest + straight)
        return torch.from_numpy(found).float().to(goals.device)

    def reachable_share(self) -> float:
        """The share of nodes in the largest part of the graph in which every node leads to every other."""
        from scipy.sparse.csgraph import connected_components

        _, part = connected_components(self.matrix, directed=True, connection="strong")
        return float(np.bincount(part).max() / len(part))


def build_reach(latents: np.ndarray, bounds: np.ndarray, cfg: ReachConfig | None = None) -> ReachGraph:
    """The graph of episodes of latents, one after another.

    Shapes: latents [N,D]; bounds [E,2] first row and length of each episode.
    Errors: UserError where nothing moves.
    """
    cfg = cfg or ReachConfig()
    latents = np.asarray(latents, np.float32)
    mean = latents.mean(0)
    basis = _main_directions(latents - mean, cfg.kept_variance)
    points = (latents - mean) @ basis
    step, longest = _moves(points, bounds)
    points /= step
    radius = cfg.merge
    node_of, first = merge_states(points, radius)
    while len(first) > cfg.max_nodes:
        radius *= 1.25
        node_of, first = merge_states(points, radius)
    nodes = points[first]
    edges = _observed(node_of, bounds, cfg.hops)
    if cfg.both_ways:
        edges = np.unique(np.concatenate([edges, edges[:, ::-1]]), axis=0)
    if cfg.join:
        edges = np.unique(np.concatenate([edges, _joined(nodes, cfg.join)]), axis=0)
    lengths = np.linalg.norm(nodes[edges[:, 0]] - nodes[edges[:, 1]], axis=1)
    count = min(cfg.neighbours, len(nodes))
    tensor = torch.from_numpy(np.ascontiguousarray(nodes))
    near = torch.cdist(tensor, tensor).topk(count, largest=False).indices
    scaled = torch.from_numpy(np.ascontiguousarray(basis / step))
    return ReachGraph(
        cfg, torch.from_numpy(mean), scaled, tensor, near, radius, longest / step, edges, lengths
    )


def _main_directions(centred: np.ndarray, share: float) -> np.ndarray:
    """Orthonormal directions [D,d] that keep this share of the variance."""
    values, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    kept = np.cumsum(values[::-1]) / max(values.sum(), 1e-30)
    return vectors[:, ::-1][:, : int(np.searchsorted(kept, share)) + 1].astype(np.float32)


def _moves(points: np.ndarray, bounds: np.ndarray) -> tuple[float, float]:
    """The distance of two frames in a row, over those that differ at all: its median, and its 99.9th percentile."""
    before = rows_of(np.stack([bounds[:, 0], bounds[:, 1] - 1], 1))
    moved = np.linalg.norm(points[before + 1] - points[before], axis=1)
    moved = moved[moved > 1e-6 * np.abs(points).max()]
    if len(moved) == 0:
        raise UserError("no latent of the data differs from the one before it, so there is no way to search")
    return float(np.median(moved)), float(np.quantile(moved, 0.999))


def _observed(node_of: np.ndarray, bounds: np.ndarray, hops: int) -> np.ndarray:
    """Pairs of nodes [M,2] that an episode led from one to the other within `hops` steps."""
    found = []
    for hop in range(1, hops + 1):
        long = bounds[bounds[:, 1] > hop]
        before = rows_of(np.stack([long[:, 0], long[:, 1] - hop], 1))
        found.append(np.stack([node_of[before], node_of[before + hop]], 1))
    pairs = np.unique(np.concatenate(found), axis=0)
    return pairs[pairs[:, 0] != pairs[:, 1]]


def _joined(nodes: np.ndarray, radius: float) -> np.ndarray:
    from scipy.spatial import cKDTree

    pairs = cKDTree(nodes).query_pairs(radius, output_type="ndarray").astype(np.int64)
    return np.concatenate([pairs, pairs[:, ::-1]])


@dataclass(frozen=True)
class Told:
    """A latent of chosen episodes."""

    latents: np.ndarray  # [N,D]
    bounds: np.ndarray  # [E,2] first row and length of each episode among them
    rows: np.ndarray  # [N] their rows in the data set


@torch.no_grad()
def latents_of(
    dynamics: Dynamics, episodes: Episodes, name: str, *, frames: int = 20_000, rows_at_once: int = 512
) -> Told:
    """A latent of evenly chosen whole episodes of a data set, with about so many frames.

    Frames are encoded one by one, as a goal is, so that both are told alike.
    """
    count = int(np.clip(frames // max(int(np.median(episodes.lengths)), 1), 1, len(episodes)))
    chosen = np.unique(np.linspace(0, len(episodes) - 1, count).round().astype(np.int64))
    lengths = episodes.lengths[chosen]
    rows = rows_of(episodes.bounds[chosen])
    parts = [
        dynamics.read(dynamics.encode(torch.from_numpy(np.asarray(episodes.frames[part]))), name)
        .cpu()
        .numpy()
        for part in np.array_split(rows, -(-len(rows) // rows_at_once))
    ]
    return Told(np.concatenate(parts), np.stack([np.cumsum(lengths) - lengths, lengths], 1), rows)


@dataclass(frozen=True, kw_only=True)
class GraphDistance:
    """Median moves to the goal along the data's graph, interpolated between the nodes around a state."""

    graph: ReachGraph
    latent: str = "z"  # the latent that the graph was built over
    off: float = 0.5  # cost of leaving the data: times the distance to the nearest node beyond the radius

    def towards(self, dynamics: Dynamics, goal: State) -> Measure:
        """Distances of all nodes once; a state then costs one product with the nodes and a few gathers.

        One step takes off at most the data's longest move: a rollout that claims more went through a wall.
        """
        told = goal_latent(dynamics, goal, self.latent)
        graph = self.graph.to(told.device)
        there = graph.project(told)  # [E,d]
        table = graph.to_go(there)  # [E,K]
        cfg = graph.cfg

        def measure(state: State, episodes: slice) -> Tensor:
            points, mine = graph.project(dynamics.read(state, self.latent)), table[episodes]
            around = graph.near[graph.nearest(points)]  # [N,n]
            far = (graph.nodes[around] - points[:, None]).norm(dim=-1)  # [N,n]
            each = mine.gather(1, around.view(len(mine), -1)).view_as(far)
            weight = (far + 1e-3).pow(-2)
            cost = (weight * each).sum(1) / weight.sum(1) + self.off * (far[:, 0] - graph.radius).clamp(min=0)
            rows = there[episodes].repeat_interleave(len(points) // len(mine), 0)
            straight = (points - rows).norm(dim=-1)
            # Where the straight way takes over it weighs fully at the goal and not at all at the edge.
            share = (straight / cfg.near).clamp(max=1) if cfg.near else torch.ones_like(straight)
            return share * cost + (1 - share) * straight

        # A state may be taken for a node a radius away, so that much of a fall is the graph's own grain.
        return ToGo(measure, graph.longest + graph.radius)
