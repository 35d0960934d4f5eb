"""The start-up proof: declared reach against autograd, for every active loss, before the first step."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from jepa_world_model.core.barrier import Reach, reach
from jepa_world_model.core.errors import ContractError
from jepa_world_model.core.task import Task


@dataclass(frozen=True)
class ReachTable:
    """Losses by parameter groups: what is declared and what was measured, under one setting of the gates."""

    groups: tuple[str, ...]
    weights: dict[str, float]
    gates: dict[str, float]  # of the edges that the active losses use
    derived: dict[str, frozenset[str]]
    measured: dict[str, Reach]
    values: dict[str, float]  # each loss on the jittered weights

    def faults(self) -> list[str]:
        """One sentence for everything that must not be; empty when the proof holds."""
        found = []
        for name, derived in self.derived.items():
            got = self.measured[name]
            found += difference(name, "structural", derived, got.structural)
            found += difference(name, "numeric", derived, got.moved)
            if not derived:
                found.append(
                    f"the loss {name!r} has weight {self.weights[name]:g} but moves nothing under these gates"
                )
            for shape in got.strangers:
                found.append(
                    f"the loss {name!r} moves a tensor of shape {list(shape)} that is in no parameter group: "
                    "no optimizer and no checkpoint would hold it"
                )
            if self.values[name] == 0.0:
                found.append(
                    f"the loss {name!r} is exactly 0 on random weights: it compares something with itself, "
                    "or a margin hides it"
                )
        return found

    def warnings(self) -> list[str]:
        """One sentence for what is allowed but probably not meant."""
        moved = frozenset().union(*(r.structural for r in self.measured.values()))
        found = [
            f"{group} is used but no active loss moves it: it stays at its random start"
            for group in self.groups
            if group not in moved
        ]
        for group in self.groups:
            rows = [set(r.untouched.get(group, ())) for r in self.measured.values() if group in r.structural]
            if rows and (idle := set.intersection(*rows)):
                found.append(
                    f"{len(idle)} tensors of {group} get no gradient from any loss: {', '.join(sorted(idle)[:3])}"
                )
        return found

    def to_json(self) -> dict[str, Any]:
        """`losses`: name to derived and structural (lists of groups), numeric (group to gradient norm or null)."""
        return {
            "groups": list(self.groups),
            "gates": self.gates,
            "losses": {
                name: {
                    "weight": self.weights[name],
                    "derived": sorted(derived),
                    "structural": sorted(self.measured[name].structural),
                    "numeric": self.measured[name].numeric,
                    "value": self.values[name],
                }
                for name, derived in self.derived.items()
            },
            "faults": self.faults(),
            "warnings": self.warnings(),
        }

    def to_markdown(self) -> str:
        """A table with losses as rows and parameter groups as columns; x: moved, as declared and as measured."""
        closed = [f"`{name}` {keep:g}" for name, keep in self.gates.items() if keep < 1]
        lines = [f"Gates that are not open: {', '.join(closed) or 'none'}.", ""]
        lines += [
            "| loss | weight | " + " | ".join(self.groups) + " |",
            "|---|---|" + "---|" * len(self.groups),
        ]
        for name, derived in self.derived.items():
            marks = (self._mark(name, group, group in derived) for group in self.groups)
            lines.append(f"| {name} | {self.weights[name]:g} | " + " | ".join(marks) + " |")
        return "\n".join(lines) + "\n"

    def to_text(self) -> str:
        """The table for a terminal: group names written downwards by number, one row a loss."""
        width = max(len(name) for name in self.derived)
        head = [f"  {number:>2} {group}" for number, group in enumerate(self.groups, 1)]
        numbers = " ".join(f"{number:>2}" for number in range(1, len(self.groups) + 1))
        rows = [f"{'':<{width}}  weight  {numbers}"]
        for name, derived in self.derived.items():
            marks = " ".join(
                f"{self._mark(name, group, group in derived) or '.':>2}" for group in self.groups
            )
            rows.append(f"{name:<{width}}  {self.weights[name]:>6g}  {marks}")
        closed = [f"{name} {keep:g}" for name, keep in self.gates.items() if keep < 1]
        return "\n".join(
            ["Which loss moves which module (x: declared and measured; !: they differ)", *head, "", *rows, "",
             f"Gates not fully open: {', '.join(closed) or 'none'}"]
        )  # fmt: skip

    def _mark(self, loss: str, group: str, declared: bool) -> str:
        got = self.measured[loss]
        agree = (group in got.structural) == (group in got.moved) == declared
        return ("x" if declared else "") if agree else "!"


def difference(loss: str, way: str, declared: frozenset[str], measured: frozenset[str]) -> Iterable[str]:
    """One sentence for each direction in which declared and measured groups differ."""
    if extra := measured - declared:
        yield f"the loss {loss!r} reaches {', '.join(sorted(extra))} ({way}), which its declaration does not allow"
    if missing := declared - measured:
        yield f"the loss {loss!r} declares that it moves {', '.join(sorted(missing))}, but no gradient arrives ({way})"


def jittered(
    model: nn.Module, generator: torch.Generator, scale: float = 0.05, share: float = 1.0
) -> nn.Module:
    """A copy with noise on every parameter, so that a zero-initialised layer cannot pass for a barrier.

    share: what is kept of the weights themselves.
    """
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            noise = torch.randn(parameter.shape, generator=generator).to(parameter)
            parameter.mul_(share).add_(noise * scale)
    return twin


# A margin hides a loss on some weights: `vicreg_var` is 0 wherever z varies more than it asks for, as it may after the
# start is calibrated. A loss that is 0 on weights of every size compares something with itself.
SHARES = (1.0, 0.3, 3.0)


def measure(task: Task, batch: Any, *, seed_name: str = "proof") -> ReachTable:
    """Derived and measured reach of every active loss, on a jittered copy of the model and the given batch."""
    for share in SHARES:
        twin = task.with_model(jittered(task.model, task.streams.torch(seed_name), share=share))
        twin.model.train()
        terms = twin.terms(batch)
        if all(bool(term.detach() != 0) for term in terms.values()):
            break
    measured = reach(terms, twin.groups)
    values = {name: float(term.detach()) for name, term in terms.items()}
    weights = {loss.name: task.weights[loss.name] for loss in task.losses}
    used = {f"{read}->{latent.name}" for latent in task.graph.closure(task.wanted) for read in latent.reads}
    gates = {edge: keep for edge, keep in task.gates.items() if edge in used}
    return ReachTable(tuple(task.groups), weights, gates, task.derived(), measured, values)


def prove(task: Task, batch: Any, optimizer: torch.optim.Optimizer | None = None) -> ReachTable:
    """The reach table, or a refusal. Errors: ContractError with every fault, one a line."""
    table = measure(task, batch)
    faults = table.faults()
    if optimizer is not None:
        faults += audit(task.model, task.groups, optimizer)
    if faults:
        raise ContractError(
            "the gradient routing is not what was declared; not training.\n  " + "\n  ".join(faults)
        )
    return table


def audit(
    model: nn.Module, groups: Mapping[str, Mapping[str, nn.Parameter]], optimizer: torch.optim.Optimizer
) -> list[str]:
    """One sentence for each parameter that is in no optimizer group, in two, or not in the checkpoint."""
    held: dict[int, int] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            held[id(parameter)] = held.get(id(parameter), 0) + 1
    saved = {value.data_ptr() for value in model.state_dict().values()}
    named = {id(p): name for members in groups.values() for name, p in members.items()}
    faults = []
    for name, parameter in model.named_parameters():
        count = held.get(id(parameter), 0)
        if count != 1:
            faults.append(
                f"the parameter {name!r} is in {'no' if count == 0 else count} optimizer groups, must be in one"
            )
        if id(parameter) not in named:
            faults.append(f"the parameter {name!r} is in no parameter group")
        if parameter.numel() and parameter.data_ptr() not in saved:
            faults.append(f"the parameter {name!r} would get a gradient but is not in the checkpoint")
    return faults
