"""Reconstruction: a frame's state shows the frame."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from jepa_world_model.core.graph import View
from jepa_world_model.losses.image_distance import (
    MultiBoxConfig,
    MultiBoxMseConfig,
    MultiGaussConfig,
    PatchConfig,
    multi_box,
    multi_box_mse,
    multi_box_of,
    multi_gauss,
    patch,
)
from jepa_world_model.losses.measures import changes
from jepa_world_model.losses.registry import LOSSES, warm


def pictures(sequence: Tensor) -> Tensor:
    """A sequence [B,T,C,H,W] as pictures [B*T,C,H,W]."""
    return sequence.flatten(0, 1)


@LOSSES("recon", family="reconstruction", moves=("x_hat",), fixed=("x",))
def recon(view: View) -> Tensor:
    """The decoder shows the frame.

    Formula: MSE(x_hat, x).
    """
    return F.mse_loss(view.x_hat, view.fixed.x)


@LOSSES("recon_patch", family="reconstruction", options=PatchConfig, moves=("x_hat",), fixed=("x",))
def recon_patch(view: View) -> Tensor:
    """The decoder shows the frame patch by patch, and works hardest on the patches where it errs most.

    Formula: over half-overlapping patches with L1 error e, the mean of e weighted by (sg e / mean of sg
    e)^beta.
    """
    return patch(pictures(view.x_hat), pictures(view.fixed.x), view.options)


@LOSSES("recon_multi_box", family="reconstruction", options=MultiBoxConfig, moves=("x_hat",), fixed=("x",))
def recon_multi_box(view: View) -> Tensor:
    """The decoder shows the frame at every scale, and works hardest where it errs more than around.

    Formula: per scale of an image pyramid, the mean of the L1 error e weighted by (sg e / avgpool(sg
    e))^beta.
    """
    return multi_box_of(view.x_hat - view.fixed.x, view.options)


@LOSSES(
    "recon_multi_box_mse", family="reconstruction", options=MultiBoxMseConfig, moves=("x_hat",), fixed=("x",)
)
def recon_multi_box_mse(view: View) -> Tensor:
    """The decoder shows the frame at every scale, no place harder than another.

    Formula: mean over the scales of an image pyramid of the MSE.
    """
    return multi_box_mse(pictures(view.x_hat), pictures(view.fixed.x), view.options)


@LOSSES(
    "recon_multi_gauss", family="reconstruction", options=MultiGaussConfig, moves=("x_hat",), fixed=("x",)
)
def recon_multi_gauss(view: View) -> Tensor:
    """The decoder shows the frame at every scale, and works hardest where it errs more than far around.

    Formula: per scale of an image pyramid, the mean of the L1 error e weighted by (sg e / its Gaussian
    mean)^beta.
    """
    return multi_gauss(pictures(view.x_hat), pictures(view.fixed.x), view.options)


@LOSSES("pixel_delta", family="reconstruction", moves=("x_hat",), fixed=("x",))
def pixel_delta(view: View) -> Tensor:
    """What changes between two frames changes in their reconstructions.

    Formula: MSE(x_hat[t+1] - x_hat[t], x[t+1] - x[t]).
    """
    return changes(view.x_hat - view.fixed.x).square().mean()


@LOSSES(
    "pixel_delta_multi_box", family="reconstruction", options=MultiBoxConfig, moves=("x_hat",), fixed=("x",)
)
def pixel_delta_multi_box(view: View) -> Tensor:
    """What changes between two frames changes in their reconstructions, at every scale.

    Formula: the multi-box distance of x_hat[t+1] - x_hat[t] and x[t+1] - x[t].
    """
    return multi_box_of(changes(view.x_hat - view.fixed.x), view.options)


@LOSSES("recon_zhat_multi_box", family="reconstruction", options=MultiBoxConfig, moves=("x_from_z_hat",),
        fixed=("x",))  # fmt: skip
def recon_zhat_multi_box(view: View) -> Tensor:
    """The predicted state shows the next frame.

    Formula: the multi-box distance of decode(z_hat[t+1]), predicted from constant z, and x[t+1].
    """
    drawn, true = warm(view, view.x_from_z_hat, view.fixed.x[:, 1:], first=1)
    return multi_box(pictures(drawn), pictures(true), view.options)
