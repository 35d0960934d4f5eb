"""Numbers that say what a representation holds: probes, ranks, increments by action."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NAN = float("nan")


def linear_probe_r2(
    train: np.ndarray,
    train_target: np.ndarray,
    test: np.ndarray,
    test_target: np.ndarray,
    *,
    ridge: float = 1e-3,
) -> float:
    """Share of the target's variance that a ridge regression fitted on `train` explains on `test`.

    Shapes: train [N,D], train_target [N,S], test [M,D], test_target [M,S]. Mean over targets that vary.
    ridge: penalty in units of one standardised feature's variance; above 0, so that dead features do no harm.
    Returns 1 for a perfect linear code, 0 for the mean of `test`, less for worse; nan without enough samples.
    """
    test_target = np.asarray(test_target, np.float64)
    centred = test_target - test_target.mean(0) if len(test_target) else test_target
    total = (centred**2).sum(0)
    varies = total > 1e-12 * max(1.0, float(np.abs(test_target).max(initial=0.0)) ** 2)
    if len(train) < 2 or len(test) < 2 or not varies.any():
        return NAN
    mean, std = train.mean(0, dtype=np.float64), train.std(0, dtype=np.float64)
    dead = std <= 1e-8 * max(float(std.max()), 1e-30)  # a constant feature says nothing
    scale = np.where(dead, np.inf, std)
    x, base = (train - mean) / scale, train_target.mean(0, dtype=np.float64)
    gram = x.T @ x / len(x) + ridge * np.eye(x.shape[1])
    weight = np.linalg.solve(gram, x.T @ (train_target - base) / len(x))
    error = ((test_target - base - (test - mean) / scale @ weight) ** 2).sum(0)
    return float((1 - error[varies] / total[varies]).mean())


def effective_rank(samples: np.ndarray) -> float:
    """The number of directions the samples really use: exp of the entropy of their singular values.

    Shapes: samples [N,D], centred here. 0 for constant samples, D for an isotropic cloud.
    Source: Roy and Vetterli 2007, The effective rank.
    """
    if len(samples) < 2:
        return NAN
    centred = np.asarray(samples, np.float64) - samples.mean(0, dtype=np.float64)
    wide = len(samples) < centred.shape[1]
    values = np.linalg.svd(centred, compute_uv=False) if wide else _singular(centred)
    if values.sum() <= 1e-9 * max(1.0, float(np.abs(samples).max())):
        return 0.0
    share = values / values.sum()
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def _singular(centred: np.ndarray) -> np.ndarray:
    # The Gram matrix is small however many samples there are; its rounding, about 1e-8, is no direction.
    values = np.sqrt(np.clip(np.linalg.eigvalsh(centred.T @ centred), 0, None))
    return np.where(values > 1e-7 * values.max(initial=0.0), values, 0.0)


def mean_std(samples: np.ndarray) -> float:
    """The mean over features of the standard deviation over samples [N,D]: 0 is a collapse."""
    return float(samples.std(0, dtype=np.float64).mean())


def principal_plane(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The samples on their two principal axes, and the share of variance each axis holds.

    Shapes: samples [N,D] -> [N,2], [2]. A missing second axis is zero; the largest loading is positive.
    """
    centred = np.asarray(samples, np.float64) - samples.mean(0, dtype=np.float64)
    values, axes = np.linalg.eigh(centred.T @ centred)
    values, axes = values[::-1][:2], axes[:, ::-1][:, :2]
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])])
    plane, share = centred @ axes, values / max(float((centred**2).sum()), 1e-30)
    missing = 2 - plane.shape[1]
    return np.pad(plane, ((0, 0), (0, missing))), np.pad(np.clip(share, 0, 1), (0, missing))


@dataclass(frozen=True)
class Increments:
    """What one action does to the pose."""

    action: int
    count: int
    mean: np.ndarray  # [Dp]
    spread: float  # root mean square distance from the mean

    @property
    def length(self) -> float:
        """The length of the mean increment."""
        return float(np.linalg.norm(self.mean))

    @property
    def q(self) -> float:
        """Spread over length: 0 when the action always does the same."""
        return self.spread / self.length if self.length > 0 else float("inf")


