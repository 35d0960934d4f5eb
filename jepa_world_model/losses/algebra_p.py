"""Action algebra on the pose p: odometry and its geometry. h enters as a constant unless `pose_delta_detach_h` is off."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_world_model.core.graph import View
from jepa_world_model.losses.registry import LOSSES, pooled_mse, warm

NO_INCREMENT = "0 for zero increments"


@LOSSES("action_delta_dp", family="algebra_p", moves=("delta_p", "delta_p_proto"), trivial=NO_INCREMENT)
def action_delta_dp(view: View) -> Tensor:
    """An action has one pose increment wherever it is taken.

    Formula: ||delta_p[t] - E_p(a[t])||^2, both sides live, so the prototypes train. E_p of a no-op is zero.
    """
    return F.mse_loss(*warm(view, view.delta_p, view.delta_p_proto))


@LOSSES("additivity_dp", family="algebra_p", moves=("delta_p_pair",), fixed=("p",), trivial=NO_INCREMENT)
def additivity_dp(view: View) -> Tensor:
    """Increments add up from any origin and one base state.

    Formula: d0 = g(0, h[t], a[t]), d1 = g(d0, h[t], a[t+1]); d0 + d1 against sg(p[t+2] - p[t]).
    """
    p = view.fixed.p
    return F.mse_loss(*warm(view, view.delta_p_pair, p[:, 2:] - p[:, :-2]))


@LOSSES("rollout_kstep_p", family="algebra_p", moves=("rollout_p",), fixed=("p",), trivial=NO_INCREMENT)
def rollout_kstep_p(view: View) -> Tensor:
    """Integrating along imagined states arrives at the pose integrated along true ones.

    Formula: p_open[t,0] = sg p[t], p_open[t,k+1] = p_open[t,k] + g(p_open[t,k], h_open[t,k], a[t+k]) against sg p[t+k],
    k = 2..K. k = 1 is zero by construction and left out.
    """
    p, steps = view.fixed.p, view.rollout_p
    return pooled_mse([warm(view, steps[k], p[:, k:]) for k in range(2, len(steps))])


@dataclass(frozen=True, kw_only=True)
class ScaleConfig:
    """The typical length of a move."""

    target: float = 1.0  # pose units a move
    statistic: str = "trimmed_mean"  # or "median", which sends its gradient to one sample a step
    trim: float = 0.1  # share left out at each end; 0 is the plain mean, 0.5 leaves nothing

    def __post_init__(self) -> None:
        if self.statistic not in ("trimmed_mean", "median"):
            raise ValueError(f"statistic must be 'trimmed_mean' or 'median', got {self.statistic!r}")
        if not 0 <= self.trim < 0.5:
            raise ValueError(f"trim must lie in [0, 0.5), got {self.trim}")


def trimmed_mean(values: Tensor, valid: Tensor, trim: float) -> Tensor:
    """The mean of the valid values without the share `trim` at each end; 0 where nothing is valid.

    Shapes: values, valid [N] -> []. No data-dependent size, so nothing waits for the device.
    """
    ordered, order = torch.where(valid, values, torch.inf).sort()
    count = valid.sum()
    cut = (trim * count).floor()
    rank = torch.arange(values.numel(), device=values.device)
    kept = (rank >= cut) & (rank < count - cut)
    return torch.where(kept, values[order], 0.0).sum() / kept.sum().clamp(min=1)


def typical_move(delta_p: Tensor, noop: Tensor, options: ScaleConfig) -> Tensor:
    """The typical length of the increments of steps that are no no-ops. Shapes: delta_p [B,T,Dp], noop [B,T] -> []."""
    length, moved = delta_p.norm(dim=-1).flatten(), ~noop.flatten()
    if options.statistic == "median":
        return torch.where(moved, length, torch.nan).nanmedian().nan_to_num()
    return trimmed_mean(length, moved, options.trim)


@LOSSES("scale_dp", family="algebra_p", options=ScaleConfig, moves=("delta_p",), trivial="target^2 for zero increments")
def scale_dp(view: View) -> Tensor:
    """A move has length 1: the anchor that keeps the pose from shrinking away.

    Formula: (trimmed mean of ||delta_p|| over steps that are no no-ops - target)^2.
    """
    delta_p, noop = warm(view, view.delta_p, view.batch.noop)
    return (typical_move(delta_p, noop, view.options) - view.options.target).square()


@dataclass(frozen=True, kw_only=True)
class RankConfig:
    """Which pairs of frames are ranked, and by how much."""

    margin: float = 0.1  # in units of the mean step
    max_pairs: int = 1024  # a batch; more are subsampled
    same_place: float = 0.25  # z closer than this share of a typical z step counts as the same place

    def __post_init__(self) -> None:
        if self.margin < 0 or self.max_pairs < 1 or self.same_place < 0:
            raise ValueError("margin and same_place must be 0 or above, max_pairs 1 or above")


def rank_pairs(view: View) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs i < j of frames with the last frame as goal, and which of them count. Shapes: i, j [P], counts [B,P]."""
    z, noop, options = view.fixed.z, view.batch.noop, view.options
    first = view.settings.model.warmup_frames_h
    i, j = torch.triu_indices(z.shape[1] - first, z.shape[1] - first, 1, device=z.device) + first
    most = max(1, options.max_pairs // z.shape[0])
    if i.numel() > most:
        chosen = torch.randperm(i.numel(), generator=view.generator("rank_pairs"), device=z.device)[:most]
        i, j = i[chosen], j[chosen]
    moves = F.pad((~noop).float().cumsum(1), (1, 0))  # [B,T] moves before each frame
    step = (z[:, 1:] - z[:, :-1]).norm(dim=-1)
    typical = trimmed_mean(step.flatten(), ~noop.flatten(), 0.1)
    apart = (z[:, i] - z[:, j]).norm(dim=-1) > options.same_place * typical
    return i, j, apart & (moves[:, j] > moves[:, i])


@LOSSES("geometry_rank_p", family="algebra_p", options=RankConfig, moves=("p",), fixed=("z", "p"),
        trivial="near 0 for a constant drift (a clock)")  # fmt: skip
def geometry_rank_p(view: View) -> Tensor:
    """A later frame is nearer to the window's last frame in pose.

    Formula: for i < j: relu(margin - (D(p[i], goal) - D(p[j], goal))), goal the last frame, margin in units of the mean
    step. Pairs with only no-ops between them, or at the same place by z, do not count.
    """
    i, j, counts = rank_pairs(view)
    p, fixed = view.p, view.fixed.p
    # The squared norm is offset so that its root has a gradient at the goal itself.
    distance = ((p - p[:, -1:]).square().sum(-1) + 1e-12).sqrt()  # [B,T]
    margin = view.options.margin * (fixed[:, 1:] - fixed[:, :-1]).norm(dim=-1).mean()
    gap = F.relu(margin - (distance[:, i] - distance[:, j]))
    return (gap * counts).sum() / counts.sum().clamp(min=1)
