"""Inverse dynamics: two consecutive states tell the action between them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from jepa_world_model.core.graph import View
from jepa_world_model.data.batch import Batch
from jepa_world_model.losses.measures import changes
from jepa_world_model.losses.registry import LOSSES, warm


def action_error(batch: Batch, predicted: Tensor) -> Tensor:
    """Cross-entropy for discrete actions, BCE for multi-binary, MSE on normalised continuous ones.

    Shapes: predicted [B,T',A] for the last T' steps -> [].
    """
    kind, steps = batch.space.kind, predicted.shape[1]
    if kind == "discrete":
        return F.cross_entropy(predicted.flatten(0, 1), batch.action_id[:, -steps:].flatten())
    target = batch.actions[:, -steps:]
    if kind == "multi_binary":
        return F.binary_cross_entropy_with_logits(predicted, target)
    return F.mse_loss(predicted, target)


def exact_match(batch: Batch, predicted: Tensor) -> Tensor:
    """The share of steps whose action is told exactly; bits that never change in the batch do not count.

    Continuous actions match within 0.1 of the normalised range. Shapes: predicted [B,T',A] -> [].
    """
    kind, steps = batch.space.kind, predicted.shape[1]
    if kind == "discrete":
        return (predicted.argmax(-1) == batch.action_id[:, -steps:]).float().mean()
    target = batch.actions[:, -steps:]
    if kind == "multi_binary":
        constant = (target == target[:1, :1]).all(1, keepdim=True).all(0, keepdim=True)
        return ((predicted > 0) == (target > 0.5)).logical_or(constant).all(-1).float().mean()
    return ((predicted - target).abs() <= 0.1).all(-1).float().mean()


@LOSSES("inverse_dynamics_z", family="inverse", moves=("z",), heads=("inverse_dynamics_z",))
def inverse_dynamics_z(view: View) -> Tensor:
    """Two consecutive frame states tell the action between them.

    Formula: cross-entropy (discrete), BCE (multi-binary) or MSE (continuous) of head(z[t], z[t+1] - z[t]) and
    a[t].
    """
    z = view.z
    return action_error(view.batch, view.model.inverse_dynamics_z(z[:, :-1], changes(z)))


@LOSSES("inverse_dynamics_h", family="inverse", moves=("h",), heads=("inverse_dynamics_h",))
def inverse_dynamics_h(view: View) -> Tensor:
    """Two consecutive dynamics states tell the action between them.

    Formula: as `inverse_dynamics_z`, on h.
    """
    (h,) = warm(view, view.h)
    return action_error(view.batch, view.model.inverse_dynamics_h(h[:, :-1], changes(h)))


@LOSSES("inverse_dynamics_p", family="inverse", moves=("p",), heads=("inverse_dynamics_p",))
def inverse_dynamics_p(view: View) -> Tensor:
    """Two consecutive poses tell the action between them.

    Formula: as `inverse_dynamics_z`, on p.
    """
    (p,) = warm(view, view.p)
    return action_error(view.batch, view.model.inverse_dynamics_p(p[:, :-1], changes(p)))


@LOSSES("inverse_dynamics_dp", family="inverse", moves=("delta_p",), heads=("inverse_dynamics_dp",))
def inverse_dynamics_dp(view: View) -> Tensor:
    """A pose increment alone tells its action.

    Formula: as `inverse_dynamics_z`, of head(delta_p[t]).
    """
    (delta_p,) = warm(view, view.delta_p)
    return action_error(view.batch, view.model.inverse_dynamics_dp(delta_p))
