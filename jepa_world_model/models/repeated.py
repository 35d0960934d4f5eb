"""Linear layers that are called many times a step: the gradient of their weights in one product.

A recurrence calls a layer at every step, and for each call autograd multiplies, rounds and adds a gradient as large as the
weights. Inside `repeated` the calls only keep what the gradient is made of; one product over all of them follows when the
backward pass reaches the weights. The same sum, rounded once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from jepa_world_model.models.fused import product_dtype

# backward pass -> (input [N,in], gradient [N,out]) of each call
Pairs = dict[int, list[tuple[Tensor, Tensor]]]


class Linear(nn.Linear):
    """torch's own linear layer; inside `repeated` its calls share one gradient product."""

    shared: _Shared | None = None

    def forward(self, x: Tensor) -> Tensor:
        """[...,in] -> [...,out]."""
        return super().forward(x) if self.shared is None else self.shared(x)


@contextmanager
def repeated(*modules: nn.Module) -> Iterator[None]:
    """Every `Linear` in these modules finds the gradient of its weights once for all calls in here.

    Where no gradient is wanted, in compiled code, and where autocast converts no weights (in fp32 it gains nothing,
    measured), calls stay as they are.
    """
    layers = [layer for module in modules for layer in module.modules() if isinstance(layer, Linear)]
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        layers = []
    for layer in layers:
        weight = layer.weight  # once: behind a parametrization every look computes it
        if weight.requires_grad and _pays(weight):
            layer.shared = _Shared(weight, layer.bias)
    try:
        yield
    finally:
        for layer in layers:
            layer.shared = None


def _pays(weight: Tensor) -> bool:
    """Whether one product is cheaper than one a call: where autocast converts weights."""
    return product_dtype(weight) != weight.dtype


class _Shared:
    """The weights of one layer, converted once, and the record of its calls."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.pairs: Pairs = {}
        self.dtype = product_dtype(weight)
        self.weight, self.bias = _Weights.apply(self.pairs, self.dtype, weight, bias)

    def __call__(self, x: Tensor) -> Tensor:
        return _Call.apply(self.pairs, x, self.weight, self.bias)


class _Weights(torch.autograd.Function):
    """The weights as all calls see them; its backward comes after that of every call."""

    @staticmethod
    def forward(
        ctx: Any, pairs: Pairs, dtype: torch.dtype, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        ctx.set_materialize_grads(False)  # what arrives is nothing: the calls have left it in `pairs`
        ctx.pairs, ctx.kept, ctx.has_bias = pairs, weight.dtype, bias is not None
        as_one = lambda x: x.view_as(x) if x.dtype == dtype else x.to(dtype)
        return as_one(weight), None if bias is None else as_one(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *nothing: None) -> tuple[Tensor | None, ...]:
        calls = ctx.pairs.pop(torch._C._current_graph_task_id(), [])
        if not calls:
            return None, None, None, None
        x, g = (torch.cat(parts) if len(calls) > 1 else parts[0] for parts in zip(*calls, strict=True))
        into_bias = g.sum(0).to(ctx.kept) if ctx.has_bias else None
        return None, None, (g.T @ x).to(ctx.kept), into_bias


class _Call(torch.autograd.Function):
    """One call: its gradient goes on to the input, and what the weights need is left in `pairs`."""

    @staticmethod
    def forward(ctx: Any, pairs: Pairs, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows = x.reshape(-1, x.shape[-1]).to(weight.dtype)
        ctx.save_for_backward(rows, weight)
        ctx.pairs, ctx.kept, ctx.shape = pairs, x.dtype, x.shape
        return F.linear(rows, weight, bias).view(*x.shape[:-1], weight.shape[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        g = grad.reshape(-1, weight.shape[0])
        # By pass: one that does not go on to the weights leaves its record behind, and no other may take it.
        ctx.pairs.setdefault(torch._C._current_graph_task_id(), []).append((rows, g))
        into_x = (g @ weight).view(ctx.shape).to(ctx.kept) if ctx.needs_input_grad[1] else None
        return None, into_x, None, None
