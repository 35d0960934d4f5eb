"""Bridges between frame states z and dynamics states h."""

from __future__ import annotations

from torch import Tensor

from jepa_world_model.core.graph import View
from jepa_world_model.losses.registry import LOSSES, state_distance, warm


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
