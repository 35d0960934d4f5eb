"""Bridges between frame states z and dynamics states h."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from jepa_world_model.core.graph import View
from jepa_world_model.losses.measures import changes, state_distance
from jepa_world_model.losses.registry import LOSSES, warm


@LOSSES("h2z", family="bridges", moves=("z_from_h",), fixed=("z",))
def h2z(view: View) -> Tensor:
    """The dynamics state of a frame reads out as that frame's state, the first frame included.

    Formula: d(h_to_z(h[t]), sg z[t]). For t >= 1 it is the number of `jepa`, computed once.
    """
    return state_distance(view, *warm(view, view.z_from_h, view.fixed.z))


@LOSSES("z2h", family="bridges", moves=("h_from_z",), fixed=("z",), frozen=("h_to_z",))
def z2h(view: View) -> Tensor:
    """A state lifted from a frame to h reads out as that frame again.

    Formula: d(frozen h_to_z(z_to_h(sg z[t])), sg z[t]).
    """
    lifted, z = warm(view, view.h_from_z, view.fixed.z)
    return state_distance(view, view.frozen.h_to_z(lifted), z)


def noop_action(view: View) -> Tensor:
    """The encoded action that rests [A]: the no-op, no bit, the zero vector; zeros where no action rests."""
    space, actions = view.batch.space, view.batch.actions
    if space.kind == "continuous":
        return actions.new_tensor(space.encode(np.zeros(space.dim)))
    rest = actions.new_zeros(space.dim)
    if space.noop is not None:
        rest[space.noop] = 1.0
    return rest


@LOSSES("z2h_init_zero", family="bridges", moves=("h_from_z",), fixed=("z",), frozen=("predictor",))
def z2h_init_zero(view: View) -> Tensor:
    """A lifted state is what the predictor makes of the frame after a cold start.

    Formula: z_to_h(sg z[t]) against sg f(z[t], 0, no-op).
    """
    lifted, z = warm(view, view.h_from_z, view.fixed.z)
    action = noop_action(view).expand(*z.shape[:2], -1)
    return F.mse_loss(lifted, view.frozen.predictor(z, z.new_zeros(lifted.shape), action))


@LOSSES("z2h_match_h", family="bridges", moves=("h_from_z",), fixed=("h",))
def z2h_match_h(view: View) -> Tensor:
    """A state lifted from a frame is the dynamics state that true frames lead to.

    Formula: z_to_h(sg z[t]) against sg h[t], t >= 1: the first is equal by construction.
    """
    return F.mse_loss(*warm(view, view.h_from_z[:, 1:], view.fixed.h[:, 1:], first=1))


@LOSSES("h2z_delta", family="bridges", fixed=("h", "z"), heads=("h2z_delta",))
def h2z_delta(view: View) -> Tensor:
    """A dynamics state tells how the frame's state has just changed.

    Formula: head(sg h[t+1]) against sg(z[t+1] - z[t]).
    """
    h, delta_z = warm(view, view.fixed.h[:, 1:], changes(view.fixed.z))
    return F.mse_loss(view.model.h2z_delta(h), delta_z)
