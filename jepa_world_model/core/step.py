"""One training step, the same for every pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from jepa_world_model.core.barrier import clip_grad_groups
from jepa_world_model.core.distributed import World
from jepa_world_model.core.task import Task

# (batch, step, which of the step's batches, of how many) -> the values of the losses; gradients are in `.grad`
Differentiate = Callable[[Any, int, int, int], dict[str, Tensor]]


def train_step(
    task: Task,
    optimizer: torch.optim.Optimizer,
    batch: Any,
    step: int,
    *,
    max_grad_norm: float,
    more: Sequence[Any] = (),
    sound: Tensor | None = None,
    differentiate: Differentiate | None = None,
) -> dict[str, Tensor]:
    """Terms, backward, clip per group, update unless something is not finite. Values stay on the device.

    more: further batches of the same step; gradients and values are means over all of them, each being a batch of its own
    to losses over the distribution of a batch. sound: a flag on the device; the first step that is not finite lowers it,
    and no step updates anything from then on, so that the weights wait where it happened until the host has seen it.
    differentiate: in the place of `plainly`, such as a compiled step (core/compiled.py).
    Returns loss/<name>, weighted/<name>, loss/total, grad_norm/<group> (before clipping) and `finite` (bool); with several
    processes those of the whole batch, the same on each of them.
    """
    optimizer.zero_grad(set_to_none=True)
    parts, reports = (batch, *more), []
    for number, part in enumerate(parts):
        reports.append((differentiate or partial(plainly, task))(part, step, number, len(parts)))
    task.world.average_gradients(task.groups)
    norms = clip_grad_groups(task.groups, max_grad_norm)
    report = of_all(task.world, reports[0] if len(parts) == 1 else _mean(reports))
    finite = torch.isfinite(torch.stack([report["loss/total"], *norms.values()])).all()
    if sound is not None:
        finite = sound.logical_and_(finite).clone()
    update_if(optimizer, finite)
    return report | {f"grad_norm/{name}": norm for name, norm in norms.items()} | {"finite": finite}


def plainly(task: Task, batch: Any, step: int, number: int, parts: int) -> dict[str, Tensor]:
    """Gradients of one of a step's batches, 1 / parts of them, added to `.grad`, operation by operation.

    Returns loss/<name>, weighted/<name> and loss/total.
    """
    terms = task.terms(batch, step * parts + number)
    total, weighted = task.total(terms, step)
    (total if parts == 1 else total / parts).backward()
    return by_name(list(terms), [term.detach() for term in terms.values()], weighted, total.detach())


def by_name(
    names: Sequence[str], raw: Iterable[Tensor], weighted: Tensor, total: Tensor
) -> dict[str, Tensor]:
    """The values of a step's losses as they are logged."""
    found = {f"loss/{name}": value for name, value in zip(names, raw, strict=True)}
    found |= {f"weighted/{name}": value for name, value in zip(names, weighted.unbind(), strict=True)}
    return found | {"loss/total": total}


def _mean(reports: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([report[name].float() for report in reports]).mean(0) for name in reports[0]}


def of_all(world: World, values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Scalars as means over the processes, by one exchange; alone, as they are."""
    if world.size == 1:
        return values
    stacked = torch.stack([value.float() for value in values.values()])
    return dict(zip(values, world.average(stacked).unbind(), strict=True))


def update_if(optimizer: torch.optim.Optimizer, finite: Tensor) -> None:
    """Step the optimizer, unless `finite` is False: then weights and moments stay as they are.

    A fused optimizer is told by its `found_inf` flag, on the device, so the host never waits; others are asked on the host.
    """
    if all(group.get("fused") for group in optimizer.param_groups):
        optimizer.grad_scale, optimizer.found_inf = None, (~finite).float()
        optimizer.step()
    elif bool(finite):
        optimizer.step()
