"""Attention with shared keys: plain products on the CPU, the fused kernels elsewhere."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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
    # bf16 scores are summed in fp32 inside the kernel; a copy in fp32 would cost as much as the products.
    return (scores.softmax(-1) @ v).view(batch, heads, rows, width)
