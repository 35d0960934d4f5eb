"""The predictor: one step of the dynamics state."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from jepa_world_model.model_config import ModelConfig
from jepa_world_model.models.layers import SpectralNorm, identity_like
from jepa_world_model.models.repeated import Linear


class Predictor(nn.Module):
    """A gated cell: h_next = h + sigmoid(gate) * (lift(z) + change - h), gate and change from one hidden layer of (z, h, a).

    Shapes: z [...,Dz], h [...,Dh], a [...,A] -> [...,Dh]. The frame's own state enters by a linear path that starts as
    the identity, so an untrained step repeats the frame and training learns what changes. The sum keeps h's own
    precision, so that small changes survive bf16.
    """

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.inner = Linear(cfg.z_dim + cfg.state_dim + cfg.action_dim, cfg.hidden_dim)
        self.norm = nn.LayerNorm(cfg.hidden_dim) if cfg.predictor_layer_norm else nn.Identity()
        self.outer = Linear(cfg.hidden_dim, 2 * cfg.state_dim)
        self.lift = identity_like(cfg.z_dim, cfg.state_dim)
        if cfg.spectral_norm:
            for layer in (self.inner, self.outer):
                register_parametrization(layer, "weight", SpectralNorm(layer.weight))

    def forward(self, z: Tensor, h: Tensor, a: Tensor) -> Tensor:
        hidden = F.silu(self.norm(self.inner(torch.cat([z, h, a], -1))))
        gate, change = self.outer(hidden).chunk(2, -1)
        return h + torch.sigmoid(gate) * (self.lift(z) + change - h)
