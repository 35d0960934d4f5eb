"""The convolutions and matrix products of a function, and nothing else: counted, and run again alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

FUSED = "mkldnn::_convolution_pointwise"  # a convolution that its activation rides on
PRODUCTS = ("convolution", "convolution_backward", "mm", "addmm", "bmm", "baddbmm", FUSED)


class _Calls(TorchDispatchMode):
    """Every product that is run, with what it was called with (shapes, layouts and types, not numbers)."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple, dict]] = []
        self._twins: dict[tuple, Tensor] = {}

    def _twin(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        key = (tuple(value.shape), value.stride(), value.dtype)
        if key not in self._twins:
            twin = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=value.device)
            self._twins[key] = twin.normal_()
        return self._twins[key]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.name().removeprefix("aten::").partition(".")[0] in PRODUCTS:
            self.calls.append((func, tree_map(self._twin, args), tree_map(self._twin, kwargs or {})))
        return func(*args, **(kwargs or {}))


def products_of(function: Callable[[], object]) -> Callable[[], None]:
    """A function that runs the same convolutions and matrix products, forward and backward, in the same order, on noise."""
    with _Calls() as seen:
        function()
    calls = seen.calls

    def again() -> None:
        with torch.no_grad():
            for func, args, kwargs in calls:
                func(*args, **kwargs)

    return again


def flops_of(function: Callable[[], object]) -> int:
    """Floating-point operations of its convolutions and matrix products (a multiply-add is two)."""
    fused = {torch.ops.mkldnn._convolution_pointwise: _fused_flops}
    with FlopCounterMode(display=False, custom_mapping=fused) as counter:
        function()
    return counter.get_total_flops()


def _fused_flops(x: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return conv_flop_count(list(x), list(weight), list(out_shape))


def _best(function: Callable[[], object], clock: Callable[[], float], tries: int = 8) -> float:
    best = math.inf
    for _ in range(tries):
        start = clock()
        function()
        best = min(best, clock() - start)
    return best


def peaks(dtype: torch.dtype, clock: Callable[[], float] = time.perf_counter) -> tuple[float, float]:
    """The best matrix product and the best 3x3 convolution of this process at a precision, in FLOP/s."""
    a = torch.randn(2048, 2048).to(dtype)
    x = torch.randn(64, 64, 32, 32).to(dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(64, 64, 3, 3).to(dtype).contiguous(memory_format=torch.channels_last)
    product = 2 * 2048**3 / _best(lambda: a @ a, clock)
    with torch.no_grad():
        seconds = _best(lambda: torch.nn.functional.conv2d(x, weight, padding=1), clock)
    return product, 2 * 64 * 32 * 32 * 64 * 64 * 9 / seconds
