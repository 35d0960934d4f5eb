"""Predicting the next frame's state."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_world_model.core.graph import View
from jepa_world_model.losses.measures import state_distance
from jepa_world_model.losses.registry import LOSSES, imagined_pairs, warm

CONSTANT_Z = "0 for a constant z"


@LOSSES("jepa", family="core", moves=("z_hat",), fixed=("z",))
def jepa(view: View) -> Tensor:
    """The state predicted from frame t and its action is the encoder's state of frame t+1.

    Formula: d(z_hat[t+1], sg z[t+1]), d the MSE, or 1 - cosine with `z_norm`; mean over every element.
    """
    return state_distance(view, *warm(view, view.z_hat, view.fixed.z[:, 1:], first=1))


@LOSSES("jepa_rep", family="core", moves=("z",), fixed=("z_hat",), trivial=CONSTANT_Z)
def jepa_rep(view: View) -> Tensor:
    """The encoder's state of frame t+1 is one that could be predicted.

    Formula: d(z[t+1], sg z_hat[t+1]). Needs a guard against collapse beside it.
    """
    return state_distance(view, *warm(view, view.z[:, 1:], view.fixed.z_hat, first=1))


@dataclass(frozen=True, kw_only=True)
class OpenLoopConfig:
    """How much each self-fed step counts."""

    weighting: str = "uniform"  # or "linear": step k of K counts k/K, so that late steps weigh more

    def __post_init__(self) -> None:
        if self.weighting not in ("uniform", "linear"):
            raise ValueError(f"weighting must be 'uniform' or 'linear', got {self.weighting!r}")


@LOSSES("jepa_open_loop", family="core", options=OpenLoopConfig, moves=("rollout",), fixed=("z",))
def jepa_open_loop(view: View) -> Tensor:
    """The states predicted over several self-fed steps are the encoder's.

    Formula: mean over k = 1..K of w[k] * d(z_open[t,k], sg z[t+k]), w[k] = 1, or k/K with `weighting`
    "linear".
    """
    pairs = imagined_pairs(view, view.rollout.z, view.fixed.z, first=1)
    linear = view.options.weighting == "linear"
    terms = [
        state_distance(view, *pair) * (k / len(pairs) if linear else 1.0) for k, pair in enumerate(pairs, 1)
    ]
    return torch.stack(terms).mean()
