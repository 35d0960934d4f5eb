"""What looks over the shoulder of a run and says what to do: gradient reports and the collapse guard."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jepa_world_model.core.average import Average
from jepa_world_model.core.gradient_report import Advice, GradientLog, advice, gradient_hook, routes
from jepa_world_model.core.run import atomic_write
from jepa_world_model.core.task import Task
from jepa_world_model.data.batch import Batch
from jepa_world_model.diagnostics.collapse import CollapseGuard
from jepa_world_model.diagnostics.evaluate import evaluate


class Watch:
    """The evaluations and gradient reports of a run, with the advice that follows from them.

    held_out: windows that are measured; seen: training windows on which the linear probes are fitted.
    every: steps between gradient reports, 0 for none. start: the step that the run goes on from.
    average: evaluate these weights in place of the model's own.
    """

    def __init__(
        self,
        folder: Path,
        task: Task,
        held_out: Batch,
        batch_of: Callable[[int], Batch],
        *,
        seen: Batch,
        every: int,
        start: int = 0,
        average: Average | None = None,
    ) -> None:
        self.average = average
        self.folder, self.task, self.held_out, self.seen = folder, task, held_out, seen
        with average.applied(task.model) if average else contextlib.nullcontext():
            self.guard = CollapseGuard.measured(task, held_out)
        self.collapses: list[Advice] = []
        self.newest: tuple[int, dict[str, float]] = (-1, {})  # step and numbers of the last evaluation
        self.log = GradientLog(folder / "gradients.jsonl", start)
        self.hooks = [gradient_hook(task, batch_of, self.log, every=every)] if every else []

    def evaluate(self, step: int) -> dict[str, float]:
        """The metrics on the held-out windows; a state that has collapsed is told at once."""
        with self.average.applied(self.task.model) if self.average else contextlib.nullcontext():
            values = evaluate(self.task, self.held_out, self.seen)
        self.newest = step, values
        for found in self.guard.check(values):
            self.collapses.append(found)
            print(f"warning: step {step}: {found.text}", file=sys.stderr, flush=True)
        return values

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds, as JSON: what the collapse guard remembers and has told."""
        guard = self.guard
        collapses = [one.to_json() for one in self.collapses]
        return {"best": guard.best, "told": sorted(guard.told), "collapses": collapses}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up where a checkpoint left off."""
        self.guard.best, self.guard.told = dict(state["best"]), set(state["told"])
        self.collapses = [Advice(**{**one, "losses": tuple(one["losses"])}) for one in state["collapses"]]

    def conclude(self) -> list[Advice]:
        """Everything there is to advise, printed and written to advice.json ({"advice": [...]})."""
        found = self.collapses + advice(self.log.rows, routes(self.task), self.task.gates)
        content = {"advice": [one.to_json() for one in found]}
        atomic_write(self.folder / "advice.json", json.dumps(content, indent=1) + "\n")
        for one in found:
            print(f"advice: {one.text}")
        return found
