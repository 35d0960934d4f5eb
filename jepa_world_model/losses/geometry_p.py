"""Geometry of the pose: what is nearer, what is the same place; and the steps between two frames."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_world_model.core.distributed import ALONE, World
from jepa_world_model.core.graph import View
from jepa_world_model.losses.measures import TINY, ScaleConfig, changes, hinge, masked_mean, typical_move
from jepa_world_model.losses.registry import LOSSES, warm

NO_INCREMENT = "0 for zero increments"


def frame_pairs(view: View, name: str, frames: int, *, min_gap: int, max_pairs: int) -> tuple[Tensor, Tensor]:
    """Pairs i < j of frames at least `min_gap` apart, at most `max_pairs` a batch, drawn from a stream.

    Shapes: -> i, j [P], the same for every window. Errors: ValueError where no pair is that far apart.
    """
    windows, device = view.batch.frames.shape[0] * view.world.size, view.batch.frames.device
    if frames <= min_gap:
        raise ValueError(
            f"{frames} frames hold no pair {min_gap} steps apart; use a smaller min_gap or a longer seq_len"
        )
    i, j = torch.triu_indices(frames, frames, min_gap, device=device)
    most = max(1, max_pairs // windows)
    if i.numel() > most:
        chosen = torch.randperm(i.numel(), generator=view.generator(name), device=device)[:most]
        i, j = i[chosen], j[chosen]
    return i, j


def mixed_windows(view: View) -> Tensor:
    """For each window another one, or itself by chance: numbers in the whole batch [B], from a stream."""
    episode = view.batch.episode
    windows = episode.shape[0] * view.world.size
    drawn = torch.randperm(windows, generator=view.generator("other_episode"), device=episode.device)
    return view.world.mine(drawn)


def apart(x: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """The distance of the frames of each pair: x [B,T,D], i, j [P] -> [B,P]."""
    # The squared norm is offset so that its root has a gradient where two frames coincide.
    return ((x[:, i] - x[:, j]).square().sum(-1) + 1e-12).sqrt()


@dataclass(frozen=True, kw_only=True)
class RankConfig:
    """Which pairs of frames are ranked, and by how much."""

    margin: float = 0.1  # in units of the mean step
    softness: float = 0.1  # width of the hinge's rounded corner, in units of the mean step; 0: a plain relu
    max_pairs: int = 1024  # a batch; more are subsampled
    same_place: float = 0.25  # z closer than this share of a typical z step counts as the same place

    def __post_init__(self) -> None:
        if self.margin < 0 or self.softness < 0 or self.max_pairs < 1 or self.same_place < 0:
            raise ValueError("margin, softness and same_place must be 0 or above, max_pairs 1 or above")


def rank_counts(
    z: Tensor, noop: Tensor, i: Tensor, j: Tensor, same_place: float, world: World = ALONE
) -> Tensor:
    """Which pairs can be ranked: some move lies between them, and z does not call them the same place.

    Shapes: z [B,T,Dz], noop [B,T-1], i, j [P] -> bool [B,P].
    """
    moves = F.pad((~noop).float().cumsum(1), (1, 0))  # [B,T] moves before each frame
    typical = typical_move(changes(z), noop, ScaleConfig(trim=0.1), world)
    return (apart(z, i, j) > same_place * typical) & (moves[:, j] > moves[:, i])


@LOSSES("geometry_rank_p", family="geometry_p", options=RankConfig, moves=("p",), fixed=("z", "p"),
        trivial="near 0 for a constant drift (a clock)")  # fmt: skip
def geometry_rank_p(view: View) -> Tensor:
    """A later frame is nearer to the window's last frame in pose.

    Formula: for i < j: hinge(margin - (D(p[i], goal) - D(p[j], goal))), goal the last frame, margin in units
    of the mean step. Pairs with only no-ops between them, or at the same place by z, do not count.
    """
    p, fixed, z, noop = warm(view, view.p, view.fixed.p, view.fixed.z, view.batch.noop)
    options = view.options
    i, j = frame_pairs(view, "rank_pairs", p.shape[1], min_gap=1, max_pairs=options.max_pairs)
    distance = ((p - p[:, -1:]).square().sum(-1) + 1e-12).sqrt()  # [B,T]
    step = view.world.average(changes(fixed).norm(dim=-1).mean())
    gap = hinge(options.margin * step - (distance[:, i] - distance[:, j]), options.softness * step)
    counts = rank_counts(z, noop, i, j, options.same_place, view.world)
    return masked_mean(gap, counts, view.world)


@dataclass(frozen=True, kw_only=True)
class ClosureConfig:
    """Which frames are the same place."""

    min_gap: int = 4  # steps between the frames of a pair; nearer ones are alike because they are neighbours
    # tau in units of the median step of z; from 0.3 on neighbours count and the pose folds
    scale: float = 0.1
    max_pairs: int = 4096  # a batch; more are subsampled

    def __post_init__(self) -> None:
        if self.min_gap < 1 or self.scale <= 0 or self.max_pairs < 1:
            raise ValueError("min_gap and max_pairs must be 1 or above, scale above 0")


@LOSSES(
    "loop_closure_p",
    family="geometry_p",
    options=ClosureConfig,
    moves=("p",),
    fixed=("z",),
    trivial=NO_INCREMENT,
)
def loop_closure_p(view: View) -> Tensor:
    """Frames that look like the same place have the same pose.

    Formula: mean over pairs with j - i >= min_gap of exp(-|z[i] - z[j]| / tau) * |p[i] - p[j]|^2, tau = scale
    * median step of z over steps that are no no-ops.
    """
    p, z, noop = warm(view, view.p, view.fixed.z, view.batch.noop)
    options = view.options
    i, j = frame_pairs(
        view, "closure_pairs", p.shape[1], min_gap=options.min_gap, max_pairs=options.max_pairs
    )
    tau = options.scale * typical_move(changes(z), noop, ScaleConfig(statistic="median"), view.world)
    alike = torch.exp(-apart(z, i, j) / tau.clamp(min=TINY))
    return (alike * (p[:, i] - p[:, j]).square().sum(-1)).mean()


@dataclass(frozen=True, kw_only=True)
class PairConfig:
    """How many pairs of frames are compared."""

    max_pairs: int = 4096  # a batch; more are subsampled

    def __post_init__(self) -> None:
        if self.max_pairs < 2:
            raise ValueError(f"max_pairs must be 2 or above, got {self.max_pairs}")


@LOSSES("distance_corr_p", family="geometry_p", options=PairConfig, moves=("p",), fixed=("z",))
def distance_corr_p(view: View) -> Tensor:
    """What is far apart in pose is far apart in z.

    Formula: 1 - correlation of |p[i] - p[j]| and |z[i] - z[j]| over pairs of frames of a window.
    """
    p, z = warm(view, view.p, view.fixed.z)
    i, j = frame_pairs(view, "corr_pairs", p.shape[1], min_gap=1, max_pairs=view.options.max_pairs)
    mean = lambda x: view.world.average(x.mean())
    far_p, far_z = apart(p, i, j), apart(z, i, j)
    far_p, far_z = far_p - mean(far_p), far_z - mean(far_z)
    return 1 - mean(far_p * far_z) / ((mean(far_p.square()) * mean(far_z.square())).sqrt() + TINY)


@dataclass(frozen=True, kw_only=True)
class TemporalDistanceConfig:
    """Steps to go between two frames, as the data show them."""

    expectile: float = 0.1  # 0.5: the mean number of steps seen; towards 0: the shortest way seen
    cap: int = 64  # steps at which frames of other episodes stand
    max_pairs: int = 4096  # a batch, of one episode and as many of two; more are subsampled

    def __post_init__(self) -> None:
        if not 0 < self.expectile < 1:
            raise ValueError(f"expectile must lie in (0, 1), got {self.expectile}")
        if self.cap < 1 or self.max_pairs < 1:
            raise ValueError("cap and max_pairs must be 1 or above")


@LOSSES("temporal_distance", family="geometry_p", options=TemporalDistanceConfig, fixed=("z",),
        heads=("temporal_distance",))  # fmt: skip
def temporal_distance(view: View) -> Tensor:
    """Two frames tell how many steps lead from the first to the second, by the shortest way seen.

    Formula: expectile loss |tau - [u < 0]| u^2 of u = log(1 + steps) - q(sg z[i], sg z[j]), i < j of one
    window; against frames of other episodes steps = cap. Asymmetric: only the direction of time is a way.
    """
    z, episode, options = view.fixed.z, view.batch.episode, view.options
    q = view.model.temporal_distance
    i, j = frame_pairs(view, "steps_pairs", z.shape[1], min_gap=1, max_pairs=options.max_pairs)
    other = mixed_windows(view)
    near = torch.log1p((j - i).float()) - q(z[:, i], z[:, j])  # [B,P]
    far = math.log1p(options.cap) - q(z[:, i], view.world.gather(z)[other][:, j])
    stranger = episode != view.world.gather(episode)[other]
    known = torch.stack([torch.ones_like(stranger), stranger])  # [2,B]
    error = torch.stack([near, far])  # [2,B,P]
    weight = torch.where(error < 0, 1 - options.expectile, options.expectile)
    return masked_mean(weight * error.square(), known[..., None].expand_as(error), view.world)
