"""Who steers which module: the gradient of each loss on each parameter group, and what to do about it."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jepa_world_model.core.engine import Hook
from jepa_world_model.core.log import to_host
from jepa_world_model.core.run import atomic_write, writing
from jepa_world_model.core.task import Task

Row = Mapping[str, Any]  # one report, as a line of gradients.jsonl
Routes = Mapping[tuple[str, str], Sequence[str]]  # (loss, group) -> edges, each of which alone cuts the way

REPORTS = 3  # advice needs the same sight in so many reports in a row
DOMINANT_SHARE = 0.9  # of the summed norms on a module
FIGHTING_COSINE = -0.5
VANISHED_SHARE = 1e-6  # of the largest norm on a module


def gradient_report(task: Task, batch: Any, step: int = 0) -> dict[str, Any]:
    """What every loss does to every parameter group on one batch, under the weights of this step.

    norms: group to loss to the norm of the weighted gradient; a loss without a way to the group is absent.
    cosines: group to "a|b" to the cosine between two gradients; a zero gradient has none.
    weights: loss to weight. Changes no `.grad` and no running mean.
    Cost: one forward pass, and one backward a loss, only as deep as the loss reaches. A single batched one
    (`is_grads_batched`) took 6 times as long on the CPU: it drags every loss through every module.
    On the default model a report takes as long as 1.7 steps. Memory: each loss's gradient in fp32, twice.
    """
    with torch.enable_grad():
        terms = {name: term for name, term in task.terms(batch, step).items() if task.weight(name, step) > 0}
        flat = _gradients(task, terms)
    weights = _weights(task, terms, step)
    numbers: dict[str, Tensor | float] = {f"weights|{name}": weight for name, weight in weights.items()}
    for group, rows in flat.items():
        matrix = torch.stack(list(rows.values()))  # [losses, parameters]
        lengths = torch.linalg.vector_norm(matrix, dim=1)
        cosines = (matrix @ matrix.T) / (lengths[:, None] * lengths)
        for i, one in enumerate(rows):
            numbers[f"norms|{group}|{one}"] = lengths[i] * weights[one]
            for j, other in list(enumerate(rows))[i + 1 :]:
                numbers[f"cosines|{group}|{one}|{other}"] = cosines[i, j]
    return _nested(to_host(numbers), step)


def _gradients(task: Task, terms: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Group -> loss -> its raw gradient there as one vector, for the losses that have a way to the group."""
    reach = task.derived()
    flat: dict[str, dict[str, Tensor]] = {}
    for loss, term in terms.items():
        groups = [name for name in task.groups if name in reach[loss] and task.groups[name]]
        parameters = [p for name in groups for p in task.groups[name].values()]
        if not parameters or not term.requires_grad:
            continue
        grads = iter(torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True))
        for name in groups:
            parts = [(p, next(grads)) for p in task.groups[name].values()]
            if any(grad is not None for _, grad in parts):
                whole = [torch.zeros_like(p) if grad is None else grad for p, grad in parts]
                flat.setdefault(name, {})[loss] = torch.cat([grad.flatten().float() for grad in whole])
    return {name: flat[name] for name in task.groups if name in flat}


def _weights(task: Task, terms: Mapping[str, Tensor], step: int) -> dict[str, Tensor | float]:
    """The factor on each loss at this step; a normalised task's running sizes are asked, not fed."""
    weights: dict[str, Tensor | float] = {name: task.weight(name, step) for name in terms}
    if task.sizes is None or len(terms) != len(task.losses):
        return weights
    sizes = copy.deepcopy(task.sizes).update(torch.stack([term.detach().float() for term in terms.values()]))
    return {name: weight / size for (name, weight), size in zip(weights.items(), sizes.unbind(), strict=True)}


def _nested(numbers: Mapping[str, float], step: int) -> dict[str, Any]:
    row: dict[str, Any] = {"step": step, "norms": {}, "cosines": {}, "weights": {}}
    for name, value in numbers.items():
        kind, group, *losses = name.split("|")
        if kind == "weights":
            row["weights"][group] = value
            continue
        inside = row[kind].setdefault(group, {})
        if kind == "norms" or not math.isnan(value):
            inside["|".join(losses)] = value
    row["cosines"] = {group: pairs for group, pairs in row["cosines"].items() if pairs}
    return row


def shares(norms: Mapping[str, float]) -> dict[str, float]:
    """Each loss's part of the pull on one module: its norm over the sum of all; empty when nothing pulls."""
    whole = sum(norms.values())
    if not (whole > 0 and math.isfinite(whole)):
        return {}
    return {name: norm / whole for name, norm in norms.items()}


