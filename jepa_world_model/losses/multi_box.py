"""The multi-box distance on a CPU, by C of our own (multi_box.c): each picture is read once and its gradient written once.

Torch's operations, which image_distance.py has for every other device, walk over all pictures some forty times.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.native import load

SOURCE = Path(__file__).with_suffix(".c")
TINY = 1e-6  # of an error of 1 (black against white): errors below it count as none
# Of the probe's two pictures: their distances, and their gradient times a wave. A compiler is believed when it finds these.
EXPECTED = (0.63804913, 0.63782918, -0.01538638)


@functools.cache
def _function() -> Callable[..., int] | UserError:
    """`multi_box` of the C source, or why there is none."""
    try:
        function = load(SOURCE).multi_box
    except UserError as error:
        return error
    size, pointer, real = ctypes.c_int64, ctypes.c_void_p, ctypes.c_float
    function.argtypes = [pointer, *[size] * 5, *[pointer] * 4, real, real, ctypes.c_int, pointer, pointer]
    function.restype = ctypes.c_int
    found = probe(function)
    if not np.allclose(found, EXPECTED, rtol=1e-4, atol=1e-6):
        return UserError(f"{SOURCE.name} is compiled to something else here: {found} for {EXPECTED}")
    return function


def probe(function: Callable[..., int]) -> tuple[float, ...]:
    """What a function finds of two small pictures; numpy, so that it may be asked in the middle of anything."""
    place = np.arange(2 * 3 * 9 * 10, dtype=np.float32)
    pictures = np.sin(1.7 * place).astype(np.float32).reshape(2, 3, 9, 10)
    distances, slopes = np.empty(2, np.float32), np.empty_like(pictures)
    options = ((4, 3), (2, 3), (2.0, 1.0), (0.5, 1.0))
    _call(function, pictures.shape, options, 5.0, 1, *(x.ctypes.data for x in (pictures, distances, slopes)))
    return (*map(float, distances), float((slopes.ravel() * np.cos(place)).sum()))


def missing() -> str:
    """Why the distance is not found by C here; empty where it is."""
    function = _function()
    return str(function) if isinstance(function, UserError) else ""


def serves(difference: Tensor) -> bool:
    """Whether the distance of these pictures is found here."""
    return difference.device.type == "cpu" and difference.dtype == torch.float32 and not missing()


def _call(
    function: Callable[..., int], shape: Sequence[int], options: tuple[Sequence, ...], most: float, threads: int,
    pictures: int, distances: int, slopes: int | None,
) -> None:  # fmt: skip
    """Addresses in, addresses filled. options: kernels, strides, betas and lambdas of the scales."""
    kernels, strides, betas, lambdas = options
    count, channels = len(lambdas), shape[1]
    sizes, reals = ctypes.c_int64 * count, ctypes.c_float * count
    shares = (share / channels for share in lambdas)
    scales = (sizes(*kernels), sizes(*strides), reals(*betas), reals(*shares))
    if function(pictures, *shape, count, *scales, TINY, most, threads, distances, slopes):
        raise MemoryError(f"no memory for the distance of pictures {tuple(shape)}")


# Any layout is taken: a compiler that had to see to it would copy the pictures first.
@torch.library.custom_op(
    "jepa_world_model::multi_box", mutates_args=(), device_types="cpu", tags=(torch.Tag.flexible_layout,)
)
def multi_box(
    difference: Tensor, kernels: Sequence[int], strides: Sequence[int], betas: Sequence[float], lambdas: Sequence[float],
    most: float, slopes: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Distances [N] of pictures with this difference [...,C,H,W], fp32, and the gradient of their mean.

    slopes: whether the gradient is wanted; empty where it is not.
    """
    function = _function()
    if isinstance(function, UserError):
        raise function
    difference = difference.contiguous()
    shape = (difference.shape[:-3].numel(), *difference.shape[-3:])
    distances = difference.new_empty(shape[0])
    gradient = torch.empty_like(difference) if slopes else difference.new_empty(0)
    _call(function, shape, (kernels, strides, betas, lambdas), most, torch.get_num_threads(),
          difference.data_ptr(), distances.data_ptr(), gradient.data_ptr() if slopes else None)  # fmt: skip
    return distances, gradient


@multi_box.register_fake
def _(difference, kernels, strides, betas, lambdas, most, slopes):
    laid = difference.new_empty(difference.shape)
    return difference.new_empty(difference.shape[:-3].numel()), laid if slopes else difference.new_empty(0)
