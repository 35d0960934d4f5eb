"""The SigLIP vision transformer: an image to a grid of patch tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from jepa_world_model.core.errors import UserError
from jepa_world_model.vla_ki.attention import attend, projections


@dataclass(frozen=True, kw_only=True)
class SiglipConfig:
    """Sizes of the vision tower."""

    width: int = 64
    depth: int = 3
    mlp: int = 256
    heads: int = 4
    patch: int = 8  # pixels
    image_size: int = 64  # pixels; 224 gives 256 tokens at patch 14

    def __post_init__(self) -> None:
        if min(self.width, self.depth, self.mlp, self.heads, self.patch, self.image_size) < 1:
            raise UserError(f"every size of the vision tower must be at least 1, got {self}")
        if self.image_size % self.patch or self.width % self.heads:
            raise UserError(f"image_size must be a multiple of patch, and width of heads, got {self}")

    @property
    def num_tokens(self) -> int:
        """Tokens an image."""
        return (self.image_size // self.patch) ** 2


SIGLIP = {
    "so400m/14": SiglipConfig(width=1152, depth=27, mlp=4304, heads=16, patch=14, image_size=224),
    "tiny": SiglipConfig(depth=1, mlp=128, image_size=40),
}


class VisionBlock(nn.Module):
    """Bidirectional attention and MLP with layer norms before each."""

    def __init__(self, cfg: SiglipConfig) -> None:
        super().__init__()
        self.heads = cfg.heads
        self.layer_norm1, self.layer_norm2 = (nn.LayerNorm(cfg.width, eps=1e-6) for _ in range(2))
        self.self_attn = nn.ModuleDict(
            {name: nn.Linear(cfg.width, cfg.width) for name in ("q_proj", "k_proj", "v_proj", "out_proj")}
        )
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(cfg.width, cfg.mlp), "fc2": nn.Linear(cfg.mlp, cfg.width)})

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: [N,S,W] -> [N,S,W]."""
        y = self.layer_norm1(x)
        q, k, v = (
            made.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for made in projections(y, [self.self_attn[name] for name in ("q_proj", "k_proj", "v_proj")])
        )
        y = attend(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.self_attn["out_proj"](y)
        y = F.gelu(self.mlp["fc1"](self.layer_norm2(x)), approximate="tanh")
        return x + self.mlp["fc2"](y)


class Siglip(nn.Module):
    """Patches, learned positions, blocks, a last norm; no pooling."""

    def __init__(self, cfg: SiglipConfig, *, checkpointing: bool = False) -> None:
        super().__init__()
        self.cfg, self.checkpointing = cfg, checkpointing
        self.patch_embedding = nn.Conv2d(3, cfg.width, cfg.patch, cfg.patch)
        self.position_embedding = nn.Embedding(cfg.num_tokens, cfg.width)
        self.layers = nn.ModuleList(VisionBlock(cfg) for _ in range(cfg.depth))
        self.post_layernorm = nn.LayerNorm(cfg.width, eps=1e-6)
        self._reset_positions()

    def forward(self, images: Tensor) -> Tensor:
        """Shapes: images [N,3,H,W] in [-1, 1] -> tokens [N,S,width]."""
        x = self.patch_embedding(images).flatten(2).transpose(1, 2)  # [N,S,W]
        x = x + self.position_embedding.weight
        for layer in self.layers:
            x = checkpoint(layer, x, use_reentrant=False) if self._recompute() else layer(x)
        return self.post_layernorm(x)

    @torch.no_grad()
    def _reset_positions(self) -> None:
        """Sines and cosines of row and column, to be learned on: neighbours begin alike."""
        side, width = self.cfg.image_size // self.cfg.patch, self.cfg.width
        place = torch.arange(side) / side
        waves = side ** torch.linspace(0, 1, (width + 3) // 4) * (
            math.pi / 2
        )  # from half a turn an image to one each 4 patches
        row, column = (
            grid.flatten()[:, None] * waves for grid in torch.meshgrid(place, place, indexing="ij")
        )
        table = torch.cat([row.sin(), row.cos(), column.sin(), column.cos()], 1)[:, :width]
        self.position_embedding.weight.copy_(table)

    def _recompute(self) -> bool:
        return self.checkpointing and torch.is_grad_enabled()
