"""Bridges between frame states z and dynamics states h."""

from __future__ import annotations

from torch import Tensor

from jepa_world_model.model_config import ModelConfig
from jepa_world_model.models.layers import Mlp, SkipMlp, to_sphere


class HToZ(SkipMlp):
    """The frame state that a dynamics state stands for: h [...,Dh] -> z [...,Dz]."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__(cfg.state_dim, cfg.hidden_dim, cfg.z_dim)
        self.z_norm = cfg.z_norm

    def forward(self, h: Tensor) -> Tensor:
        z = super().forward(h)
        return to_sphere(z) if self.z_norm else z


class ZToH(SkipMlp):
    """A dynamics state from a single frame: z [...,Dz] -> h [...,Dh]."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__(cfg.z_dim, cfg.hidden_dim, cfg.state_dim)


class H2ZDelta(Mlp):
    """The change of z that led to a dynamics state: h [...,Dh] -> delta_z [...,Dz]."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__(cfg.state_dim, cfg.hidden_dim, cfg.z_dim)
