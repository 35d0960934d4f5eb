"""Heads that see an action, or tell one."""

from __future__ import annotations

from torch import Tensor

from jepa_world_model.model_config import ModelConfig
from jepa_world_model.models.layers import Mlp


class HActionDelta(Mlp):
    """The change of h that an action is expected to cause: h [...,Dh], a [...,A] -> delta_h [...,Dh]."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__(cfg.state_dim + cfg.action_dim, cfg.hidden_dim, cfg.state_dim)


class ZActionDelta(Mlp):
    """The change of z that an action is expected to cause: z [...,Dz], a [...,A] -> delta_z [...,Dz]."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__(cfg.z_dim + cfg.action_dim, cfg.hidden_dim, cfg.z_dim)


class InverseDynamics(Mlp):
    """The action between two states, from the first and their difference: two [...,D] -> [...,A].

    Logits for discrete and multi-binary actions, values for continuous ones.
    """

    def __init__(self, cfg: ModelConfig, width: int) -> None:
        super().__init__(2 * width, cfg.hidden_dim, cfg.action_dim)


class InverseDynamicsOfIncrement(Mlp):
    """The action behind a pose increment: delta_p [...,Dp] -> logits or values [...,A]."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__(cfg.pose_dim, cfg.hidden_dim, cfg.action_dim)


class InverseAction(Mlp):
    """The action that undoes an action: h [...,Dh], a [...,A] -> [...,A], encoded as actions are but relaxed.

    Discrete actions: shares that sum to one; multi-binary: bits in [0, 1]; continuous: values in [-1, 1].
    """

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__(cfg.state_dim + cfg.action_dim, cfg.hidden_dim, cfg.action_dim)
        self.kind = cfg.action_kind or "discrete"

    def forward(self, h: Tensor, a: Tensor) -> Tensor:
        told = super().forward(h, a)
        if self.kind == "discrete":
            return told.softmax(-1)
        return told.sigmoid() if self.kind == "multi_binary" else told.tanh()
