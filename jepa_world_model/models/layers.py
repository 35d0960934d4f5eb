"""Layers that several parts share."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Mlp(nn.Module):
    """One hidden layer over the concatenated inputs: any leading dimensions, [...,sum(in)] -> [...,out]."""

    def __init__(self, inputs: int, hidden: int, out: int) -> None:
        super().__init__()
        self.inner = nn.Linear(inputs, hidden)
        self.outer = nn.Linear(hidden, out)

    def forward(self, *inputs: Tensor) -> Tensor:
        x = inputs[0] if len(inputs) == 1 else torch.cat(inputs, -1)
        return self.outer(nn.functional.silu(self.inner(x)))


def to_sphere(z: Tensor) -> Tensor:
    """Each row at length sqrt(Dz), its direction kept."""
    return nn.functional.normalize(z.float(), dim=-1) * z.shape[-1] ** 0.5
