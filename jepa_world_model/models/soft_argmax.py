"""Key points of heat maps on a CPU, by C of our own (soft_argmax.c): each map is read once, forward and backward.

Torch's operations, which encoder.py has for every other device, walk over the maps some twenty times.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from jepa_world_model.core.native import Routine, operator

TINY = 1e-5  # added to a map's variance: a flat map has its point in the middle
KEPT = 4  # numbers of each map that its backward pass needs
TYPES = (torch.float32, torch.bfloat16)


def probe(function: Callable[..., int]) -> tuple[float, ...]:
    """What a function finds of two small pictures' maps: points and gradients, each times a wave."""
    n, cells, maps = 2, 12, 19
    wave = lambda *shape: np.sin(1.7 * np.arange(np.prod(shape), dtype=np.float32)).reshape(shape)
    heat, grid, grad = wave(n, cells, maps), wave(cells, 2), wave(n, 2, maps)
    points, kept, slopes, into = (
        np.zeros(shape, np.float32) for shape in ((n, 2, maps), (n, KEPT, maps), heat.shape, (n, maps))
    )
    sharpness = np.full(1, 3.0, np.float32)
    given = (heat.ctypes.data, 0, grid.ctypes.data, n, cells, maps, sharpness.ctypes.data, TINY, 1)
    own = (points.ctypes.data, kept.ctypes.data)
    function(*given, *own, None, None, None)
    function(*given, *own, grad.ctypes.data, slopes.ctypes.data, into.ctypes.data)
    return tuple(
        float((x * np.cos(wave(*x.shape))).sum()) for x in (points * wave(*points.shape), slopes, into)
    )


SIZE, POINTER, WHOLE = ctypes.c_int64, ctypes.c_void_p, ctypes.c_int
ROUTINE = Routine(
    Path(__file__).with_suffix(".c"),
    [POINTER, WHOLE, POINTER, *[SIZE] * 3, POINTER, ctypes.c_float, WHOLE, *[POINTER] * 5],
    probe,
    expected=(0.75965057, 0.14974130, -0.13011153),
)


def serves(heat: Tensor) -> bool:
    """Whether these maps' points are found here: exported programs and torch.func's transforms stay with torch."""
    plain = not (torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active())
    return heat.device.type == "cpu" and heat.dtype in TYPES and plain and not ROUTINE.missing()


def points_of(heat: Tensor, sharpness: Tensor, grid: Tensor) -> Tensor:
    """The mean position under a softmax over each map brought to mean 0 and size 1.

    heat [N,cells,K], fp32 or bf16; sharpness []; grid [cells,2], where the cells are. Returns [N,2,K], fp32.
    """
    return _Points.apply(heat, sharpness.float(), grid.float().contiguous())


class _Points(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, heat: Tensor, sharpness: Tensor, grid: Tensor) -> Tensor:
        points, kept = soft_argmax(heat, sharpness, grid)
        ctx.save_for_backward(heat, sharpness, grid, points, kept)
        return points

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        slopes, into_sharpness = soft_argmax_back(*ctx.saved_tensors, grad)
        return slopes, into_sharpness.sum(), None


def _find(heat: Tensor, sharpness: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Points [N,2,K] and what the backward pass needs, [N,KEPT,K]."""
    heat, (points, kept) = heat.contiguous(), _found(heat, sharpness, grid)
    ROUTINE(*_given(heat, sharpness, grid), points.data_ptr(), kept.data_ptr(), None, None, None)
    return points, kept


def _found(heat: Tensor, sharpness: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    n, _, maps = heat.shape
    empty = partial(heat.new_empty, dtype=torch.float32)
    return empty((n, 2, maps)), empty((n, KEPT, maps))


def _follow(
    heat: Tensor, sharpness: Tensor, grid: Tensor, points: Tensor, kept: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradient of heat, and that of sharpness map by map, [N,K], from the gradient of the points."""
    heat, points, kept, grad = (x.contiguous() for x in (heat, points, kept, grad))
    slopes, into = _followed(heat, sharpness, grid, points, kept, grad)
    ROUTINE(*_given(heat, sharpness, grid), *(x.data_ptr() for x in (points, kept, grad, slopes, into)))
    return slopes, into


def _followed(
    heat: Tensor, sharpness: Tensor, grid: Tensor, points: Tensor, kept: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor]:
    n, _, maps = points.shape
    return heat.new_empty(heat.shape), points.new_empty((n, maps))


def _given(heat: Tensor, sharpness: Tensor, grid: Tensor) -> tuple[int | float, ...]:
    """Both calls' first arguments."""
    is_half = int(heat.dtype == torch.bfloat16)
    threads = torch.get_num_threads()
    return heat.data_ptr(), is_half, grid.data_ptr(), *heat.shape, sharpness.data_ptr(), TINY, threads


soft_argmax = operator(
    "soft_argmax(Tensor heat, Tensor sharpness, Tensor grid) -> (Tensor, Tensor)", _find, _found
)
soft_argmax_back = operator(
    "soft_argmax_back(Tensor heat, Tensor sharpness, Tensor grid, Tensor points, Tensor kept, Tensor grad)"
    " -> (Tensor, Tensor)", _follow, _followed,
)  # fmt: skip
