"""Predicting the next frame's state."""

from __future__ import annotations

from torch import Tensor

from jepa_world_model.core.graph import View
from jepa_world_model.losses.registry import LOSSES, state_distance, warm


@LOSSES("jepa", family="core", moves=("z_hat",), fixed=("z",))
def jepa(view: View) -> Tensor:
    """The state predicted from frame t and its action is the encoder's state of frame t+1.

    Formula: d(z_hat[t+1], sg z[t+1]), d the MSE, or 1 - cosine with `z_norm`; mean over every element.
    """
    return state_distance(view, *warm(view, view.z_hat, view.fixed.z[:, 1:]))
