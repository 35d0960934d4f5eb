"""One training step, the same for every pipeline."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from jepa_world_model.core.barrier import clip_grad_groups
from jepa_world_model.core.task import Task


def train_step(
    task: Task, optimizer: torch.optim.Optimizer, batch: Any, step: int, *, max_grad_norm: float
) -> dict[str, Tensor]:
    """Terms, backward, clip per group, update unless something is not finite. Values stay on the device.

    Returns loss/<name>, weighted/<name>, loss/total, grad_norm/<group> (before clipping) and `finite` (bool).
    """
    optimizer.zero_grad(set_to_none=True)
    terms = task.terms(batch, step)
    total, weighted = task.total(terms, step)
    total.backward()
    norms = clip_grad_groups(task.groups, max_grad_norm)
    finite = torch.isfinite(torch.stack([total.detach(), *norms.values()])).all()
    update_if(optimizer, finite)
    report = {f"loss/{name}": term.detach() for name, term in terms.items()}
    report |= {f"weighted/{name}": value for name, value in zip(terms, weighted.unbind(), strict=True)}
    report |= {f"grad_norm/{name}": norm for name, norm in norms.items()}
    return report | {"loss/total": total.detach(), "finite": finite}


def update_if(optimizer: torch.optim.Optimizer, finite: Tensor) -> None:
    """Step the optimizer, unless `finite` is False: then weights and moments stay as they are.

    A fused optimizer is told by its `found_inf` flag, on the device, so the host never waits; others are asked on the host.
    """
    if all(group.get("fused") for group in optimizer.param_groups):
        optimizer.grad_scale, optimizer.found_inf = None, (~finite).float()
        optimizer.step()
    elif bool(finite):
        optimizer.step()
