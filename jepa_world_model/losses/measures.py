"""Distances, lengths and averages that several losses share; sizes never depend on data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_world_model.core.distributed import ALONE, World
from jepa_world_model.core.graph import View

TINY = 1e-8  # keeps a division by a typical length finite where nothing moves


def state_distance(view: View, z: Tensor, target: Tensor) -> Tensor:
    """The distance between frame states: MSE, or 1 - cosine with `z_norm`.

    Shapes: z, target [...,Dz] -> [].
    """
    if view.settings.model.z_norm:
        return (1 - F.cosine_similarity(z, target, dim=-1)).mean()
    return F.mse_loss(z, target)


class _Changes(torch.autograd.Function):
    """x[:, 1:] - x[:, :-1], carried back in one pass: two slices would fill two maps of zeros and add them."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x[:, 1:] - x[:, :-1]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        """Nothing to keep: a difference's gradient depends on no input. torch.func asks for the method all the same."""

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        # Three dimensions: of more a compiler takes the second for channels, and lays the result out channels last.
        flat = grad.flatten(2) if grad.dim() > 3 else grad
        whole = torch.cat([-flat[:, :1], flat[:, :-1] - flat[:, 1:], flat[:, -1:]], 1)
        return whole.view(*whole.shape[:2], *grad.shape[2:])


def changes(sequence: Tensor) -> Tensor:
    """The change from each frame to the next: [B,T,...] -> [B,T-1,...]."""
    return _Changes.apply(sequence)


def masked_mean(values: Tensor, mask: Tensor, world: World = ALONE) -> Tensor:
    """The mean of the values where the mask holds; 0 where it holds nowhere. Shapes: both [...] -> [].

    world: the processes whose rows count together; each may have another number of them.
    """
    return world.total((values * mask).sum()) / world.total(mask.sum()).clamp(min=1)


def hinge(x: Tensor, softness: Tensor | float) -> Tensor:
    """relu(x) with its corner rounded over a width of `softness`: softness * log(1 + exp(x / softness)).

    Where the plain form is exactly zero, this one still has a gradient, however small, so that a claim that
    already holds can be told from a claim that reaches nothing. softness 0 is the plain form.
    """
    if isinstance(softness, float) and softness == 0:
        return F.relu(x)
    width = torch.as_tensor(softness, device=x.device).clamp(min=TINY)
    return F.softplus(x / width) * width


@dataclass(frozen=True, kw_only=True)
class ScaleConfig:
    """The typical length of a move."""

    target: float = 1.0  # in the state's own units
    statistic: str = "trimmed_mean"  # or "median", which sends its gradient to one sample a step
    trim: float = 0.1  # share left out at each end; 0 is the plain mean, 0.5 leaves nothing

    def __post_init__(self) -> None:
        if self.statistic not in ("trimmed_mean", "median"):
            raise ValueError(f"statistic must be 'trimmed_mean' or 'median', got {self.statistic!r}")
        if not 0 <= self.trim < 0.5:
            raise ValueError(f"trim must lie in [0, 0.5), got {self.trim}")
        if self.target <= 0:
            raise ValueError(f"target must be above 0, got {self.target}")


def trimmed_mean(values: Tensor, valid: Tensor, trim: float) -> Tensor:
    """The mean of the valid values without the share `trim` at each end; 0 where nothing is valid.

    Shapes: values, valid [N] -> [].
    """
    ordered = torch.where(valid, values, torch.inf).sort().values
    count = valid.sum()
    cut = (trim * count).floor()
    rank = torch.arange(values.numel(), device=values.device)
    kept = (rank >= cut) & (rank < count - cut)
    return torch.where(kept, ordered, 0.0).sum() / kept.sum().clamp(min=1)


def typical_move(
    delta: Tensor, noop: Tensor, options: ScaleConfig | None = None, world: World = ALONE
) -> Tensor:
    """The typical length of the changes of steps that are no no-ops; 0 where all are.

    Shapes: delta [B,T',D], noop [B,T'] -> []. world: the processes whose steps are looked at together.
    """
    options = options or ScaleConfig()
    length, moved = world.gather(delta.norm(dim=-1)).flatten(), ~world.gather(noop).flatten()
    if options.statistic == "median":
        return torch.where(moved, length, torch.nan).nanmedian().nan_to_num()
    return trimmed_mean(length, moved, options.trim)
