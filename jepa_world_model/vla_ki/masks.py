"""Who attends to whom: attention masks and positions from the validity and autoregression of each token."""

from __future__ import annotations

import torch
from torch import Tensor


def attention_mask(valid: Tensor, ar: Tensor) -> Tensor:
    """allowed[i, j]: token i may read token j; ar = 1 starts a block that earlier tokens cannot read.

    Shapes: valid [B,S] bool, ar [B,S] int or bool -> [B,S,S] bool; padded rows and columns are False.
    Source: allowed[i, j] = (c[j] <= c[i]) and both valid, c = cumsum(ar).
    """
    block = ar.long().cumsum(1)
    return (block[:, None, :] <= block[:, :, None]) & valid[:, None, :] & valid[:, :, None]


def positions(valid: Tensor) -> Tensor:
    """The place of each token among the valid ones; padding repeats its left. [B,S] bool -> [B,S] int64."""
    return (valid.long().cumsum(1) - 1).clamp(min=0)


def suffix_mask(visible: Tensor, samples: int, horizon: int) -> Tensor:
    """What the action tokens read: the visible prefix, and all tokens of their own flow sample.

    Shapes: visible [B,P] bool -> [B, samples*horizon, P + samples*horizon] bool.
    """
    rows = samples * horizon
    sample = torch.arange(rows, device=visible.device) // horizon
    own = (sample[:, None] == sample[None, :]).expand(len(visible), rows, rows)
    return torch.cat([visible[:, None, :].expand(-1, rows, -1), own], 2)


def suffix_positions(visible: Tensor, samples: int, horizon: int) -> Tensor:
    """Positions of the action tokens: right behind the visible prefix, whatever FAST tokens there are.

    Shapes: visible [B,P] bool -> [B, samples*horizon] int64.
    """
    steps = torch.arange(horizon, device=visible.device).repeat(samples)
    return visible.long().sum(1, keepdim=True) + steps[None, :]
