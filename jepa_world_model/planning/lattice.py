"""The pose delta lattice: A* over what each action adds to the pose, through places that no data ever showed."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jepa_world_model.planning.graph import Route


@dataclass(frozen=True, kw_only=True)
class LatticeConfig:
    """The search. Radii in units of the median increment of the actions that move."""

    merge: float = 0.5  # poses nearer than this are one place; near 1 the lattice fuses into a point
    reach: float = 0.75  # a pose this near to the goal arrives; a square lattice leaves no gap above 0.71
    slack: int = 2  # steps searched beyond the first arrival for a pose that is nearer to the goal
    still: float = 0.25  # an action that adds less than this is no move and is left out
    noise: float = 0.1  # directions with less than this share of the main one's length are noise
    max_expanded: int = 20_000  # places looked at before giving up

    def __post_init__(self) -> None:
        for name in ("merge", "reach", "max_expanded"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.slack < 0 or not 0 <= self.still < 1 or not 0 <= self.noise < 1:
            raise ValueError("slack must be 0 or above, still and noise lie in [0, 1)")


class Lattice:
    """Poses that sums of per-action increments reach.

    increments [A,Dp]: what each action adds. Dynamics is nothing but this sum, so a plan may lead where no
    data went; `blocked` moves, (pose [Dp], action), are the only walls it knows.
    Errors: ValueError where no action moves the pose.
    """

    def __init__(
        self,
        increments: np.ndarray,
        config: LatticeConfig | None = None,
        blocked: Sequence[tuple[np.ndarray, int]] = (),
    ) -> None:
        self.config = config or LatticeConfig()
        increments = np.asarray(increments, np.float64)
        length = np.linalg.norm(increments, axis=1)
        if not len(length) or not np.isfinite(length).all() or length.max() <= 1e-9:
            raise ValueError("no action moves the pose, so there is no lattice to search")
        self.step = float(np.median(length[length > self.config.still * length.max()]))
        self.actions = np.flatnonzero(length > self.config.still * self.step)
        self.full = increments
        # Where the actions lead; the other directions of the pose hold what is left of rounding and drift.
        _, size, axes = np.linalg.svd(increments[self.actions], full_matrices=False)
        self.axes = axes[size > self.config.noise * size[0]]  # [d,Dp]
        self.moves = increments[self.actions] @ self.axes.T  # [M,d]
        self.side = self.config.merge * self.step
        self.around = np.array(list(itertools.product((-1, 0, 1), repeat=len(self.axes))))
        self.slopes = self._slopes()
        self.walls = self._walls(blocked)

    def _slopes(self) -> np.ndarray:
        """Linear functions [F,d] that no move raises by more than 1: each bounds the steps to go from below.

        Those of the facets of the moves' convex hull are the tightest. For four moves along two axes their
        maximum is the city-block distance, where the straight line over the longest move is up to 1.4 times
        too low. Where the moves do not surround the origin, the unit directions of the moves and of the
        search itself are all there is.
        """
        longest = np.linalg.norm(self.moves, axis=1).max()
        plain = np.concatenate([self.moves, -self.moves])
        plain = plain / np.linalg.norm(plain, axis=1, keepdims=True) / longest
        if self.moves.shape[1] == 1:
            return plain
        from scipy.spatial import ConvexHull, QhullError

        try:
            hull = ConvexHull(self.moves)
        except (QhullError, ValueError):  # fewer moves than the space has corners
            return plain
        normal, offset = hull.equations[:, :-1], -hull.equations[:, -1]  # normal @ x <= offset
        inside = offset > 1e-9
        return np.concatenate([plain, normal[inside] / offset[inside, None]])

    def _walls(self, blocked: Sequence[tuple[np.ndarray, int]]) -> dict[int, np.ndarray]:
        table: dict[int, list[np.ndarray]] = {}
        for pose, action in blocked:
            table.setdefault(int(action), []).append(np.asarray(pose, np.float64) @ self.axes.T)
        return {action: np.stack(rows) for action, rows in table.items()}

    def at_least(self, way: np.ndarray, radius: float = 0.0) -> float:
        """A lower bound on the steps that cover a way [d] up to a radius: consistent, so A* never reopens."""
        straight = (np.linalg.norm(way) - radius) / np.linalg.norm(self.moves, axis=1).max()
        bound = self.slopes @ way - radius * np.linalg.norm(self.slopes, axis=1)
        return max(0.0, float(straight), float(bound.max()))

    def route(self, start: np.ndarray, goal: np.ndarray) -> Route:
        """The shortest sum of increments from one pose to the other, both [Dp].

        The first arrival need not be the nearest pose of the lattice, so the search goes on for `slack` steps
        more and takes the nearest. An empty plan with `reached` False says why there is none.
        """
        search = _Search(self, np.asarray(start, np.float64), np.asarray(goal, np.float64))
        return search.run()

    def sweep(self, start: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Every pose within `steps` steps of one [Dp], without walls: poses [K,Dp], steps [K]."""
        origin = np.asarray(start, np.float64)
        closed, poses, depths = _Places(self), [origin @ self.axes.T], [0]
        closed.add(poses[0])
        row = 0
        while row < len(poses):
            if depths[row] < steps:
                for move in self.moves:
                    there = poses[row] + move
                    if not closed.near(there):
                        closed.add(there)
                        poses.append(there)
                        depths.append(depths[row] + 1)
            row += 1
        flat = np.stack(poses)
        return origin + (flat - flat[0]) @ self.axes, np.array(depths)


