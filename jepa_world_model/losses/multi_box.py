"""The multi-box distance on a CPU, by C of our own (multi_box.c): each picture is read once and its gradient written once.

Torch's operations, which image_distance.py has for every other device, walk over all pictures some forty times.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jepa_world_model.core.native import Routine, operator

TINY = 1e-6  # of an error of 1 (black against white): errors below it count as none


def probe(function: Callable[..., int]) -> tuple[float, ...]:
    """What a function finds of two small pictures: their distances, and their gradient times a wave."""
    place = np.arange(2 * 3 * 9 * 10, dtype=np.float32)
    pictures = np.sin(1.7 * place).astype(np.float32).reshape(2, 3, 9, 10)
    distances, slopes = np.empty(2, np.float32), np.empty_like(pictures)
    options = ((4, 3), (2, 3), (2.0, 1.0), (0.5, 1.0))
    _call(function, pictures.shape, options, 5.0, 1, *(x.ctypes.data for x in (pictures, distances, slopes)))
    return (*map(float, distances), float((slopes.ravel() * np.cos(place)).sum()))


SIZE, POINTER, REAL = ctypes.c_int64, ctypes.c_void_p, ctypes.c_float
ROUTINE = Routine(
    Path(__file__).with_suffix(".c"),
    [POINTER, *[SIZE] * 5, *[POINTER] * 4, REAL, REAL, ctypes.c_int, POINTER, POINTER],
    probe,
    expected=(0.63804913, 0.63782918, -0.01538638),
)


def serves(difference: Tensor) -> bool:
    """Whether the distance of these pictures is found here."""
    return difference.device.type == "cpu" and difference.dtype == torch.float32 and not ROUTINE.missing()


def _call(
    function: Callable[..., Any], shape: Sequence[int], options: tuple[Sequence, ...], most: float, threads: int,
    pictures: int, distances: int, slopes: int | None,
) -> None:  # fmt: skip
    """Addresses in, addresses filled. options: kernels, strides, betas and lambdas of the scales."""
    kernels, strides, betas, lambdas = options
    count, channels = len(lambdas), shape[1]
    sizes, reals = ctypes.c_int64 * count, ctypes.c_float * count
    shares = (share / channels for share in lambdas)
    scales = (sizes(*kernels), sizes(*strides), reals(*betas), reals(*shares))
    function(pictures, *shape, count, *scales, TINY, most, threads, distances, slopes)


def _find(
    difference: Tensor, kernels: Sequence[int], strides: Sequence[int], betas: Sequence[float], lambdas: Sequence[float],
    most: float, slopes: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Distances [N] of pictures with this difference [...,C,H,W], fp32, and the gradient of their mean.

    slopes: whether the gradient is wanted; empty where it is not.
    """
    difference = difference.contiguous()
    options = (kernels, strides, betas, lambdas)
    distances, gradient = _found(difference, *options, most, slopes)
    shape = (distances.numel(), *difference.shape[-3:])
    places = (difference.data_ptr(), distances.data_ptr(), gradient.data_ptr() if slopes else None)
    _call(ROUTINE, shape, options, most, torch.get_num_threads(), *places)
    return distances, gradient


def _found(
    difference: Tensor, kernels: Sequence[int], strides: Sequence[int], betas: Sequence[float], lambdas: Sequence[float],
    most: float, slopes: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    distances = difference.new_empty(difference.shape[:-3].numel())
    return distances, difference.new_empty(difference.shape if slopes else 0)


multi_box = operator(
    "multi_box(Tensor difference, int[] kernels, int[] strides, float[] betas, float[] lambdas, float most, bool slopes)"
    " -> (Tensor, Tensor)", _find, _found,
)  # fmt: skip
