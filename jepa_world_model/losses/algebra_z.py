"""Action algebra on frame states z. Off by default: it would turn a place into a path.

Every rollout here starts from live z, so the encoder moves whatever `detach_z_from_h_and_p` says.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from jepa_world_model.core.graph import View
from jepa_world_model.losses.image_distance import MultiBoxConfig, multi_box
from jepa_world_model.losses.measures import changes, state_distance
from jepa_world_model.losses.prediction import CONSTANT_Z
from jepa_world_model.losses.reconstruction import pictures
from jepa_world_model.losses.registry import LOSSES, imagined, imagined_changes, joined


@LOSSES(
    "action_delta_z",
    family="algebra_z",
    moves=("z",),
    heads=("z_action_delta_projector",),
    trivial=CONSTANT_Z,
)
def action_delta_z(view: View) -> Tensor:
    """State and action tell how z changes.

    Formula: ||(z[t+1] - z[t]) - E_z(z[t], a[t])||^2, both sides live.
    """
    z = view.z
    return F.mse_loss(changes(z), view.model.z_action_delta_projector(z[:, :-1], view.batch.actions))


@LOSSES("rollout_kstep_z", family="algebra_z", moves=("rollout_live",), fixed=("z",), trivial=CONSTANT_Z)
def rollout_kstep_z(view: View) -> Tensor:
    """k self-fed steps from a live z arrive at the state of the frame that comes.

    Formula: d(z_open[t,k], sg z[t+k]), k = 1..K.
    """
    return state_distance(view, *imagined(view, view.rollout_live.z, view.fixed.z, first=1))


@LOSSES("rollout_recon_z", family="algebra_z", moves=("x_rollout_live",), fixed=("x",))
def rollout_recon_z(view: View) -> Tensor:
    """What self-fed steps from a live z imagine looks like the frame that comes.

    Formula: MSE(decode(z_open[t,k]), x[t+k]), k = 1..K; `render_mode` says how it is drawn.
    Every start is drawn at every step: up to K times the cost of `recon`, once for all losses that see it.
    """
    return F.mse_loss(*imagined(view, view.x_rollout_live, view.fixed.x, first=1))


@LOSSES("rollout_recon_multi_box_z", family="algebra_z", options=MultiBoxConfig, moves=("x_rollout_live",),
        fixed=("x",))  # fmt: skip
def rollout_recon_multi_box_z(view: View) -> Tensor:
    """What self-fed steps from a live z imagine looks like the frame that comes, at every scale.

    Formula: as `rollout_recon_z`, under the multi-box distance.
    """
    drawn, true = imagined(view, view.x_rollout_live, view.fixed.x, first=1)
    return multi_box(pictures(drawn), pictures(true), view.options)


@LOSSES("rollout_recon_delta_z", family="algebra_z", moves=("x_rollout_live",), fixed=("x",))
def rollout_recon_delta_z(view: View) -> Tensor:
    """What changes between two imagined frames is what changes between the true ones.

    Formula: MSE of decode(z_open[t,k+1]) - decode(z_open[t,k]) and x[t+k+1] - x[t+k], k = 1..K-1.
    """
    return F.mse_loss(*imagined_changes(view, view.x_rollout_live, view.fixed.x))


@LOSSES("rollout_recon_multi_box_delta_z", family="algebra_z", options=MultiBoxConfig,
        moves=("x_rollout_live",), fixed=("x",))  # fmt: skip
def rollout_recon_multi_box_delta_z(view: View) -> Tensor:
    """What changes between two imagined frames is what changes between the true ones, at every scale.

    Formula: as `rollout_recon_delta_z`, under the multi-box distance.
    """
    drawn, true = imagined_changes(view, view.x_rollout_live, view.fixed.x)
    return multi_box(pictures(drawn), pictures(true), view.options)


@LOSSES("rollout_project_z", family="algebra_z", moves=("z_again", "rollout_live"), trivial=CONSTANT_Z)
def rollout_project_z(view: View) -> Tensor:
    """An imagined state is the state of the frame it looks like.

    Formula: d(encode(decode(z_open[t,k])), z_open[t,k]), k = 1..K, both sides live.
    """
    return state_distance(view, joined(view, view.z_again), joined(view, view.rollout_live.z[1:]))
