"""SIGReg written out: one direction, one time step and one knot at a time, in double precision."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def epps_pulley_slow(samples: Tensor, knots: int, bound: float) -> Tensor:
    """N times the integral over [-bound, bound] of |phi(t) - exp(-t^2/2)|^2 exp(-t^2/2), by trapezoids.

    Shapes: samples [T,N,M] -> [], the mean over T and M.
    """
    samples, terms = samples.double(), []
    for time in samples:
        for direction in time.T:
            values = []
            for t in torch.linspace(-bound, bound, knots, dtype=torch.float64).tolist():
                phi = torch.exp(1j * t * direction).mean()
                values.append((phi - math.exp(-t * t / 2)).abs() ** 2 * math.exp(-t * t / 2))
            step = 2 * bound / (knots - 1)
            terms.append(len(direction) * step * (sum(values) - (values[0] + values[-1]) / 2))
    return torch.stack(terms).mean()
