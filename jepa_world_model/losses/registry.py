"""The loss table of the world model, filled by the family files, and how its losses take their frames."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from jepa_world_model.core.graph import View
from jepa_world_model.core.losses import Registry

LOSSES = Registry()


def warm(view: View, *sequences: Tensor, first: int = 0) -> tuple[Tensor, ...]:
    """Each sequence [B,T',...] without the frames before `warmup_frames_h`, which count for no h or p loss.

    first: the frame that entry 0 belongs to; a step counts as the frame it starts from.
    Errors: ValueError for windows in which nothing is left.
    """
    skip = max(view.settings.model.warmup_frames_h - first, 0)
    shortest = min(sequence.shape[1] for sequence in sequences)
    if shortest <= skip:
        raise ValueError(
            f"{shortest} entries of a window and a warm-up of {skip} leave none for this loss; "
            "use longer windows (seq_len) or a smaller model.warmup_frames_h"
        )
    return tuple(sequence[:, skip:] for sequence in sequences)


def joined(view: View, steps: Sequence[Tensor]) -> Tensor:
    """Steps of ever fewer starts, one after the other along the second axis, without the warm-up.

    Shapes: steps[i] [B,S_i,...] -> [B,N,...].
    """
    return torch.cat([step[:, view.settings.model.warmup_frames_h :] for step in steps], 1)


def imagined_pairs(
    view: View, steps: Sequence[Tensor], truth: Tensor, *, first: int
) -> list[tuple[Tensor, Tensor]]:
    """For k = first..K the imagined entries and what truly came, where the window holds any.

    Shapes: steps[k] [B,T-k,...], truth [B,T,...] -> pairs of [B,T-k-w,...], w the warm-up.
    Errors: ValueError when no pair is left.
    """
    w = view.settings.model.warmup_frames_h
    pairs = [(steps[k][:, w:], truth[:, k + w :]) for k in range(first, len(steps))]
    return _some(pairs, first)


def imagined(view: View, steps: Sequence[Tensor], truth: Tensor, *, first: int) -> tuple[Tensor, Tensor]:
    """All of `imagined_pairs`, one k after the other along the second axis: two tensors [B,N,...]."""
    made, true = zip(*imagined_pairs(view, steps, truth, first=first), strict=True)
    return torch.cat(made, 1), torch.cat(true, 1)


def imagined_changes(view: View, steps: Sequence[Tensor], truth: Tensor) -> tuple[Tensor, Tensor]:
    """The changes of imagined entries from k to k+1, k = 1..K-1, and the true ones; shapes as `imagined`."""
    w = view.settings.model.warmup_frames_h
    pairs = [
        (steps[k + 1][:, w:] - steps[k][:, w:-1], truth[:, k + 1 + w :] - truth[:, k + w : -1])
        for k in range(1, len(steps) - 1)
        if steps[k].shape[1] > w + 1
    ]
    made, true = zip(*_some(pairs, 2), strict=True)
    return torch.cat(made, 1), torch.cat(true, 1)


def _some(pairs: list[tuple[Tensor, Tensor]], needed: int) -> list[tuple[Tensor, Tensor]]:
    held = [pair for pair in pairs if pair[0].numel()]
    if not held:
        raise ValueError(
            f"this loss needs {needed} self-fed steps, which windows and rollout_horizon do not hold; "
            f"use a rollout_horizon of {needed} or above and longer windows (seq_len)"
        )
    return held
