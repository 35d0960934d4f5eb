"""Action algebra on the dynamics state h: local, composable changes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from jepa_world_model.core.graph import View
from jepa_world_model.losses.registry import LOSSES, pooled_mse, warm

CONSTANT_H = "0 for a constant h"


@LOSSES("action_delta_h", family="algebra_h", moves=("h", "delta_h_hat"), trivial=CONSTANT_H)
def action_delta_h(view: View) -> Tensor:
    """State and action tell how h changes.

    Formula: ||(h[t+1] - h[t]) - E_h(h[t], a[t])||^2, both sides live.
    """
    h, predicted = warm(view, view.h, view.delta_h_hat)
    return F.mse_loss(h[:, 1:] - h[:, :-1], predicted)


@LOSSES("rollout_kstep_h", family="algebra_h", moves=("rollout",), fixed=("h",), trivial=CONSTANT_H)
def rollout_kstep_h(view: View) -> Tensor:
    """k self-fed steps arrive where k steps over true frames arrive.

    Formula: h_open[t,k] against sg h[t+k], k = 2..K. k = 1 is zero by construction and left out.
    """
    h, steps = view.fixed.h, view.rollout.h
    return pooled_mse([warm(view, steps[k], h[:, k:]) for k in range(2, len(steps))])


@LOSSES("rollout_kstep_delta_h", family="algebra_h", moves=("rollout",), fixed=("h",), trivial=CONSTANT_H)
def rollout_kstep_delta_h(view: View) -> Tensor:
    """Each self-fed step changes h as the step over true frames does.

    Formula: h_open[t,k+1] - h_open[t,k] against sg(h[t+k+1] - h[t+k]), k = 1..K-1.
    """
    h, steps, pairs = view.fixed.h, view.rollout.h, []
    for k in range(1, len(steps) - 1):
        later = steps[k + 1]
        pairs.append(warm(view, later - steps[k][:, : later.shape[1]], h[:, k + 1 :] - h[:, k:-1]))
    return pooled_mse(pairs)