class _Places:
    """Which poses were seen: a hash of the pose in boxes of the merge radius, looked up with its neighbours.

    One box alone would split a place whose visits fall on two sides of a box's edge.
    """

    def __init__(self, lattice: Lattice) -> None:
        self.side, self.around = lattice.side, lattice.around
        self.boxes: dict[tuple[int, ...], list[np.ndarray]] = {}

    def _box(self, pose: np.ndarray) -> np.ndarray:
        return np.floor(pose / self.side).astype(np.int64)

    def add(self, pose: np.ndarray) -> None:
        """Remember a pose [d]."""
        self.boxes.setdefault(tuple(self._box(pose).tolist()), []).append(pose)

    def near(self, pose: np.ndarray) -> bool:
        """Whether a remembered pose lies within the merge radius."""
        for box in (self._box(pose) + self.around).tolist():
            for other in self.boxes.get(tuple(box), ()):
                if ((other - pose) ** 2).sum() < self.side**2:
                    return True
        return False


class _Search:
    """One A* run."""

    def __init__(self, lattice: Lattice, start: np.ndarray, goal: np.ndarray) -> None:
        self.lattice, self.start, self.goal = lattice, start @ lattice.axes.T, goal @ lattice.axes.T
        self.origin = start
        self.reach = lattice.config.reach * lattice.step
        self.poses, self.parent, self.by = [self.start], [-1], [-1]

    def run(self) -> Route:
        """Search, and trace back the nearest arrival."""
        config, closed, best = self.lattice.config, _Places(self.lattice), None
        heap = [(self._bound(self.start), 0, 0, 0)]  # steps in all, -steps done (deep first), number, row
        count, expanded, limit = itertools.count(1), 0, np.inf
        while heap and expanded < config.max_expanded:
            total, done, _, row = heapq.heappop(heap)
            if total > limit:
                break
            pose = self.poses[row]
            if closed.near(pose):
                continue
            closed.add(pose)
            expanded += 1
            far = float(np.linalg.norm(pose - self.goal))
            if far <= self.reach:
                limit = min(limit, total + config.slack)
                if best is None or far < best[0] - 1e-9:
                    best = (far, row)
            for there, action in self._onward(pose):
                if closed.near(there):
                    continue
                self.poses.append(there)
                self.parent.append(row)
                self.by.append(action)
                steps = 1 - done
                heapq.heappush(heap, (steps + self._bound(there), -steps, next(count), len(self.poses) - 1))
        if best is None:
            gave_up = expanded >= config.max_expanded
            why = "the search gave up" if gave_up else "no sum of increments ends near the goal"
            return Route((), False, f"{why} after {expanded} places", expanded=expanded)
        return self._trace(best[1], expanded)

    def _bound(self, pose: np.ndarray) -> float:
        return self.lattice.at_least(self.goal - pose, self.reach)

    def _onward(self, pose: np.ndarray) -> list[tuple[np.ndarray, int]]:
        lattice, found = self.lattice, []
        for action, move in zip(lattice.actions.tolist(), lattice.moves, strict=True):
            walls = lattice.walls.get(action)
            if walls is None or ((walls - pose) ** 2).sum(1).min() >= lattice.side**2:
                found.append((pose + move, action))
        return found

    def _trace(self, row: int, expanded: int) -> Route:
        actions, poses = [], []
        while row >= 0:
            poses.append(self.poses[row])
            actions.append(self.by[row])
            row = self.parent[row]
        flat = np.stack(poses[::-1])
        states = self.origin + (flat - flat[0]) @ self.lattice.axes
        return Route(tuple(actions[-2::-1]), True, "", states, expanded)
