"""Action algebra on the dynamics state h: local, composable changes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_world_model.core.distributed import ALONE, World
from jepa_world_model.core.graph import View
from jepa_world_model.losses.image_distance import MultiBoxConfig, multi_box
from jepa_world_model.losses.measures import ScaleConfig, changes, hinge, masked_mean, typical_move
from jepa_world_model.losses.reconstruction import pictures
from jepa_world_model.losses.registry import LOSSES, imagined, imagined_changes, warm

CONSTANT_H = "0 for a constant h"


@LOSSES("action_delta_h", family="algebra_h", moves=("h", "delta_h_hat"), trivial=CONSTANT_H)
def action_delta_h(view: View) -> Tensor:
    """State and action tell how h changes.

    Formula: ||(h[t+1] - h[t]) - E_h(h[t], a[t])||^2, both sides live.
    """
    return F.mse_loss(*warm(view, changes(view.h), view.delta_h_hat))


@LOSSES("rollout_kstep_h", family="algebra_h", moves=("rollout",), fixed=("h",), trivial=CONSTANT_H)
def rollout_kstep_h(view: View) -> Tensor:
    """k self-fed steps arrive where k steps over true frames arrive.

    Formula: h_open[t,k] against sg h[t+k], k = 2..K. k = 1 is zero by construction and left out.
    """
    return F.mse_loss(*imagined(view, view.rollout.h, view.fixed.h, first=2))


@LOSSES("rollout_kstep_delta_h", family="algebra_h", moves=("rollout",), fixed=("h",), trivial=CONSTANT_H)
def rollout_kstep_delta_h(view: View) -> Tensor:
    """Each self-fed step changes h as the step over true frames does.

    Formula: h_open[t,k+1] - h_open[t,k] against sg(h[t+k+1] - h[t+k]), k = 1..K-1.
    """
    return F.mse_loss(*imagined_changes(view, view.rollout.h, view.fixed.h))


@LOSSES("additivity_h", family="algebra_h", moves=("h", "delta_h_hat"), trivial=CONSTANT_H)
def additivity_h(view: View) -> Tensor:
    """The changes expected of two actions add up to the change over both steps.

    Formula: E_h(h[t], a[t]) + E_h(h[t+1], a[t+1]) against h[t+2] - h[t], both sides live.
    """
    h, expected = view.h, view.delta_h_hat
    return F.mse_loss(*warm(view, expected[:, :-1] + expected[:, 1:], h[:, 2:] - h[:, :-2]))


@LOSSES("inverse_cycle_h", family="algebra_h", moves=("h_back",), fixed=("h",), trivial=CONSTANT_H)
def inverse_cycle_h(view: View) -> Tensor:
    """An action and then the one that undoes it lead back.

    Formula: f(z_hat[t+1], h[t+1], inverse(sg h[t], a[t])) against sg h[t].
    """
    return F.mse_loss(*warm(view, view.h_back, view.fixed.h[:, :-1]))


@dataclass(frozen=True, kw_only=True)
class MarginConfig:
    """A margin in units of the typical move (the trimmed mean length of changes without no-op)."""

    margin: float = 0.1  # what still counts as nothing (noop_still), or is enough (separation)
    softness: float = 0.05  # width of the hinge's rounded corner; 0: a plain relu, at times without gradient

    def __post_init__(self) -> None:
        if self.margin < 0 or self.softness < 0:
            raise ValueError(f"margin and softness must be 0 or above, got {self.margin} and {self.softness}")


@LOSSES(
    "noop_still_h", family="algebra_h", options=MarginConfig, moves=("h",), fixed=("h",), trivial=CONSTANT_H
)
def noop_still_h(view: View) -> Tensor:
    """A no-op moves h by no more than a margin.

    Formula: mean over no-op steps of hinge(||h[t+1] - h[t]|| - margin), margin in units of the typical move.
    """
    delta, fixed, noop = warm(view, changes(view.h), changes(view.fixed.h), view.batch.noop)
    typical, options = typical_move(fixed, noop, world=view.world), view.options
    excess = delta.norm(dim=-1) - options.margin * typical
    return masked_mean(hinge(excess, options.softness * typical), noop, view.world)


@LOSSES(
    "scale_dh", family="algebra_h", options=ScaleConfig, moves=("h",), trivial="target^2 for a constant h"
)
def scale_dh(view: View) -> Tensor:
    """A move changes h by a given length.

    Formula: (trimmed mean of ||h[t+1] - h[t]|| over steps that are no no-ops - target)^2.
    """
    delta, noop = warm(view, changes(view.h), view.batch.noop)
    return (typical_move(delta, noop, view.options, view.world) - view.options.target).square()


def same_action(actions: Tensor, ids: Tensor, kind: str, world: World = ALONE) -> Tensor:
    """How far the actions of two steps are the same: 1 or 0; continuous ones by a Gaussian of their distance.

    Shapes: actions [N,A], ids [N] -> [N,M], the steps here against those of all processes.
    """
    if kind != "continuous":
        return (ids[:, None] == world.gather(ids)).float()
    distance = torch.cdist(actions, world.gather(actions))
    return torch.exp(-distance.square() / (2 * 0.25**2))  # actions lie in [-1, 1]


def moves_by_action(view: View, delta: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The changes, the mean change of each step's action, which steps are alike, and which are no no-ops.

    Shapes: delta [B,T',D] -> [N,D], [N,D], [N,M], [N] with N = B T' steps here and M of all processes.
    """
    batch = view.batch
    actions, ids, noop = warm(view, batch.actions, batch.action_id, batch.noop)
    delta = delta.flatten(0, 1)
    same = same_action(actions.flatten(0, 1), ids.flatten(), batch.space.kind, view.world)
    return delta, same @ view.world.gather(delta) / same.sum(1, keepdim=True), same, ~noop.flatten()