class GradientLog:
    """The reports of a run: rows in memory and in gradients.jsonl, one flushed line each.

    start: the step that a resumed run goes on from; rows after it are dropped, as their steps come again.
    """

    def __init__(self, path: Path, start: int = 0) -> None:
        self.path, self.rows = Path(path), []
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8").split("\n")[:-1]  # a torn last line is left out
            self.rows = [row for row in map(json.loads, lines) if row["step"] <= start]
            atomic_write(self.path, "".join(json.dumps(row) + "\n" for row in self.rows))

    def add(self, row: Row) -> None:
        """Append one report."""
        self.rows.append(row)
        with writing(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def gradient_hook(task: Task, batch_of: Callable[[int], Any], log: GradientLog, *, every: int) -> Hook:
    """A hook that reports on the batch of the coming step and logs grad/<group>/<loss>, weighted norms."""

    def call(done: int) -> dict[str, float]:
        row = gradient_report(task, batch_of(done), done)
        log.add(row)
        norms = row["norms"].items()
        return {f"grad/{group}/{loss}": norm for group, rows in norms for loss, norm in rows.items()}

    return Hook(name="gradients", every=every, call=call, at_end=True)


# ---- what to do about it ----


@dataclass(frozen=True)
class Advice:
    """One thing seen in several reports in a row, and the next move."""

    kind: str  # "dominates", "fights" or "vanished"; others by other watchers
    module: str
    losses: tuple[str, ...]
    text: str  # one sentence

    def to_json(self) -> dict[str, Any]:
        """As advice.json holds it."""
        return asdict(self)


def routes(task: Task) -> dict[tuple[str, str], tuple[str, ...]]:
    """For each loss and group it moves: the open edges, each of which alone cuts the way between them."""
    found: dict[tuple[str, str], list[str]] = {}
    reach = task.derived()
    used = {f"{read}->{latent.name}" for latent in task.graph.closure(task.wanted) for read in latent.reads}
    for edge in (name for name in task.graph.edge_names if name in used and task.gates[name] > 0):
        cut = task.gates | {edge: 0.0}
        for loss in task.losses:
            for group in reach[loss.name] - task.graph.contract_reach(loss.contract, cut):
                found.setdefault((loss.name, group), []).append(edge)
    return {key: tuple(edges) for key, edges in found.items()}


def advice(
    history: Sequence[Row], ways: Routes | None = None, gates: Mapping[str, float] | None = None
) -> list[Advice]:
    """What the last reports agree on: losses that rule a module, fight on it, or no longer pull at all.

    ways: from `routes`, so that a sentence can name the gate to turn; gates: the present share of each edge.
    Empty with fewer than three reports.
    """
    recent = list(history)[-REPORTS:]
    if len(recent) < REPORTS:
        return []
    ways, gates = ways or {}, gates or {}
    found = []
    for module in recent[-1]["norms"]:
        rows = [row["norms"].get(module, {}) for row in recent]
        names = [name for name in rows[-1] if all(name in row for row in rows)]
        if len(names) < 2:
            continue
        found += _dominant(module, names, rows, recent[-1])
        found += _fights(module, names, [row["cosines"].get(module, {}) for row in recent], ways)
        found += _vanished(module, names, rows, recent[-1], ways, gates)
    return found


def _dominant(
    module: str, names: Sequence[str], rows: Sequence[Mapping[str, float]], last: Row
) -> list[Advice]:
    parts = [shares(row) for row in rows]
    for name in names:
        if not all(part.get(name, 0) > DOMINANT_SHARE for part in parts):
            continue
        rest = sum(norm for other, norm in rows[-1].items() if other != name)
        weight = last.get("weights", {}).get(name, 1.0)
        even = f" from {weight:.3g} to {weight * rest / rows[-1][name]:.2g}" if rest > 0 else ""
        text = (
            f"{name} is {parts[-1][name]:.1%} of the gradient on {module}, so {_losses(len(names) - 1)} "
            f"there hardly counts; if that is not meant, lower --loss-weights.{name}{even} for an even pull, "
            "or raise the others"
        )
        return [Advice("dominates", module, (name,), text)]
    return []


def _losses(count: int) -> str:
    return "the other loss" if count == 1 else f"each of the other {count} losses"


def _fights(
    module: str, names: Sequence[str], rows: Sequence[Mapping[str, float]], ways: Routes
) -> list[Advice]:
    found = []
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            seen = [row.get(f"{one}|{other}", row.get(f"{other}|{one}", 0.0)) for row in rows]
            if not all(cosine < FIGHTING_COSINE for cosine in seen):
                continue
            gate = _own_gate(module, one, other, ways)
            text = (
                f"{one} and {other} pull {module} in opposite directions (cosine {seen[-1]:.2f}, "
                f"{len(seen)} reports in a row); lower the weight of the one you need less "
                f"(--loss-weights.{one} or --loss-weights.{other}){gate}"
            )
            found.append(Advice("fights", module, (one, other), text))
    return found


def _own_gate(module: str, one: str, other: str, ways: Routes) -> str:
    """The words for an edge that would take one of the two off the module and leave the other there."""
    for loss, rival in ((one, other), (other, one)):
        edges = [edge for edge in ways.get((loss, module), ()) if edge not in ways.get((rival, module), ())]
        if edges:
            return f', or keep {loss} off {module} with --gates "{edges[0]}" 0'
    return ""


def _vanished(
    module: str,
    names: Sequence[str],
    rows: Sequence[Mapping[str, float]],
    last: Row,
    ways: Routes,
    gates: Mapping[str, float],
) -> list[Advice]:
    found = []
    for name in names:
        if not all(row[name] <= VANISHED_SHARE * max(row.values()) for row in rows):
            continue
        narrow = [edge for edge in ways.get((name, module), ()) if 0 < gates.get(edge, 1.0) < 1]
        if rows[-1][name] == 0:
            seen = f"the gradient of {name} on {module} is exactly 0: its claim holds, or a margin hides it"
            move = f"tighten its options, or save its cost with --loss-weights.{name} 0"
        else:
            top = max(rows[-1], key=rows[-1].__getitem__)
            weight = last.get("weights", {}).get(name, 1.0)
            part = rows[-1][name] / rows[-1][top]
            seen = f"the gradient of {name} on {module} has vanished beside that of {top} ({part:.0e} of it)"
            move = (
                f"raise --loss-weights.{name} from {weight:.3g} (to {weight * 0.01 / part:.1g} for a "
                f"hundredth of {top}), or set it to 0"
            )
        wider = f', or open its gate with --gates "{narrow[0]}" 1' if narrow else ""
        found.append(Advice("vanished", module, (name,), f"{seen}; {move}{wider}"))
    return found
