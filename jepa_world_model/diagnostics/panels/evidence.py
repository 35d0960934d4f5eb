"""What the panels look at: arrays taken once from a model on the fixed evaluation batch. No model beyond this point.

Sizes: B windows of T frames, P columns of a true place (the first two are its position), S action sequences
imagined from N starts, K self-fed steps. Latents go by name: "z", "h" and "p", as far as the model has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from jepa_world_model.data.batch import ActionSpace
from jepa_world_model.diagnostics.panels.panel import MissingError

Latents = Mapping[str, np.ndarray]
TINY = 1e-9  # a mean distance below this is none


@dataclass(frozen=True, kw_only=True)
class Imagined:
    """Action sequences of L steps imagined from N starts, and where they really lead."""

    labels: tuple[str, ...]  # [S]
    latents: Latents  # each [S,N,L+1,D], the start first
    places: np.ndarray | None  # [S,N,L+1,P]; None without a simulator
    free: np.ndarray  # [S,N] bool: no step met a wall; all True without a simulator


@dataclass(frozen=True, kw_only=True)
class SelfFed:
    """Rollouts along the actions that were really taken, beside the states of the true frames."""

    open: Latents  # each [K+1,n,D], from n starts
    true: Latents  # each [K+1,n,D]
    action_id: np.ndarray  # [K,n]
    film: np.ndarray | None = None  # [m,K+1,C,H,W] uint8, decoded; None without a decoder
    film_true: np.ndarray | None = None  # [m,K+1,C,H,W] uint8
    pixel_ratio: np.ndarray | None = None  # [K] squared error of the decoded rollout over keeping the picture


@dataclass(frozen=True, kw_only=True)
class OneStep:
    """One step from n true states, as it is and with one input spoilt."""

    now: Latents  # z and h before, each [n,D]
    true: Latents  # z and h after
    after: Latents  # z and h as predicted
    swapped: Latents  # the same with another row's action
    no_memory: np.ndarray | None  # [n,Dz] the z predicted with zeros for h; None where the state has no h


@dataclass(frozen=True, kw_only=True)
class PoseSums:
    """Two increments from one base state, and the two steps that were really integrated; [n,D] each."""

    first_then_second: np.ndarray
    second_then_first: np.ndarray
    differs: np.ndarray  # [n] bool: the two actions are not the same
    integrated: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Laps:
    """One closed way walked again and again with true frames; R ways at once."""

    latents: Latents  # each [R,laps * steps + 1,D]
    places: np.ndarray  # [R,laps * steps + 1,P]
    steps: int  # of one lap
    laps: int


@dataclass(frozen=True, kw_only=True)
class ToGo:
    """Frames of the batch against a few goals: the costs of latents, and the steps that are really to go."""

    steps: np.ndarray  # [M,G]; nan where no way leads
    straight: np.ndarray  # [M,G] distance of the true positions
    costs: Latents  # each [M,G]: "z", "h", "p" (measured), "steps" (learned)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything the panels may look at. Frames before the warm-up of h are left out."""

    space: ActionSpace
    horizon: int  # K
    frames: np.ndarray  # [B,T,C,H,W] uint8
    actions: np.ndarray  # [B,T-1,A] encoded
    action_id: np.ndarray  # [B,T-1]; -1 for continuous actions
    noop: np.ndarray  # [B,T-1] bool
    episode: np.ndarray  # [B]
    places: np.ndarray | None  # [B,T,P] float64; None where the environment does not tell
    layout: np.ndarray  # [B] windows of the same number have the same walls
    latents: Latents  # each [B,T,D], along the true frames; p integrated from 0
    self_fed: SelfFed
    one_step: OneStep
    repeats: Imagined  # one action, repeated
    returns: Imagined | None  # an action and the one that undoes it; None where no names tell
    orders: Imagined | None  # rows 2i and 2i+1: two actions in either order
    norms: Mapping[str, np.ndarray] = field(default_factory=dict)  # each [L+1,n] over a long rollout
    changed: np.ndarray | None = None  # [B,T-1] bool: anything in the told state is another; None: not told
    measured: np.ndarray | None = None  # [B,T,Dp] the pose read off each frame
    pose_sums: PoseSums | None = None
    h_two_steps: tuple[np.ndarray, np.ndarray] | None = None  # [n,Dh] expected from two actions, and true
    laps: Laps | None = None
    to_go: ToGo | None = None

    def latent(self, name: str) -> np.ndarray:
        """A latent [B,T,D]. Errors: MissingError where the model has none."""
        if name not in self.latents:
            raise MissingError(f"a model with {name}")
        return self.latents[name]

    @property
    def position(self) -> np.ndarray:
        """The true position [B,T,2]. Errors: MissingError where the environment does not tell it."""
        if self.places is None:
            raise MissingError("the true position of each frame, which this environment does not tell")
        return self.places[..., :2]

    @cached_property
    def moved(self) -> np.ndarray:
        """[B,T-1] bool: the position changed, or, where that is not told, the action is no no-op."""
        if self.places is None:
            return ~self.noop
        return np.abs(np.diff(self.position, axis=1)).max(-1) > 1e-6

    @cached_property
    def blocked(self) -> np.ndarray | None:
        """[B,T-1] bool: an action that is no no-op and changed nothing; None where states are not told.

        The whole state counts, not the position alone: a turn on the spot meets no wall.
        """
        return None if self.changed is None else ~self.changed & ~self.noop

    @cached_property
    def stride(self) -> float:
        """The median length of a real move, in the world's unit."""
        length = np.linalg.norm(np.diff(self.position, axis=1), axis=-1)[self.moved]
        if not len(length):
            raise MissingError("frames between which something moves")
        return float(np.median(length))

    @cached_property
    def apart(self) -> np.ndarray:
        """True distances between all frames [B*T,B*T]; nan between frames of different walls."""
        flat = self.position.reshape(-1, self.position.shape[-1])
        layout = np.repeat(self.layout, self.position.shape[1])
        return np.where(layout[:, None] == layout, distances(flat), np.nan)

    @cached_property
    def near_in_time(self) -> np.ndarray:
        """[B*T,B*T] bool: the same frame, or the next or last one of its window."""
        B, T = self.noop.shape[0], self.noop.shape[1] + 1
        window, time = np.repeat(np.arange(B), T), np.tile(np.arange(T), B)
        return (window[:, None] == window) & (np.abs(time[:, None] - time) <= 1)

    def flat(self, name: str) -> np.ndarray:
        """A latent of all frames [B*T,D] float64."""
        latent = self.latent(name)
        return latent.reshape(-1, latent.shape[-1]).astype(np.float64)