@LOSSES(
    "action_consistency_h", family="algebra_h", moves=("h",), trivial="0 for one change, whatever the action"
)
def action_consistency_h(view: View) -> Tensor:
    """The same action changes h in the same direction.

    Formula: mean over steps without no-op of 1 - cos(h[t+1] - h[t], mean change of that action in the batch).
    """
    delta, mean, _, moved = moves_by_action(view, *warm(view, changes(view.h)))
    return masked_mean(1 - F.cosine_similarity(delta, mean, dim=-1), moved, view.world)


@dataclass(frozen=True, kw_only=True)
class SeparationConfig(MarginConfig):
    """How far apart the mean changes of different actions have to be, in units of the typical move."""

    margin: float = 1.0  # less counts as not apart


@LOSSES("action_separation_h", family="algebra_h", options=SeparationConfig, moves=("h",), fixed=("h",),
        trivial=CONSTANT_H)  # fmt: skip
def action_separation_h(view: View) -> Tensor:
    """Different actions change h differently.

    Formula: mean over pairs of steps with different actions of hinge(margin - ||mean change a - mean change
    b||), margin in units of the typical move.
    """
    _, mean, same, _ = moves_by_action(view, *warm(view, changes(view.h)))
    typical = typical_move(*warm(view, changes(view.fixed.h), view.batch.noop), world=view.world)
    # The squared distance is offset so that its root has a gradient where two means coincide.
    apart = (torch.cdist(mean, view.world.gather(mean)).square() + 1e-12).sqrt()
    lack = hinge(view.options.margin * typical - apart, view.options.softness * typical)
    return masked_mean(lack, 1 - same, view.world)


@LOSSES("h_smooth", family="algebra_h", moves=("h",), trivial=CONSTANT_H)
def h_smooth(view: View) -> Tensor:
    """h changes little from frame to frame.

    Formula: Huber of ||h[t+1] - h[t]||.
    """
    (length,) = warm(view, changes(view.h).norm(dim=-1))
    return F.huber_loss(length, length.new_zeros(length.shape))


@LOSSES("rollout_recon_h", family="algebra_h", moves=("x_rollout",), fixed=("x",))
def rollout_recon_h(view: View) -> Tensor:
    """What self-fed steps imagine looks like the frame that comes.

    Formula: MSE(decode(z_open[t,k]), x[t+k]), k = 1..K, from constant z; `render_mode` says how it is drawn.
    Every start is drawn at every step: up to K times the cost of `recon`, once for all losses that see it.
    """
    return F.mse_loss(*imagined(view, view.x_rollout, view.fixed.x, first=1))


@LOSSES(
    "rollout_recon_multi_box_h",
    family="algebra_h",
    options=MultiBoxConfig,
    moves=("x_rollout",),
    fixed=("x",),
)
def rollout_recon_multi_box_h(view: View) -> Tensor:
    """What self-fed steps imagine looks like the frame that comes, at every scale.

    Formula: as `rollout_recon_h`, under the multi-box distance.
    """
    drawn, true = imagined(view, view.x_rollout, view.fixed.x, first=1)
    return multi_box(pictures(drawn), pictures(true), view.options)
