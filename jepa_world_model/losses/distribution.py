"""Guards against collapse: what the distribution of z over a batch must look like."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_world_model.core.graph import View
from jepa_world_model.losses.registry import LOSSES


@dataclass(frozen=True, kw_only=True)
class SigregConfig:
    """The Epps-Pulley test over random directions."""

    directions: int = 1024  # unit directions a step; cost is linear in it
    knots: int = 17  # of the trapezoid rule over [-bound, bound]; odd
    bound: float = 3.0  # in standard deviations

    def __post_init__(self) -> None:
        if self.directions < 1 or self.knots < 3 or self.knots % 2 == 0 or self.bound <= 0:
            raise ValueError("directions must be 1 or above, knots odd and 3 or above, bound above 0")


def epps_pulley(samples: Tensor, options: SigregConfig) -> Tensor:
    """N times the weighted squared distance between the empirical characteristic function and the normal one's.

    Shapes: samples [...,N,M], N draws along M directions -> [] (mean over directions and leading axes).
    Source: Balestriero and LeCun 2025, LeJEPA (SIGReg); the integrand is even, so only t >= 0 is summed.
    """
    half = options.knots // 2
    t = torch.linspace(0, options.bound, half + 1, device=samples.device)
    weight = torch.full_like(t, 2 * options.bound / half)  # both halves of the trapezoid rule
    weight[0] = weight[-1] = options.bound / half
    normal = torch.exp(-t.square() / 2)
    angle = samples[..., None] * t  # [...,N,M,knots/2+1]
    real, imaginary = angle.cos().mean(-3), angle.sin().mean(-3)
    error = (real - normal).square() + imaginary.square()
    return samples.shape[-2] * (error * (normal * weight)).sum(-1).mean()


def unit_directions(view: View, name: str, count: int, z: Tensor) -> Tensor:
    """Random unit directions [Dz,count] of this step, from the stream `name`."""
    draws = torch.randn(z.shape[-1], count, generator=view.generator(name), device=z.device)
    return draws / draws.norm(dim=0).clamp(min=math.ulp(1.0))


@LOSSES("sigreg", family="core", options=SigregConfig, moves=("z",),
        trivial="1.05 for a perfect Gaussian, 0.40 N for a collapse")  # fmt: skip
def sigreg(view: View) -> Tensor:
    """Along every direction, z over the batch is a standard normal: no collapse, no wasted dimension.

    Formula: mean over unit directions and time steps of N * int |phi(t) - exp(-t^2/2)|^2 exp(-t^2/2) dt over [-3, 3].
    Source: Balestriero and LeCun 2025, LeJEPA (SIGReg), in fp32, the samples of one time step at a time.
    """
    z = view.z.float()
    directions = unit_directions(view, "sigreg", view.options.directions, z)
    return epps_pulley(z.transpose(0, 1) @ directions, view.options)  # [T,B,M]
