"""Episodes: the one in-memory view of a data set, whichever format it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from jepa_world_model.core.errors import UserError
from jepa_world_model.data.batch import ActionSpace


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """Frames of several episodes one after another, the action after each frame, and where episodes lie.

    `frames` is an array, a memory map, or anything with `shape`, `dtype` and indexing by an array of rows.
    """

    frames: np.ndarray  # [N,C,H,W] uint8
    actions: np.ndarray  # [N,...] raw; row i follows frame i, the last row of an episode is never read
    bounds: np.ndarray  # [E,2] int64: first row and number of frames of each episode
    space: ActionSpace
    states: np.ndarray | None = None  # [N,S] float32, true state of frame i
    name: str = "episodes"
    state_names: tuple[str, ...] = ()
    manifest: dict[str, Any] = field(default_factory=dict)  # where the data came from; empty when unknown

    def __len__(self) -> int:
        """Number of episodes."""
        return len(self.bounds)

    @property
    def lengths(self) -> np.ndarray:
        """[E] frames of each episode."""
        return self.bounds[:, 1]

    def validate(self) -> Episodes:
        """These episodes, or a ValueError with one sentence on what does not fit."""
        shape = tuple(self.frames.shape)
        if len(shape) != 4 or self.frames.dtype != np.uint8:
            raise ValueError(
                f"{self.name}: frames are {self.frames.dtype} {shape}; they must be uint8 [N,C,H,W]"
            )
        if len(self.actions) != shape[0]:
            raise ValueError(
                f"{self.name}: {len(self.actions)} action rows for {shape[0]} frames; store one row a frame "
                "(the last of an episode is padding)"
            )
        if tuple(self.actions.shape[1:]) != self.space.raw_shape:
            raise ValueError(
                f"{self.name}: an action has shape {tuple(self.actions.shape[1:])}; "
                f"{self.space.kind} actions of dim {self.space.dim} have {self.space.raw_shape}"
            )
        if self.bounds.ndim != 2 or self.bounds.shape[1] != 2 or len(self.bounds) == 0:
            raise ValueError(f"{self.name}: no episodes; a data set needs at least one [start, length] pair")
        start, length = self.bounds[:, 0], self.bounds[:, 1]
        if (start < 0).any() or (length < 1).any() or (start + length > shape[0]).any():
            raise ValueError(f"{self.name}: an episode lies outside the {shape[0]} stored frames")
        if (start[1:] < start[:-1] + length[:-1]).any():
            raise ValueError(f"{self.name}: episodes overlap or are out of order")
        if self.states is not None and (self.states.ndim != 2 or len(self.states) != shape[0]):
            raise ValueError(
                f"{self.name}: states have shape {self.states.shape}; they must be [{shape[0]}, S]"
            )
        if self.states is not None and self.state_names and len(self.state_names) != self.states.shape[1]:
            raise ValueError(
                f"{self.name}: {len(self.state_names)} state names for {self.states.shape[1]} columns"
            )
        return self

    def subset(self, episode_ids: Sequence[int] | np.ndarray) -> Episodes:
        """The chosen episodes only; frames stay where they are."""
        return replace(self, bounds=self.bounds[np.asarray(episode_ids, np.int64)])

    def transitions(self, episode_ids: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """Rows whose action is real, so every row of an episode but its last, in order."""
        bounds = self.bounds if episode_ids is None else self.bounds[np.asarray(episode_ids, np.int64)]
        return rows_of(np.stack([bounds[:, 0], bounds[:, 1] - 1], 1))


def rows_of(bounds: np.ndarray) -> np.ndarray:
    """Row numbers of all [start, length] pairs, one after another."""
    start, length = bounds[:, 0], bounds[:, 1]
    before = np.cumsum(length) - length  # rows in earlier episodes
    return np.repeat(start - before, length) + np.arange(length.sum())


def split_episodes(episodes: Episodes, val_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation episode indices, sorted; at least one each unless `val_fraction` is 0."""
    if not 0 <= val_fraction < 1:
        raise UserError(f"val_fraction must lie in [0, 1), got {val_fraction}")
    count = len(episodes)
    if val_fraction == 0:
        return np.arange(count), np.arange(0)
    if count < 2:
        raise UserError(
            f"{episodes.name} has {count} episode, which cannot be split; set val_fraction 0 or "
            "collect more episodes"
        )
    num_val = min(max(round(count * val_fraction), 1), count - 1)
    order = np.random.default_rng([seed, 0x5711]).permutation(count)
    return np.sort(order[num_val:]), np.sort(order[:num_val])


def describe(episodes: Episodes) -> str:
    """The summary printed when a run starts: episodes, lengths, image, actions with counts, states."""
    lengths = episodes.lengths
    _, C, H, W = episodes.frames.shape
    lines = [
        f"data     {episodes.name}: {len(episodes):,} episodes, {int(lengths.sum()):,} frames",
        f"length   min {lengths.min()}, median {int(np.median(lengths))}, max {lengths.max()} frames",
        f"image    {C} x {H} x {W} uint8",
        f"actions  {_describe_actions(episodes)}",
    ]
    if episodes.states is None:
        lines.append("states   not told by this data set")
    else:
        names = episodes.state_names or tuple(f"s{i}" for i in range(episodes.states.shape[1]))
        states = episodes.states[rows_of(episodes.bounds)]
        ranges = zip(names, states.min(0), states.max(0), strict=True)
        lines.append("states   " + ", ".join(f"{n} {low:.4g} to {high:.4g}" for n, low, high in ranges))
    return "\n".join(lines)


def _describe_actions(episodes: Episodes) -> str:
    space, rows = episodes.space, episodes.transitions()
    raw = np.asarray(episodes.actions[rows])
    if len(raw) == 0:
        return f"{space.kind} ({space.dim}), none: every episode has a single frame"
    noop = f"no-op {space.is_noop(raw).mean():.1%}"
    names = space.names or tuple(str(i) for i in range(space.dim))
    if space.kind == "discrete":
        share = np.bincount(raw, minlength=space.dim) / len(raw)
        noop = noop if space.noop is not None else "no-op unknown"
        return f"discrete ({space.dim}): " + _shares(names, share) + f"; {noop}"
    if space.kind == "multi_binary":
        distinct = len(np.unique(space.ids(raw)))
        return (
            f"multi_binary ({space.dim} bits, {distinct} combinations): {_shares(names, raw.mean(0))}; {noop}"
        )
    low, high = raw.min(0), raw.max(0)
    spans = ", ".join(f"{n} {a:.4g} to {b:.4g}" for n, a, b in zip(names, low, high, strict=True))
    return f"continuous ({space.dim}): {spans}; {noop}"


def _shares(names: Sequence[str], share: np.ndarray) -> str:
    return ", ".join(f"{n} {s:.1%}" for n, s in zip(names, share, strict=True))
