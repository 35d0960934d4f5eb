"""Where a run begins: anew, from its own newest checkpoint, or from a checkpoint of another run (a fork)."""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from jepa_world_model.core.average import Average
from jepa_world_model.core.checkpoint import (
    latest_checkpoint,
    load_checkpoint,
    load_common,
    verify_checkpoint,
)
from jepa_world_model.core.config import from_toml, to_toml
from jepa_world_model.core.errors import UserError
from jepa_world_model.core.run import Run, atomic_write, check_name, environment, writing
from jepa_world_model.experiment.build import Experiment
from jepa_world_model.experiment.compare import settings_difference
from jepa_world_model.experiment.config import TrainConfig
from jepa_world_model.experiment.fork import describe_fork, find_parent, fork_sentences
from jepa_world_model.losses import multi_box
from jepa_world_model.models import soft_argmax

BY_C = {"multi_box": multi_box.ROUTINE, "soft_argmax": soft_argmax.ROUTINE}
BITS = ("threads", "devices", "versions", "cuda", *BY_C)  # what the last bits of a number depend on


@dataclass(frozen=True)
class Beginning:
    """A run's folder and the state that training takes up."""

    run: Run
    step: int = 0  # optimizer steps done
    extra: Mapping[str, Any] = field(default_factory=dict)  # of the checkpoint it goes on from
    notes: tuple[str, ...] = ()  # to be printed, one sentence each


def begin(experiment: Experiment, average: Average | None) -> Beginning:
    """The run of this configuration, its weights put into the experiment.

    With `resume` the run of this name is taken up where its newest whole checkpoint left it; where there is no run, or no
    checkpoint yet, it starts: the same command begins a run and carries it on after whatever ended it. Of several
    processes the first one looks and tells the others.
    Errors: UserError for a name that is taken (without `resume`), or a checkpoint of another model.
    """
    world, cfg = experiment.task.world, experiment.cfg
    source = world.told(str(_own_checkpoint(cfg) or "")) if world.leads else world.told("")
    about = {} if source or not cfg.fork else _take_over(experiment, average)
    folder = world.told(str(_folder(cfg))) if world.leads else world.told("")
    run = Run(folder=Path(folder))
    if source:
        extra = load_checkpoint(source, experiment.task.model, experiment.optimizer, average)
        load_sizes(experiment, extra.get("loss_sizes") or {})
        notes = _notes(run, cfg, extra["step"]) if world.leads else ()
        return Beginning(run, extra["step"], extra, tuple(notes))
    if about and world.leads:
        atomic_write(run.folder / "fork.json", json.dumps(about, indent=1, default=str) + "\n")
    return Beginning(run, about.get("step", 0), {}, tuple(fork_sentences(about) if about else ()))


def surroundings(argv: Sequence[str] = ()) -> dict[str, Any]:
    """Code, versions, machine and command of this process, and what it finds by C, or why not."""
    return environment(argv) | {name: routine.missing() or "by C" for name, routine in BY_C.items()}


def _own_checkpoint(cfg: TrainConfig) -> Path | None:
    """The newest whole checkpoint of the run to be resumed; damaged ones are set aside."""
    if cfg.resume and not cfg.name:
        raise UserError("--resume needs the --name of the run to continue (or to start)")
    folder = Path(cfg.output_dir) / check_name(cfg.name or "new")
    if not cfg.resume or not (folder / "config.toml").is_file():
        return None
    run = Run.open(folder)
    newest = latest_checkpoint(run.checkpoints)
    if newest:
        _set_damaged_aside(run)
    return newest


def _folder(cfg: TrainConfig) -> Path:
    """The run's folder, made where it is not there."""
    written = replace(cfg, resume=False)
    if cfg.resume:
        return Run.take_up(cfg.output_dir, cfg.name, written, sys.argv).folder
    return Run.create(
        cfg.output_dir, cfg.name, written, slug=Path(cfg.data.source).name, argv=sys.argv
    ).folder


