"""Inverse dynamics: two consecutive states tell the action between them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from jepa_world_model.core.graph import View
from jepa_world_model.losses.registry import LOSSES, warm


def action_error(view: View, predicted: Tensor) -> Tensor:
    """Cross-entropy for discrete actions, BCE for multi-binary, MSE on normalised continuous ones.

    Shapes: predicted [B,T',A] for the last T' steps -> [].
    """
    kind, steps = view.batch.space.kind, predicted.shape[1]
    if kind == "discrete":
        return F.cross_entropy(predicted.flatten(0, 1), view.batch.action_id[:, -steps:].flatten())
    target = view.batch.actions[:, -steps:]
    if kind == "multi_binary":
        return F.binary_cross_entropy_with_logits(predicted, target)
    return F.mse_loss(predicted, target)


@LOSSES("inverse_dynamics_h", family="inverse", moves=("h",), heads=("inverse_dynamics_h",))
def inverse_dynamics_h(view: View) -> Tensor:
    """Two consecutive dynamics states tell the action between them.

    Formula: cross-entropy (discrete), BCE (multi-binary) or MSE (continuous) of head(h[t], h[t+1] - h[t]) and a[t].
    """
    (h,) = warm(view, view.h)
    return action_error(view, view.model.inverse_dynamics_h(h[:, :-1], h[:, 1:] - h[:, :-1]))
