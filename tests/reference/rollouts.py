"""Rollouts written out: one window, one start, one step at a time."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def teacher_forced_slow(model: nn.Module, z: Tensor, actions: Tensor, first: Tensor) -> Tensor:
    """h of one window: z [T,Dz], actions [T-1,A], first [Dh] -> [T,Dh]."""
    hs = [first]
    for t in range(len(actions)):
        hs.append(model.predictor(z[t], hs[-1], actions[t]))
    return torch.stack(hs)


def open_loop_slow(
    model: nn.Module, z: Tensor, h: Tensor, actions: Tensor, t: int, k: int
) -> tuple[Tensor, Tensor]:
    """The states z, h after k self-fed steps from start t of one window."""
    here_z, here_h = z[t], h[t]
    for step in range(k):
        here_h = model.predictor(here_z, here_h, actions[t + step])
        here_z = model.h_to_z(here_h)
    return here_z, here_h


def pose_slow(model: nn.Module, h: Tensor, actions: Tensor, pose_dim: int) -> Tensor:
    """The pose of one window, step by step: h [T,Dh] -> [T,Dp]."""
    ps = [h.new_zeros(pose_dim)]
    for t in range(len(actions)):
        ps.append(ps[-1] + model.p_action_delta_projector(ps[-1], h[t], actions[t]))
    return torch.stack(ps)


def pose_open_loop_slow(
    model: nn.Module, z: Tensor, h: Tensor, p: Tensor, actions: Tensor, t: int, k: int
) -> Tensor:
    """The pose after k self-fed steps from start t of one window."""
    here = p[t]
    for step in range(k):
        _, at_h = open_loop_slow(model, z, h, actions, t, step)
        here = here + model.p_action_delta_projector(here, at_h, actions[t + step])
    return here
