"""Attention with shared keys: plain products on the CPU, the fused kernels elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

BF16_LANES = 32  # numbers in a vector; torch's bf16 softmax takes what is left of a row one by one


def projections(x: Tensor, layers: Sequence[nn.Module]) -> tuple[Tensor, ...]:
    """What each linear layer makes of x; in training on a CPU by one product, and its gradients by one each.

    For layers whose outputs are always used together: where one went unused, it would get a gradient of zeros in the place
    of none. Shapes: x [...,in] -> [...,out] for each layer.
    """
    plain = all(type(layer) is nn.Linear for layer in layers)
    if not (plain and x.device.type == "cpu" and torch.is_grad_enabled()):
        return tuple(layer(x) for layer in layers)
    weight = torch.cat([layer.weight for layer in layers])
    bias = None if layers[0].bias is None else torch.cat([layer.bias for layer in layers])
    return F.linear(x, weight, bias).split([layer.out_features for layer in layers], -1)


def attention_bias(allowed: Tensor, heads: int, kv_heads: int, dtype: torch.dtype) -> Tensor:
    """What `attend` takes as its mask, made once for all layers. Shapes: allowed [B,S,P] bool.

    On the CPU [B, heads/kv_heads*S, P]: 0 where a query may read, minus infinity elsewhere, in the dtype of the
    products; elsewhere [B,1,S,P] bool.
    """
    device = allowed.device.type
    if device != "cpu":
        return allowed[:, None]
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    bias = torch.zeros(allowed.shape, dtype=dtype).masked_fill_(~allowed, float("-inf"))
    return bias.repeat(1, heads // kv_heads, 1)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention, several query heads to one pair of keys and values without copying them.

    Shapes: q [B,H,S,D], k, v [B,KV,P,D], mask as `attention_bias` makes it -> [B,H,S,D].
    """
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=q.shape[1] != k.shape[1])
    # torch's fused kernel for the CPU is slow backwards with a mask: [64,4,108,32] over one shared pair takes 34 ms
    # in fp32 and 80 ms in bf16, these products 24 and 20 (one thread, AVX-512 with AMX).
    batch, heads, rows, width = q.shape
    shared = k.shape[1]
    q = (q * width**-0.5).reshape(batch * shared, -1, width)  # [B*KV, G*S, D]
    k, v = (t.reshape(batch * shared, -1, width) for t in (k, v))
    if mask is None:
        scores = q @ k.transpose(1, 2)
    else:
        bias = mask if shared == 1 else mask.repeat_interleave(shared, 0)
        scores = torch.baddbmm(bias, q, k.transpose(1, 2))
    return (softmax(scores) @ v).view(batch, heads, rows, width)


def softmax(scores: Tensor) -> Tensor:
    """Shares over the last axis, in the type of the scores.

    Rows of bf16 that do not fill the CPU's vectors go through fp32: [32,240,60] takes 1.40 ms as it is, 0.64 with both
    conversions, and the same backward. Rows that do fill them are summed in fp32 inside the kernel.
    """
    if scores.dtype == torch.bfloat16 and scores.shape[-1] % BF16_LANES:
        return _SoftmaxThroughFp32.apply(scores)
    return scores.softmax(-1)


class _SoftmaxThroughFp32(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:
        shares = scores.float().softmax(-1).to(scores.dtype)
        ctx.save_for_backward(shares)
        return shares

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (shares,) = ctx.saved_tensors
        return torch.ops.aten._softmax_backward_data(grad, shares, -1, shares.dtype)
