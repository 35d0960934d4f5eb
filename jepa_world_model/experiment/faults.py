"""What is kept of a step that went wrong: its batch, its terms and, where it was not applied, the weights it met."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from jepa_world_model.core.config import from_toml
from jepa_world_model.core.engine import Faults
from jepa_world_model.core.errors import UserError
from jepa_world_model.core.log import jsonable
from jepa_world_model.core.run import Run, atomic_write, require_space, writing
from jepa_world_model.core.spikes import Spikes
from jepa_world_model.core.task import Task
from jepa_world_model.data.batch import ActionSpace, Batch
from jepa_world_model.experiment.build import Experiment, build_task
from jepa_world_model.experiment.config import TrainConfig

FAULTS, SPIKES = "faults", "spikes"  # folders of a run; one folder a step in them
MOST = 8  # folders of each kind; later ones are counted, not kept
ABOUT, WEIGHTS = "fault.json", "model.safetensors"


def watch_faults(run: Run, experiment: Experiment, extra: Mapping[str, Any]) -> Faults:
    """What a run does about steps that go wrong; `extra` of the checkpoint it goes on from."""
    cfg, leads = experiment.cfg, experiment.task.world.leads
    faults = Faults(skip=cfg.skip_non_finite, spikes=Spikes(cfg.spike_factor) if cfg.spike_factor else None)
    if leads:
        faults.on_non_finite = lambda step, values: _saved(run, experiment, FAULTS, step, values)
        faults.on_spike = lambda step, values: _saved(run, experiment, SPIKES, step, values)
    saved = extra.get("faults") or {}
    faults.skipped = int(saved.get("skipped", 0))
    if faults.spikes and saved.get("spikes"):
        faults.spikes.load_state_dict(saved["spikes"])
    return faults


def faults_state(faults: Faults) -> dict[str, Any]:
    """What a checkpoint holds of them."""
    return {"skipped": faults.skipped, "spikes": faults.spikes.state_dict() if faults.spikes else None}


def _saved(run: Run, experiment: Experiment, kind: str, step: int, values: Mapping[str, float]) -> str:
    """Keep a step; the words that lead to it. What cannot be written never hides the fault itself."""
    place = run.folder / kind / f"step-{step:08d}"
    if place.parent.is_dir() and sum(1 for _ in place.parent.iterdir()) >= MOST and not place.exists():
        return f" ({MOST} such steps are kept in {place.parent} already)"
    try:
        with writing(place):
            save_fault(place, experiment, step, values, weights=kind == FAULTS)
    except (UserError, SafetensorError) as problem:
        return f" (its batch could not be kept: {problem})"
    return f"; replay it with: jepa-wm replay {place}"


def save_fault(
    place: Path, experiment: Experiment, step: int, values: Mapping[str, float], *, weights: bool
) -> None:
    """Write a step's batches, terms and configuration, with `weights` also the model as it is now."""
    task, batches = experiment.task, experiment.whole_batches(step - 1)
    model = {name: value.detach().cpu().contiguous() for name, value in task.model.state_dict().items()}
    tensors = [tensor for batch in batches for tensor in batch.tensors().values()]
    require_space(
        place, sum(tensor.nbytes for tensor in (*tensors, *(model.values() if weights else ()))) + 10_000
    )
    draft = place.with_name(f".{place.name}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for number, batch in enumerate(batches):
        own = {name: tensor.cpu().contiguous() for name, tensor in batch.tensors().items()}
        save_file(own, draft / f"batch-{number}.safetensors")
    if weights:
        save_file({name: value.clone() for name, value in model.items()}, draft / WEIGHTS)
    about = {
        "step": step, "values": {name: jsonable(value) for name, value in values.items()},
        "not_finite": [name for name, value in values.items() if not math.isfinite(value)],
        "space": batches[0].space.to_json(), "batches": len(batches), "processes": task.world.size,
    }  # fmt: skip
    atomic_write(draft / ABOUT, json.dumps(about, indent=1) + "\n")
    shutil.copy(place.parents[1] / "config.toml", draft / "config.toml")
    shutil.rmtree(place, ignore_errors=True)
    draft.rename(place)


@dataclass(frozen=True)
class Replay:
    """What a kept step gives when it is computed again."""

    terms: dict[str, float]
    bad_terms: tuple[str, ...]  # losses whose value is not finite
    bad_gradients: dict[
        str, tuple[str, ...]
    ]  # loss with a finite value -> groups on which its gradient is not
    bad_latents: tuple[str, ...]
    bad_weights: tuple[str, ...]

    @property
    def is_sound(self) -> bool:
        """Whether everything is finite."""
        return not (self.bad_terms or self.bad_gradients or self.bad_latents or self.bad_weights)


def replay(folder: Path, weights: Path | None = None) -> tuple[dict[str, Any], list[Replay]]:
    """(what was written of a kept step, what each of its batches gives now), on the CPU.

    weights: a model.safetensors to use in place of the kept one. Errors: UserError for a folder that is no kept step.
    """
    about, task, batches = read_fault(folder, weights)
    return about, [_again(task, batch, _step(about, number)) for number, batch in enumerate(batches)]


def _step(about: Mapping[str, Any], number: int) -> int:
    return (int(about["step"]) - 1) * int(about["batches"]) + number


def read_fault(folder: Path, weights: Path | None = None) -> tuple[dict[str, Any], Task, list[Batch]]:
    """A kept step: what was written of it, the task with its weights, and its batches."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        space = ActionSpace.from_json(about["space"])
        files = [load_file(folder / f"batch-{number}.safetensors") for number in range(int(about["batches"]))]
        batches = [Batch(**{"state": None, **file}, space=space).validate() for file in files]
        int(about["step"]), dict(about["values"])
    except FileNotFoundError as problem:
        raise UserError(f"{folder} is no kept step: {problem.filename or problem} is missing") from None
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as problem:
        raise UserError(f"{folder} is no kept step, or damaged ({problem})") from None
    cfg = from_toml(TrainConfig, folder / "config.toml")
    sizes = dataclasses.replace(cfg.model, action_dim=space.dim, action_kind=space.kind, backbone_weights="")
    precision = "fp32" if cfg.precision == "auto" else cfg.precision
    task = build_task(dataclasses.replace(cfg, model=sizes, precision=precision))
    source = weights or folder / WEIGHTS
    if not source.is_file():
        raise UserError(f"{folder} kept no weights (a spike was applied); give some with --weights FILE")
    try:
        task.model.load_state_dict(load_file(source))
    except (SafetensorError, RuntimeError) as problem:
        raise UserError(f"{source} does not fit the configuration in {folder} ({problem})") from None
    return about, task, batches


def _again(task: Task, batch: Batch, step: int) -> Replay:
    with torch.no_grad():
        states = task.states(batch, task.wanted, step)
    terms = task.terms(batch, step)
    bad_gradients = {}
    for name, term in terms.items():
        if torch.isfinite(term) and term.requires_grad and (groups := _bad_groups(task, term)):
            bad_gradients[name] = groups
    weights = [name for name, value in task.model.named_parameters() if not _is_finite(value)]
    return Replay(
        terms={name: float(term.detach()) for name, term in terms.items()},
        bad_terms=tuple(name for name, term in terms.items() if not torch.isfinite(term)),
        bad_gradients=bad_gradients,
        bad_latents=tuple(name for name, value in states.items() if not _is_finite(value)),
        bad_weights=tuple(weights),
    )


def _bad_groups(task: Task, term: Tensor) -> tuple[str, ...]:
    """The groups on which the gradient of a term is not finite."""
    flat = [(group, p) for group, members in task.groups.items() for p in members.values()]
    grads = torch.autograd.grad(term, [p for _, p in flat], retain_graph=True, allow_unused=True)
    bad = [
        group
        for (group, _), grad in zip(flat, grads, strict=True)
        if grad is not None and not _is_finite(grad)
    ]
    return tuple(dict.fromkeys(bad))


def _is_finite(value: Any) -> bool:
    """Whether every number of a tree of tensors is finite."""
    if isinstance(value, Tensor):
        return bool(torch.isfinite(value).all()) if value.is_floating_point() else True
    if dataclasses.is_dataclass(value):
        return all(_is_finite(getattr(value, part.name)) for part in dataclasses.fields(value))
    return all(map(_is_finite, value)) if isinstance(value, (tuple, list)) else True