def _take_over(experiment: Experiment, average: Average | None) -> dict[str, Any]:
    """What parent and child both have of modules, moments, running sizes and average; what fork.json says of them.

    Errors: UserError, before anything is written, for a parent that is not there, is done already, or has other shapes.
    """
    cfg, task = experiment.cfg, experiment.task
    parent = find_parent(cfg.fork, cfg.output_dir)
    if parent.step >= cfg.steps:
        raise UserError(
            f"fork: {parent.folder} has done {parent.step} steps there, and this run asks for {cfg.steps}; "
            "ask for more --steps"
        )
    extra = load_common(parent.checkpoint, task.model, experiment.optimizer, average)
    load_sizes(experiment, extra.get("loss_sizes") or {})
    return describe_fork(parent, cfg, task)


def _notes(run: Run, cfg: TrainConfig, step: int) -> list[str]:
    """What has changed since the process before, told and written down; config.toml follows."""
    cfg = replace(cfg, resume=False)
    changed = settings_difference(from_toml(TrainConfig, run.config), cfg)
    _note_resume(run, step, {path: [was, now] for path, (was, now) in changed.items()})
    if changed:
        atomic_write(run.config, to_toml(cfg))
    sentences = (
        f"setting {path}: {was} until step {step}, {now} from there on"
        for path, (was, now) in changed.items()
    )
    return [f"{run.folder} goes on after step {step}", *sentences, *_other_machine(run)]


def _set_damaged_aside(run: Run) -> None:
    """A damaged checkpoint must not count among those that are kept, and may be wanted for a look."""
    for path in run.checkpoints.glob("step-*"):
        try:
            verify_checkpoint(path)
        except UserError:
            with writing(path):
                path.replace(_free(path.with_name(f"damaged-{path.name}")))


def _free(path: Path) -> Path:
    names = [path, *(path.with_name(f"{path.name}-{number}") for number in range(2, 1000))]
    return next(name for name in names if not name.exists())


def _other_machine(run: Run) -> list[str]:
    """A sentence where the last bits of the numbers may differ from those of the process before."""
    try:
        before = json.loads(run.environment.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    now = surroundings()
    odd = [name for name in BITS if isinstance(before, dict) and name in before and before[name] != now[name]]
    if not odd:
        return []
    words = ", ".join(f"{name} {before[name]} -> {now[name]}" for name in odd)
    return [f"this process differs from the one before ({words}), so numbers may differ in their last bits"]


def _note_resume(run: Run, step: int, changed: Mapping[str, Any]) -> None:
    """One line in resumes.jsonl: when, from which step, with which changes."""
    path = run.folder / "resumes.jsonl"
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    row = {"step": step, "date": now, "command": sys.argv, "changed": changed}
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    atomic_write(path, before + json.dumps(row, default=str) + "\n")


def save_sizes(experiment: Experiment) -> dict[str, Any]:
    """The running sizes of the losses as JSON, by name."""
    task = experiment.task
    if task.sizes is None:
        return {}
    state = {name: tensor.tolist() for name, tensor in task.sizes.state_dict().items()}
    return {**state, "names": [loss.name for loss in task.losses]}


def load_sizes(experiment: Experiment, saved: Mapping[str, Any]) -> None:
    """Give each loss the running size that was saved under its name; one without starts afresh."""
    task = experiment.task
    if task.sizes is None or not saved:
        return
    own = [loss.name for loss in task.losses]
    names = saved.get("names") or own
    try:
        places = [names.index(name) if name in names else -1 for name in own]
        mean = [saved["mean"][place] if place >= 0 else 0.0 for place in places]
        seen = saved["seen"] if isinstance(saved["seen"], list) else [saved["seen"]] * len(names)
        seen = [seen[place] if place >= 0 else 0.0 for place in places]
    except (KeyError, IndexError, TypeError):
        raise UserError(
            "the checkpoint's loss_sizes are of other losses; begin a fork, or start anew"
        ) from None
    task.sizes.load_state_dict({"mean": torch.tensor(mean), "seen": torch.tensor(seen)})
