"""The optimizer: one AdamW, two parts a group (with and without weight decay), one schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.toml import suggest

Groups = Mapping[str, Mapping[str, nn.Parameter]]


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with linear warm-up, then cosine decay or a constant rate."""

    lr: float = 3e-4  # peak learning rate, reached at the end of the warm-up
    warmup_steps: int = 200  # steps from lr / warmup_steps up to lr; 0 starts at the peak
    schedule: Literal["cosine", "constant"] = "cosine"  # what follows the warm-up
    final_lr_share: float = 0.1  # cosine: share of lr that is left at the last step
    weight_decay: float = 0.01  # not applied to biases, norms, other 1-d parameters and prototypes
    betas: tuple[float, float] = (0.9, 0.95)  # memory of the first and second moment
    eps: float = 1e-8  # added to the root of the second moment; large values damp small gradients
    max_grad_norm: float = 1.0  # of each parameter group by itself; inf clips nothing
    lr_scale: dict[str, float] = field(default_factory=dict)  # group -> factor on lr; 0 holds a group still

    def __post_init__(self) -> None:
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ValueError(f"lr must be above 0 and finite, got {self.lr}")
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps must be 0 or more, got {self.warmup_steps}")
        if self.schedule not in ("cosine", "constant"):
            raise ValueError(f"schedule must be cosine or constant, got {self.schedule!r}")
        if not 0 <= self.final_lr_share <= 1:
            raise ValueError(f"final_lr_share must lie in [0, 1], got {self.final_lr_share}")
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise ValueError(f"weight_decay must be 0 or more and finite, got {self.weight_decay}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must lie in [0, 1), got {self.betas}")
        if not (self.eps > 0 and math.isfinite(self.eps)):
            raise ValueError(f"eps must be above 0 and finite, got {self.eps}")
        if not self.max_grad_norm > 0:
            raise ValueError(f"max_grad_norm must be above 0 (inf: no clipping), got {self.max_grad_norm}")
        for group, factor in self.lr_scale.items():
            if not (factor >= 0 and math.isfinite(factor)):
                raise ValueError(f"lr_scale of {group} must be 0 or more and finite, got {factor}")


def is_no_decay(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay leaves a parameter alone: every 1-d one (biases, norms), and prototypes."""
    return parameter.ndim <= 1 or "prototype" in name


def build_optimizer(
    groups: Groups, cfg: OptimConfig, no_decay: Callable[[str, nn.Parameter], bool] = is_no_decay
) -> torch.optim.AdamW:
    """AdamW over the groups; its param_groups are named `<group>/decay` and `<group>/no_decay`.

    Errors: UserError for a name in lr_scale that is no group, a parameter in two groups, nothing to train.
    """
    for name in cfg.lr_scale:
        if name not in groups:
            hint = suggest(name, list(groups)) or f"; the groups are {', '.join(groups)}"
            raise UserError(f"optim.lr_scale: there is no parameter group {name!r}{hint}")
    _refuse_twice(groups)
    parts = []
    for group, parameters in groups.items():
        live = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
        exempt = {name: no_decay(name, parameter) for name, parameter in live.items()}
        scale = cfg.lr_scale.get(group, 1.0)
        common = {"lr": cfg.lr * scale, "lr_scale": scale}
        for part, decay in (("decay", cfg.weight_decay), ("no_decay", 0.0)):
            members = [parameter for name, parameter in live.items() if exempt[name] == (part == "no_decay")]
            if members:
                parts.append({"params": members, "name": f"{group}/{part}", "weight_decay": decay, **common})
    if not parts:
        raise UserError("there is no parameter to train; every group is empty or frozen")
    # Fused: one kernel for all parameters, and the only kind that can skip a step on the device.
    return torch.optim.AdamW(parts, lr=cfg.lr, betas=cfg.betas, eps=cfg.eps, fused=_can_fuse(parts))


def _can_fuse(parts: list[dict]) -> bool:
    """Fused AdamW holds for floating-point parameters on the CPU and on CUDA, as torch.optim itself asks."""
    parameters = [parameter for part in parts for parameter in part["params"]]
    return all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters)


def lr_at(cfg: OptimConfig, step: int, total_steps: int) -> float:
    """The rate of step 0 .. total_steps - 1: up to lr, then down to final_lr_share * lr, or level."""
    if step < cfg.warmup_steps:
        return cfg.lr * (step + 1) / cfg.warmup_steps
    if cfg.schedule == "constant":
        return cfg.lr
    length = max(total_steps - 1 - cfg.warmup_steps, 1)
    done = min((step - cfg.warmup_steps) / length, 1.0)
    return cfg.lr * (cfg.final_lr_share + (1 - cfg.final_lr_share) * 0.5 * (1 + math.cos(math.pi * done)))


def set_lr(optimizer: torch.optim.Optimizer, cfg: OptimConfig, step: int, total_steps: int) -> float:
    """Give every parameter group its rate for this step; returns the rate before lr_scale."""
    rate = lr_at(cfg, step, total_steps)
    for part in optimizer.param_groups:
        part["lr"] = rate * part["lr_scale"]
    return rate


def audit_groups(model: nn.Module, groups: Groups) -> None:
    """Every trainable parameter of the model is in exactly one group, and every group holds only the model's.

    Errors: UserError that names the parameters.
    """
    _refuse_twice(groups)
    grouped = {id(parameter) for parameters in groups.values() for parameter in parameters.values()}
    own = dict(model.named_parameters())
    outside = [
        name for name, parameter in own.items() if parameter.requires_grad and id(parameter) not in grouped
    ]
    if outside:
        raise UserError(f"in no parameter group, so no optimizer would train them: {_listing(outside)}")
    known = {id(parameter) for parameter in own.values()}
    foreign = [label for label, parameter in _labelled(groups) if id(parameter) not in known]
    if foreign:
        raise UserError(f"in a group but not in the model, so in no checkpoint: {_listing(foreign)}")


def _labelled(groups: Groups) -> Iterator[tuple[str, nn.Parameter]]:
    for group, parameters in groups.items():
        for name, parameter in parameters.items():
            yield f"{group}:{name}", parameter


def _refuse_twice(groups: Groups) -> None:
    seen: dict[int, str] = {}
    twice = [
        f"{seen[id(p)]} and {label}"
        for label, p in _labelled(groups)
        if seen.setdefault(id(p), label) != label
    ]
    if twice:
        raise UserError(f"one parameter stands in two groups: {_listing(twice)}")


def _listing(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
