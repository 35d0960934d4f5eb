"""Parts of the planning pose p, and of the reachability that plans are costed with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_world_model.model_config import ModelConfig
from jepa_world_model.models.layers import Mlp


class PoseIncrement(Mlp):
    """The pose increment of an action: p [...,Dp], h [...,Dh], a [...,A] -> delta_p [...,Dp].

    It starts as one increment an action, of length 1 and in independent directions, with little of p and h.
    From torch's own start all actions have nearly the same increment: a clock, or, once loops close, a pose
    on a line, which no loss asks to leave again (docs/log.md).
    """

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__(cfg.pose_dim + cfg.state_dim + cfg.action_dim, cfg.hidden_dim, cfg.pose_dim)
        ones = torch.eye(cfg.action_dim)
        if cfg.action_kind not in ("", "discrete"):
            ones = torch.cat([ones, -ones])
        with torch.no_grad():
            self.inner.weight[:, : -cfg.action_dim] *= 0.1
            self.inner.weight[:, -cfg.action_dim :].normal_()
            start = F.silu(self.inner(F.pad(ones, (cfg.pose_dim + cfg.state_dim, 0)))) @ self.outer.weight.T
            size = (start - start.mean(0)).norm(dim=1).mean()
            self.outer.weight /= size
            self.outer.bias.copy_(-start.mean(0) / size)


class ActionPrototype(nn.Linear):
    """The pose increment that an action stands for, whatever the state: a [...,A] -> delta_p [...,Dp].

    Without a bias, so that a zero action is no increment. A discrete no-op is a one-hot row, not zero: mask
    it. The rows start at length 1, the length that a move is meant to have.
    """

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__(cfg.action_dim, cfg.pose_dim, bias=False)
        nn.init.normal_(self.weight, std=cfg.pose_dim**-0.5)


class ChangeToPose(nn.Linear):
    """The pose increment that a change of z stands for: delta_z [...,Dz] -> delta_p [...,Dp], no bias."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__(cfg.z_dim, cfg.pose_dim, bias=False)


class PoseMeasurement(nn.Module):
    """A pose read off a single frame's state: z [...,Dz] -> p [...,Dp]; a linear part and a correction.

    Both start next to zero: along directions of z that the data never showed, a random start would stay for
    good and read a pose into frames of unseen places.
    """

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.straight = nn.Linear(cfg.z_dim, cfg.pose_dim)
        self.bent = Mlp(cfg.z_dim, cfg.hidden_dim, cfg.pose_dim)
        for layer in (self.straight, self.bent.outer):
            nn.init.normal_(layer.weight, std=1e-3)
            nn.init.zeros_(layer.bias)

    def forward(self, z: Tensor) -> Tensor:
        return self.straight(z) + self.bent(z)


class TemporalDistance(nn.Module):
    """log(1 + steps) from one frame to another: z_a, z_b [...,Dz] -> [...], 0 or above, asymmetric.

    The steps inside the logarithm form a quasi-metric: zero from a frame to itself, and no detour is shorter
    than the direct way (the triangle inequality), whatever the weights.
    """

    GROUPS = 8  # the directed part is a mean of as many maxima

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        width = max(cfg.hidden_dim // 4 // self.GROUPS, 1) * self.GROUPS
        self.embedding = Mlp(cfg.z_dim, cfg.hidden_dim, 2 * width, bias=False)  # one would cancel

    def forward(self, z_a: Tensor, z_b: Tensor) -> Tensor:
        return self.between(self.embed(z_a), self.embed(z_b))

    def embed(self, z: Tensor) -> Tensor:
        """One frame's side of the comparison, so that a planner computes the goal's once: [...,Dz] -> [...,D]."""
        return self.embedding(z)

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        """log(1 + steps) from one embedded frame to another: [...,D] -> [...]."""
        both, way = (a - b).float().chunk(2, -1)
        far = (both.square().sum(-1) + 1e-6).sqrt() - 1e-3  # a root with a gradient at zero
        climb = F.relu(way.unflatten(-1, (self.GROUPS, -1))).amax(-1).mean(-1)
        return torch.log1p(far.clamp(min=0) + climb)
