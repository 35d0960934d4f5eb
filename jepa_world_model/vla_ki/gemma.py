"""The Gemma decoder: RMSNorm (plain or modulated), rotary positions, gated MLP, attention over a cache."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from jepa_world_model.core.errors import UserError
from jepa_world_model.vla_ki.attention import attend, attention_bias, projections

KV = tuple[tuple[Tensor, Tensor], ...]  # one (keys, values) a layer, each [B,kv_heads,S,head_dim]


@dataclass(frozen=True, kw_only=True)
class GemmaConfig:
    """Sizes of a decoder. A VLM and its action expert share depth, heads, kv_heads and head_dim."""

    width: int = 128
    depth: int = 4
    mlp: int = 512
    heads: int = 4
    kv_heads: int = 1
    head_dim: int = 32

    def __post_init__(self) -> None:
        if min(self.width, self.depth, self.mlp, self.heads, self.kv_heads, self.head_dim) < 1:
            raise UserError(f"every size of a decoder must be at least 1, got {self}")
        if self.heads % self.kv_heads or self.head_dim % 2:
            raise UserError(f"heads must be a multiple of kv_heads and head_dim even, got {self}")


GEMMA = {
    "gemma_2b": GemmaConfig(width=2048, depth=18, mlp=16384, heads=8, kv_heads=1, head_dim=256),
    "gemma_300m": GemmaConfig(width=1024, depth=18, mlp=4096, heads=8, kv_heads=1, head_dim=256),
    "tiny": GemmaConfig(width=64, depth=3, mlp=128, heads=4, kv_heads=1, head_dim=16),
    "tiny_expert": GemmaConfig(width=64, depth=3, mlp=128, heads=4, kv_heads=1, head_dim=16),
}


class RMSNorm(nn.Module):
    """x / rms(x) * (1 + w), in fp32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, None]:
        """The normalised x; the second value stands for the gate that `AdaRMSNorm` has."""
        return (normalise(x) * (1 + self.weight.float())).to(compute_dtype(x)), None


class AdaRMSNorm(nn.Module):
    """x / rms(x) * (1 + scale) + shift, with scale, shift and a residual gate made from a condition.

    Zero at its start: no modulation, and a gate that closes the whole block.
    """

    def __init__(self, width: int, cond_dim: int) -> None:
        super().__init__()
        self.dense = nn.Linear(cond_dim, 3 * width)
        self._reset()

    def _reset(self) -> None:
        nn.init.zeros_(self.dense.weight)
        nn.init.zeros_(self.dense.bias)

    def forward(self, x: Tensor, cond: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes: x [B,S,W], cond [B,K,C], S a multiple of K (K flow samples in a row) -> [B,S,W], gate."""
        samples = cond.shape[1]
        scale, shift, gate = self.dense(cond).float()[:, :, None].chunk(3, -1)  # [B,K,1,W]
        y = torch.addcmul(shift, normalise(x).unflatten(1, (samples, -1)), 1 + scale)  # [B,K,S/K,W]
        return y.flatten(1, 2).to(compute_dtype(x)), gate.to(compute_dtype(x))


def normalise(x: Tensor) -> Tensor:
    """x with a root mean square of 1 over the last axis, in fp32."""
    return _Normalise.apply(x.float())


class _Normalise(torch.autograd.Function):
    """Its backward in four operations; composed by autograd it would take twice the time."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        """Shapes: [...,W] -> [...,W]."""
        scale = torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6)
        y = x * scale
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        """Shapes: [...,W] -> [...,W]."""
        y, scale = ctx.saved_tensors
        return torch.addcmul(grad, y, (grad * y).mean(-1, keepdim=True), value=-1).mul_(scale)


def compute_dtype(x: Tensor) -> torch.dtype:
    """What products of x are computed in: autocast's type inside autocast, so that x is converted once, not by each."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def rope(positions: Tensor, head_dim: int, base: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles, fp32. Shapes: positions [B,S] -> two of [B,1,S,head_dim/2]."""
    steps = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32)
    angles = positions[:, None, :, None].float() * base ** (-steps / head_dim)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos_sin: tuple[Tensor, Tensor]) -> Tensor:
    """x turned by its position; the two halves of a head form the pairs. Shapes: x [B,H,S,head_dim]."""
    cos, sin = cos_sin
    first, second = x.float().chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)


