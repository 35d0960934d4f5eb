"""Graph search over data: states seen before are places, observed transitions are the ways between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class GraphConfig:
    """When two states are one place. Radii in units of the median move between two frames of the data."""

    # Moves differ: in h the shortest between two cells was measured at 0.28 of the median one.
    merge: float = 0.2  # states nearer than this are one node; 0: only equal ones; above 1: neighbours fuse
    attach: float = 0.3  # a start or goal farther than this from every node is not in the graph
    max_states: int = 50_000  # more are refused: the neighbour search would take minutes

    def __post_init__(self) -> None:
        if self.merge < 0 or self.attach < 0 or self.max_states < 2:
            raise ValueError("merge and attach must be 0 or above, max_states 2 or above")


@dataclass(frozen=True)
class Route:
    """What a discrete planner found."""

    actions: tuple[int, ...]  # empty where nothing was found, or nothing is to be done
    reached: bool  # the planner believes that the plan ends at the goal
    why: str = ""  # what stood in the way, in words
    states: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))  # [L+1,D] believed, the start first
    expanded: int = 0  # nodes that the search looked at


def median_move(states: np.ndarray, nexts: np.ndarray, resting: np.ndarray | None = None) -> float:
    """The median distance from a state to the next over moves; resting [N] bool leaves no-ops out.

    Moves against a wall change almost nothing; as long as fewer than half of the moves are such, the median
    is a real move's. Errors: ValueError where nothing moves.
    """
    length = np.linalg.norm(np.asarray(nexts, np.float64) - states, axis=-1)
    if resting is not None:
        length = length[~resting]
    if len(length) == 0 or np.median(length) <= 0:
        raise ValueError("no transition of the data moves the state, so it has no scale to plan in")
    return float(np.median(length))


@dataclass(frozen=True)
class DataGraph:
    """Places and observed ways between them."""

    nodes: np.ndarray  # [K,D], the first state seen of each place
    node_of: np.ndarray  # [N] place of each state of the data
    edges: np.ndarray  # [M,3] from, to, action; one a pair of places, the action seen most often
    step: float  # the median move, in the states' own unit
    config: GraphConfig

    @cached_property
    def _tree(self) -> Any:
        from scipy.spatial import cKDTree

        return cKDTree(self.nodes)

    @cached_property
    def matrix(self) -> Any:
        """The ways as a sparse matrix [K,K] of ones."""
        from scipy.sparse import csr_array

        start, end = self.edges[:, 0], self.edges[:, 1]
        return csr_array((np.ones(len(start)), (start, end)), shape=(len(self.nodes),) * 2)

    @cached_property
    def _action(self) -> dict[tuple[int, int], int]:
        return {(int(a), int(b)): int(action) for a, b, action in self.edges}

    def nearest(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The place nearest to each state, and how far it is in median moves: [...,D] -> [...], [...]."""
        distance, node = self._tree.query(np.asarray(states, np.float64))
        return node, distance / self.step

    def steps_to(self, goal: int) -> np.ndarray:
        """Observed ways from every place to this one, [K]; inf where none leads."""
        from scipy.sparse.csgraph import dijkstra

        return dijkstra(self.matrix.T, indices=goal, unweighted=True)

    def reachable_share(self) -> float:
        """The share of ordered pairs of places that observed ways connect."""
        from scipy.sparse.csgraph import shortest_path

        if len(self.nodes) < 2:
            return 1.0
        finite = np.isfinite(shortest_path(self.matrix, unweighted=True)).sum() - len(self.nodes)
        return float(finite / (len(self.nodes) * (len(self.nodes) - 1)))

    def route(self, start: np.ndarray, goal: np.ndarray) -> Route:
        """The shortest observed way from one state to another, both [D]; an empty plan says why there is none."""
        from scipy.sparse.csgraph import dijkstra

        (begin, end), far = self.nearest(np.stack([start, goal]))
        for name, distance in zip(("start", "goal"), far, strict=True):
            if distance > self.config.attach:
                why = f"the {name} is not in the data: the nearest place is {distance:.2f} median moves away"
                return Route((), False, why)
        distance, before = dijkstra(
            self.matrix, indices=int(begin), unweighted=True, return_predecessors=True
        )
        if not np.isfinite(distance[end]):
            return Route(
                (), False, "no observed way leads from the start to the goal", expanded=len(self.nodes)
            )
        path = [int(end)]
        while path[-1] != begin:
            path.append(int(before[path[-1]]))
        path.reverse()
        actions = tuple(self._action[pair] for pair in pairwise(path))
        return Route(actions, True, "", self.nodes[path], len(self.nodes))


def build_graph(
    states: np.ndarray,
    source: np.ndarray,
    target: np.ndarray,
    action: np.ndarray,
    config: GraphConfig,
    *,
    resting: np.ndarray | None = None,
) -> DataGraph:
    """Places and ways of a data set.

    Shapes: states [N,D]; source, target [M] rows of `states` before and after an action, action [M] int;
    resting [M] bool says which are no-ops. Deterministic: the earlier state of a place stands for it.
    Errors: ValueError for more than `max_states` states, or where nothing moves.
    """  # fmt: skip
    states = np.ascontiguousarray(states, np.float64)
    if len(states) > config.max_states:
        raise ValueError(
            f"{len(states):,} states are more than max_states {config.max_states:,}; "
            "give fewer episodes or raise it"
        )
    step = median_move(states[source], states[target], resting)
    node_of, first = merge_states(states, config.merge * step)
    ways = np.stack([node_of[source], node_of[target], action], 1)
    ways = ways[ways[:, 0] != ways[:, 1]]  # a blocked move is no way
    kinds, count = np.unique(ways, axis=0, return_counts=True)
    order = np.lexsort((-count, kinds[:, 1], kinds[:, 0]))  # of each pair the commonest action first
    kinds = kinds[order]
    _, best = np.unique(kinds[:, :2], axis=0, return_index=True)
    return DataGraph(states[first], node_of, kinds[best], step, config)


def merge_states(states: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Places by radius: each state not yet taken becomes one and takes every free state around it.

    Shapes: states [N,D] -> place of each state [N], the row that stands for each place [K].
    """
    from scipy.spatial import cKDTree

    tree = cKDTree(states)
    node_of = np.full(len(states), -1, np.int64)
    first: list[int] = []
    for row in range(len(states)):
        if node_of[row] >= 0:
            continue
        around = np.asarray(tree.query_ball_point(states[row], radius), np.int64)
        node_of[around[node_of[around] < 0]] = len(first)
        first.append(row)
    return node_of, np.array(first, np.int64)
