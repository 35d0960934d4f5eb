"""Action algebra on the pose p: odometry. h enters as a constant unless `pose_delta_detach_h` is off."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from jepa_world_model.core.graph import View
from jepa_world_model.losses.measures import TINY, ScaleConfig, changes, masked_mean, typical_move
from jepa_world_model.losses.registry import LOSSES, imagined, warm

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

    Formula: p_open[t,0] = sg p[t], p_open[t,k+1] = p_open[t,k] + g(p_open[t,k], h_open[t,k], a[t+k]) against
    sg p[t+k], k = 2..K. k = 1 is zero by construction and left out.
    """
    return F.mse_loss(*imagined(view, view.rollout_p, view.fixed.p, first=2))


@LOSSES(
    "scale_dp",
    family="algebra_p",
    options=ScaleConfig,
    moves=("delta_p",),
    trivial="target^2 for zero increments",
)
def scale_dp(view: View) -> Tensor:
    """A move has length 1: the anchor that keeps the pose from shrinking away.

    Formula: (trimmed mean of ||delta_p|| over steps that are no no-ops - target)^2.
    """
    delta_p, noop = warm(view, view.delta_p, view.batch.noop)
    return (typical_move(delta_p, noop, view.options, view.world) - view.options.target).square()


@LOSSES("dz_anchor_dp", family="algebra_p", moves=("delta_p",), fixed=("z",), heads=("dz_to_dp_projector",),
        trivial=NO_INCREMENT)  # fmt: skip
def dz_anchor_dp(view: View) -> Tensor:
    """An increment is a linear image of how the frame's state changes.

    Formula: ||delta_p[t] - W(sg z[t+1] - sg z[t])||^2, both sides live, so W trains.
    """
    delta_p, delta_z = warm(view, view.delta_p, changes(view.fixed.z))
    return F.mse_loss(delta_p, view.model.dz_to_dp_projector(delta_z))


@LOSSES("noop_still_dp", family="algebra_p", moves=("delta_p",), trivial=NO_INCREMENT)
def noop_still_dp(view: View) -> Tensor:
    """A no-op does not change the pose.

    Formula: mean over no-op steps of ||delta_p[t]||^2.
    """
    delta_p, noop = warm(view, view.delta_p, view.batch.noop)
    return masked_mean(delta_p.square().sum(-1), noop, view.world)


@LOSSES("inverse_cycle_dp", family="algebra_p", moves=("delta_p", "delta_p_back"), fixed=("delta_p",),
        trivial=NO_INCREMENT)  # fmt: skip
def inverse_cycle_dp(view: View) -> Tensor:
    """An action and then the one that undoes it leave the pose where it was.

    Formula: mean of w[t] * ||delta_p[t] + g(sg p[t+1], h[t+1], inverse(sg h[t], a[t]))||^2, gated by motion:
    w = min(1, sg ||delta_p[t]|| / typical move), since nothing is to be undone where nothing moved.
    """
    delta_p, back, fixed, noop = warm(
        view, view.delta_p, view.delta_p_back, view.fixed.delta_p, view.batch.noop
    )
    typical = typical_move(fixed, noop, world=view.world)
    motion = (fixed.norm(dim=-1) / typical.clamp(min=TINY)).clamp(max=1)
    return (motion * (delta_p + back).square().sum(-1)).mean()


@LOSSES("pose_measure_p", family="algebra_p", fixed=("z", "p"), heads=("pose_measurement",))
def pose_measure_p(view: View) -> Tensor:
    """Any single frame has a pose: the difference of two measurements is the pose integrated between them.

    Formula: m(sg z[t+k]) - m(sg z[t]) against sg(p[t+k] - p[t]), the mean over every pair of frames of a
    window. With e = m(z) - p that is 2 T/(T-1) times the variance of e along the window, so no pair is ever
    formed.
    """
    z, p = warm(view, view.fixed.z, view.fixed.p)
    error = view.model.pose_measurement(z) - p  # [B,T,Dp]
    return 2 * error.var(1, correction=1).mean()


@LOSSES("pose_correct_dp", family="algebra_p", moves=("delta_p",), fixed=("z",), frozen=("pose_measurement",),
        trivial="0 for zero increments, once the measurement is constant")  # fmt: skip
def pose_correct_dp(view: View) -> Tensor:
    """A blocked move is no move: increments follow what the frames before and after measure.

    Formula: delta_p[t] against sg(m(z[t+1]) - m(z[t])). `pose_measure_p` trains m.
    """
    delta_p, measured = warm(view, view.delta_p, changes(view.frozen.pose_measurement(view.fixed.z)))
    return F.mse_loss(delta_p, measured)