def increments_by_action(delta: np.ndarray, action: np.ndarray, *, least: int = 2) -> dict[int, Increments]:
    """Mean and spread of the increments of each action that occurs at least `least` times.

    Shapes: delta [N,Dp], action [N] int.
    """
    found = {}
    for a in np.unique(action):
        mine = delta[action == a].astype(np.float64)
        if len(mine) >= least:
            mean = mine.mean(0)
            spread = float(np.sqrt(((mine - mean) ** 2).sum(1).mean()))
            found[int(a)] = Increments(int(a), len(mine), mean, spread)
    return found


def inverse_ratio(one: np.ndarray, other: np.ndarray) -> float:
    """|mu_L + mu_R| / L, L the mean of the two lengths: 0 when they undo each other, 2 when they agree."""
    length = (np.linalg.norm(one) + np.linalg.norm(other)) / 2
    return float(np.linalg.norm(one + other) / length) if length > 0 else NAN


def noop_ratio(delta: np.ndarray, noop: np.ndarray) -> float:
    """Mean length of a no-op's increment over a move's: delta [N,Dp], noop [N] bool. nan without both."""
    length = np.linalg.norm(delta.astype(np.float64), axis=-1)
    if not noop.any() or noop.all() or length[~noop].mean() == 0:
        return NAN
    return float(length[noop].mean() / length[~noop].mean())


OPPOSITES = (
    ("left", "right"), ("up", "down"), ("north", "south"), ("west", "east"), ("forward", "backward"),
    ("forward", "back"),
)  # fmt: skip


def opposite_actions(names: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of actions whose names say that they undo each other: ("move_left", "move_right") -> (0, 1)."""
    words = [tuple(re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())) for name in names]
    place = {word: number for number, word in reversed(list(enumerate(words)))}
    pairs = []
    for number, word in enumerate(words):
        for one, other in OPPOSITES:
            partner = place.get(tuple(other if part == one else part for part in word))
            if one in word and partner is not None and partner != number:
                pairs.append((number, partner))
    return pairs


def rank_accuracy(distance: np.ndarray, true_distance: np.ndarray) -> tuple[float, float]:
    """How often a distance orders two frames as the true distance to the goal does, and how often time does.

    Shapes: distance, true_distance [B,T], both to the window's last frame, the goal; pairs with equal true
    distance do not count. Time says that the later frame is nearer. A tie scores a half.
    nan, nan without a pair.
    """
    # The goal itself is left out: it is nearest by construction.
    i, j = np.triu_indices(distance.shape[1] - 1, 1)
    truth = np.sign(true_distance[:, i] - true_distance[:, j])
    counts = np.abs(true_distance[:, i] - true_distance[:, j]) > 1e-6
    if not counts.any():
        return NAN, NAN
    guess = np.sign(distance[:, i] - distance[:, j])
    score = np.where(guess == 0, 0.5, guess == truth)
    return float(score[counts].mean()), float((truth == 1)[counts].mean())


def loop_residual(p: np.ndarray, position: np.ndarray, *, gap: int = 2, tolerance: float = 1e-3) -> float:
    """How far apart in pose two frames at the same true position are, over how far two frames elsewhere are.

    Shapes: p [B,T,Dp], position [B,T,S]; pairs in a window, at least `gap` steps apart, a move between.
    0: loops close; 1: the pose does not know that it is back. nan where nothing returns.
    """
    i, j = np.triu_indices(p.shape[1], gap)
    moved = np.abs(np.diff(position, axis=1)).max(-1) > tolerance  # [B,T-1]
    count = np.pad(moved.cumsum(1), ((0, 0), (1, 0)))
    left = count[:, j] > count[:, i]
    same = np.abs(position[:, i] - position[:, j]).max(-1) <= tolerance
    gap_p = np.linalg.norm(p[:, i].astype(np.float64) - p[:, j], axis=-1)
    back, away = same & left, ~same
    if not back.any() or not away.any() or gap_p[away].mean() == 0:
        return NAN
    return float(gap_p[back].mean() / gap_p[away].mean())