def distances(rows: np.ndarray) -> np.ndarray:
    """Euclidean distances between all rows [N,D] -> [N,N]."""
    return np.sqrt(squares(rows))


def squares(rows: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances between all rows [N,D] -> [N,N]; exactly 0 between equal rows."""
    rows = np.asarray(rows, np.float64) - np.mean(rows, 0, dtype=np.float64)
    norm = (rows**2).sum(1)
    made = norm[:, None] + norm - 2 * rows @ rows.T
    # Rounding leaves about 1e-16 of the norms where two rows are equal.
    return np.where(made > 1e-12 * (norm[:, None] + norm), made, 0.0)


def share(part: float, whole: float) -> float:
    """A part over a whole; nan where there is no whole."""
    return float(part / whole) if np.isfinite(whole) and whole > TINY else np.nan


def length(vectors: np.ndarray) -> np.ndarray:
    """Euclidean lengths [...,D] -> [...] in float64."""
    return np.linalg.norm(np.asarray(vectors, np.float64), axis=-1)


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's correlation of two samples [N], ties sharing their mean rank; nan where one is constant."""
    good = np.isfinite(one) & np.isfinite(other)
    a, b = _ranks(one[good]), _ranks(other[good])
    if len(a) < 3 or a.std() == 0 or b.std() == 0:
        return np.nan
    return float(((a - a.mean()) * (b - b.mean())).mean() / (a.std() * b.std()))


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[inverse.reshape(-1)]