class Attention(nn.Module):
    """Grouped-query attention over a given cache and its own keys."""

    def __init__(self, cfg: GemmaConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.q_proj = nn.Linear(cfg.width, cfg.heads * cfg.head_dim, bias=False)
        self.k_proj = nn.Linear(cfg.width, cfg.kv_heads * cfg.head_dim, bias=False)
        self.v_proj = nn.Linear(cfg.width, cfg.kv_heads * cfg.head_dim, bias=False)
        self.o_proj = nn.Linear(cfg.heads * cfg.head_dim, cfg.width, bias=False)

    def forward(
        self, x: Tensor, cos_sin: tuple[Tensor, Tensor], allowed: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The attended x and its own keys and values. Shapes: x [B,S,W], allowed as `attend` wants it."""
        q, k, v = (
            made.unflatten(-1, (-1, self.cfg.head_dim)).transpose(1, 2)
            for made in (self.q_proj(x), *projections(x, (self.k_proj, self.v_proj)))
        )  # [B,H,S,Dh], [B,KV,S,Dh] twice
        q, k = rotate(q, cos_sin), rotate(k, cos_sin)
        own = (k, v)
        if past is not None:
            k, v = torch.cat([past[0].to(k.dtype), k], 2), torch.cat([past[1].to(v.dtype), v], 2)
        y = attend(q, k, v, allowed)
        return self.o_proj(y.transpose(1, 2).flatten(2)), own


class GatedMlp(nn.Module):
    """GELU-gated linear unit, tanh approximation, without biases."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: [..., W] -> [..., W]."""
        gate, up = projections(x, (self.gate_proj, self.up_proj))
        return self.down_proj(F.gelu(gate, approximate="tanh") * up)


class Block(nn.Module):
    """Attention and MLP, each on a normalised input with a (gated) residual."""

    def __init__(self, cfg: GemmaConfig, cond_dim: int) -> None:
        super().__init__()
        norm = lambda: AdaRMSNorm(cfg.width, cond_dim) if cond_dim else RMSNorm(cfg.width)
        self.input_layernorm, self.post_attention_layernorm = norm(), norm()
        self.self_attn = Attention(cfg)
        self.mlp = GatedMlp(cfg.width, cfg.mlp)

    def forward(
        self,
        x: Tensor,
        cos_sin: tuple[Tensor, Tensor],
        allowed: Tensor,
        past: tuple[Tensor, Tensor] | None,
        cond: Tensor | None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The next residual stream [B,S,W] and this layer's own keys and values."""
        y, gate = self.input_layernorm(x, cond)
        y, own = self.self_attn(y, cos_sin, allowed, past)
        x = residual(x, y, gate)
        y, gate = self.post_attention_layernorm(x, cond)
        return residual(x, self.mlp(y), gate), own


def residual(x: Tensor, y: Tensor, gate: Tensor | None) -> Tensor:
    """x + y, or x + y * gate. Shapes: x, y [B,S,W], gate [B,K,1,W]."""
    if gate is None:
        return x + y
    samples = gate.shape[1]
    return x + (y.unflatten(1, (samples, -1)) * gate).flatten(1, 2)


class Gemma(nn.Module):
    """A stack of blocks: embeddings to normalised hidden states, with each layer's own keys and values."""

    def __init__(self, cfg: GemmaConfig, *, cond_dim: int = 0, checkpointing: bool = False) -> None:
        super().__init__()
        self.cfg, self.checkpointing = cfg, checkpointing
        self.layers = nn.ModuleList(Block(cfg, cond_dim) for _ in range(cfg.depth))
        self.norm = AdaRMSNorm(cfg.width, cond_dim) if cond_dim else RMSNorm(cfg.width)

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        allowed: Tensor,
        *,
        past: KV | None = None,
        cond: Tensor | None = None,
    ) -> tuple[Tensor, KV]:
        """Hidden states [B,S,W] and the keys and values of x itself.

        Shapes: x [B,S,W], positions [B,S], allowed [B,S,P+S] with P the length of `past`, cond [B,K,C].
        """
        # A padded row would have nothing to attend to, which is undefined: let it read everything; nobody
        # reads it.
        allowed = attention_bias(
            allowed | ~allowed.any(-1, keepdim=True), self.cfg.heads, self.cfg.kv_heads, x.dtype
        )
        cos_sin = rope(positions, self.cfg.head_dim)
        cache = []
        for i, layer in enumerate(self.layers):
            inputs = (x, cos_sin, allowed, past[i] if past is not None else None, cond)
            if self.checkpointing and torch.is_grad_enabled():
                x, own = checkpoint(layer, *inputs, use_reentrant=False)
            else:
                x, own = layer(*inputs)
            cache.append(own)
        return self.norm(x, cond)[0].to(x.dtype), tuple(cache)


def init_linear(module: nn.Module) -> None:
    """Normal weights of variance 1/inputs, zero biases; modulations stay zero. For `nn.Module.apply`."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(module, AdaRMSNorm):
        module._reset()
