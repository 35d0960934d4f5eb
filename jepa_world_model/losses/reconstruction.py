"""Reconstruction: a frame's state shows the frame."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from jepa_world_model.core.graph import View
from jepa_world_model.losses.image_distance import MultiBoxConfig, multi_box
from jepa_world_model.losses.registry import LOSSES


def pictures(sequence: Tensor) -> Tensor:
    """A sequence [B,T,C,H,W] as pictures [B*T,C,H,W]."""
    return sequence.flatten(0, 1)


def change(sequence: Tensor) -> Tensor:
    """The change from frame to frame as pictures: [B,T,C,H,W] -> [B*(T-1),C,H,W]."""
    return pictures(sequence[:, 1:] - sequence[:, :-1])


@LOSSES("recon", family="reconstruction", moves=("x_hat",), fixed=("x",))
def recon(view: View) -> Tensor:
    """The decoder shows the frame. Formula: MSE(x_hat, x)."""
    return F.mse_loss(view.x_hat, view.fixed.x)


@LOSSES("recon_multi_box", family="reconstruction", options=MultiBoxConfig, moves=("x_hat",), fixed=("x",))
def recon_multi_box(view: View) -> Tensor:
    """The decoder shows the frame at every scale, and works hardest where it errs more than around.

    Formula: per scale of an image pyramid, the mean L1 error weighted by (sg e / avgpool(sg e))^beta.
    """
    return multi_box(pictures(view.x_hat), pictures(view.fixed.x), view.options)


@LOSSES("pixel_delta_multi_box", family="reconstruction", options=MultiBoxConfig, moves=("x_hat",), fixed=("x",))
def pixel_delta_multi_box(view: View) -> Tensor:
    """What changes between two frames changes in their reconstructions.

    Formula: the multi-box distance of x_hat[t+1] - x_hat[t] and x[t+1] - x[t].
    """
    return multi_box(change(view.x_hat), change(view.fixed.x), view.options)
