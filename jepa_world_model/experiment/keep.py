"""Which checkpoints a run writes, and which of them stay."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jepa_world_model.core.average import Average
from jepa_world_model.core.checkpoint import save_checkpoint
from jepa_world_model.core.engine import Faults, Hook
from jepa_world_model.core.errors import UserError
from jepa_world_model.core.graph import unknown
from jepa_world_model.core.log import JsonlSink
from jepa_world_model.core.run import Run, atomic_write
from jepa_world_model.diagnostics.evaluate import evaluate
from jepa_world_model.experiment.begin import save_sizes
from jepa_world_model.experiment.build import Experiment, spread
from jepa_world_model.experiment.faults import faults_state
from jepa_world_model.experiment.fork import BEST
from jepa_world_model.experiment.watch import Watch


class Keeper:
    """Saves the state of a run: periodically, at its end, and where the chosen metric is the best so far.

    It runs after the record of a step is on disk, so that no checkpoint is ahead of the log it goes on with.
    """

    def __init__(
        self,
        run: Run,
        experiment: Experiment,
        watch: Watch,
        metrics: JsonlSink,
        average: Average | None = None,
        faults: Faults | None = None,
        told: Callable[[int, Path], None] = lambda step, path: None,
    ) -> None:
        self.faults = faults or Faults()
        self.told = told  # of each checkpoint, when it is whole
        self.run, self.experiment, self.watch, self.average = run, experiment, watch, average
        self.metrics, self.newest = metrics, -1
        self.best: dict[str, Any] | None = None

    @property
    def hooks(self) -> list[Hook]:
        """The best first, so that a periodic checkpoint of the same step knows of it."""
        cfg = self.experiment.cfg
        hooks = [Hook(name="checkpoint", every=cfg.checkpoint_every, call=self.save, late=True)]
        if cfg.best_metric:
            best = Hook(name="best", every=cfg.eval_every, call=self.save_best, at_end=True, late=True)
            hooks.insert(0, best)
        return hooks

    def save(self, step: int) -> None:
        """Write the checkpoint of a step, unless it is written."""
        if step == self.newest:
            return
        self.metrics.sync()
        extra = {
            "loss_sizes": save_sizes(self.experiment),
            "watch": self.watch.state_dict(),
            "best": self.best,
            "faults": faults_state(self.faults),
        }
        path = save_checkpoint(
            self.run.checkpoints, step, self.experiment.task.model, self.experiment.optimizer, extra,
            self.experiment.cfg.keep_checkpoints,
            average=None if self.average is None else self.average.state_dict(),
            protect=[self.best["step"]] if self.best else (),
        )  # fmt: skip
        self.newest = step
        self.told(step, path)

    def save_best(self, step: int) -> None:
        """Write the checkpoint of a step whose evaluation is the best so far."""
        cfg = self.experiment.cfg
        evaluated, values = self.watch.newest
        if evaluated != step or cfg.best_metric not in values:
            return
        value, sign = values[cfg.best_metric], 1 if cfg.best_is == "lowest" else -1
        if self.best and self.best["metric"] == cfg.best_metric and sign * value >= sign * self.best["value"]:
            return
        self.best = {"step": step, "metric": cfg.best_metric, "value": value}
        self.save(step)
        self._mark()

    def _mark(self) -> None:
        """Let best.json tell what the newest checkpoint says; a crash between the two, or a step back, parts them."""
        marker = self.run.checkpoints / BEST
        if self.best:
            atomic_write(marker, json.dumps(self.best) + "\n")
        else:
            marker.unlink(missing_ok=True)

    def load_state(self, extra: Mapping[str, Any]) -> None:
        """Take up what a checkpoint of this run says of itself."""
        self.newest, self.best = extra.get("step", -1), extra.get("best")
        self._mark()
        if extra.get("watch"):
            self.watch.load_state_dict(extra["watch"])


def check_best(experiment: Experiment) -> None:
    """Refuse (UserError) a best_metric that this model and data do not give, before anything is trained."""
    cfg = experiment.cfg
    if cfg.best_metric:
        held_out = spread(experiment.held_out, cfg.eval_windows).to(experiment.device)
        seen = spread(experiment.loader.windows, 2 * cfg.eval_windows).to(experiment.device)
        names = evaluate(experiment.task.alone(), held_out, seen)
        if cfg.best_metric not in names:
            raise UserError(f"best_metric: {unknown('eval metric', cfg.best_metric, names)}")
