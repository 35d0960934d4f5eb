"""The loss table of the world model, filled by the family files, and the distances that many losses share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from jepa_world_model.core.graph import View
from jepa_world_model.core.losses import Registry

LOSSES = Registry()


def warm(view: View, *sequences: Tensor) -> tuple[Tensor, ...]:
    """Each sequence [B,T',D] without the frames before `warmup_frames_h`, which count for no h or p loss."""
    return tuple(sequence[:, view.settings.model.warmup_frames_h :] for sequence in sequences)


def state_distance(view: View, z: Tensor, target: Tensor) -> Tensor:
    """The distance between frame states: MSE, or 1 - cosine with `z_norm`.

    Shapes: z, target [...,Dz] -> [].
    """
    if view.settings.model.z_norm:
        return (1 - F.cosine_similarity(z, target, dim=-1)).mean()
    return F.mse_loss(z, target)


def pooled_mse(pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The mean squared difference over every element of all the pairs, whatever their sizes."""
    total = sum(F.mse_loss(a, b, reduction="sum") for a, b in pairs)
    return total / sum(a.numel() for a, _ in pairs)
