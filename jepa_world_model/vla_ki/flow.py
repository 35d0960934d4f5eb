"""Flow matching: from actions (t = 0) to noise (t = 1), and the Euler sampler back."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_world_model.core.distributed import ALONE, World


@dataclass(frozen=True)
class FlowTargets:
    """K noisy versions of each chunk, and the velocity that leads from the actions to the noise."""

    x_t: Tensor  # [B,K,T,A]
    t: Tensor  # [B,K] in (0, 1]
    u: Tensor  # [B,K,T,A]


def sample_time(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """t ~ Beta(1.5, 1) * 0.999 + 0.001, by the inverse of its distribution function t^1.5."""
    uniform = torch.rand(shape, generator=generator, device=generator.device)
    return uniform ** (1 / 1.5) * 0.999 + 0.001


def flow_targets(
    actions: Tensor, samples: int, generator: torch.Generator, world: World = ALONE
) -> FlowTargets:
    """K draws a chunk: x_t = t * noise + (1 - t) * actions, u = noise - actions. Shapes: actions [B,T,A].

    world: the processes that share the batch row by row; each takes its rows of what is drawn for all.
    """
    shape = (actions.shape[0] * world.size, samples, *actions.shape[1:])
    noise = torch.randn(shape, generator=generator, device=generator.device)[world.rank :: world.size]
    t = sample_time(shape[:2], generator)[world.rank :: world.size]
    mix = t[..., None, None]
    clean = actions[:, None]
    return FlowTargets(mix * noise + (1 - mix) * clean, t, noise - clean)


def time_embedding(t: Tensor, width: int, shortest: float = 4e-3, longest: float = 4.0) -> Tensor:
    """Sines and cosines of t with periods from `shortest` to `longest`. Shapes: t [...] -> [..., width]."""
    share = torch.linspace(0, 1, width // 2, dtype=torch.float64, device=t.device)
    angle = t.double()[..., None] * (2 * math.pi / (shortest * (longest / shortest) ** share))
    return torch.cat([angle.sin(), angle.cos()], -1).float()


def masked_mse(velocity: Tensor, u: Tensor, mask: Tensor, world: World = ALONE) -> Tensor:
    """Mean squared error over the action values that exist; exactly 0 when none does.

    Shapes: velocity, u [B,K,T,A], mask [B,T,A] bool. The mask takes out padded dimensions, steps past the end
    of an episode, and rows without actions. world: the processes whose values count together.
    """
    error = torch.where(mask[:, None], velocity.float() - u, 0.0).square()
    return world.total(error.sum()) / (world.total(mask.sum()) * velocity.shape[1]).clamp(min=1)


def integrate(velocity: Callable[[Tensor, Tensor], Tensor], noise: Tensor, steps: int) -> Tensor:
    """Actions from noise by Euler steps, t = 1 to t = 0. Shapes: noise [B,K,T,A]; velocity(x, t [B,K])."""
    x = noise
    for step in range(steps):
        t = torch.full(noise.shape[:2], 1 - step / steps, device=noise.device)
        x = x - velocity(x, t) / steps
    return x
