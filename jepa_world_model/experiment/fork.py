"""A fork: a new run that starts from a checkpoint of another one, with some settings changed, on the same data order."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from jepa_world_model.core.checkpoint import MODEL, latest_checkpoint, verify_checkpoint
from jepa_world_model.core.config import from_toml, load_config
from jepa_world_model.core.errors import UserError
from jepa_world_model.core.task import Task
from jepa_world_model.experiment.compare import routing_sentences, settings_difference
from jepa_world_model.experiment.config import TrainConfig

BEST = "best.json"  # beside the checkpoints: the step, metric and value of the best one
ORDER = ("seed", "batch_size", "accumulate", "seq_len", "data.")  # what the order of the windows depends on


@dataclass(frozen=True)
class Parent:
    """The checkpoint that a fork starts from."""

    folder: Path  # of the run
    step: int
    checkpoint: Path

    @property
    def cfg(self) -> TrainConfig:
        """The configuration of the run."""
        return from_toml(TrainConfig, self.folder / "config.toml")


def read_config(argv: Sequence[str], *, prog: str, description: str) -> TrainConfig:
    """As `load_config`; with `--fork RUN@STEP` every setting that no flag gives is the parent's, but for its name.

    Errors: UserError for a parent that is not there.
    """
    words, fork = list(argv), _value_of(argv, "--fork")
    if not fork or "-h" in words or "--help" in words:
        return load_config(TrainConfig, argv, prog=prog, description=description)
    parent = find_parent(fork, _value_of(argv, "--output-dir") or TrainConfig().output_dir)
    if _value_of(argv, "--config") is None:
        words = ["--config", str(parent.folder / "config.toml"), *words]
    cfg = load_config(TrainConfig, words, prog=prog, description=description)
    return cfg if _value_of(argv, "--name") is not None else replace(cfg, name="")


def _value_of(argv: Sequence[str], flag: str) -> str | None:
    """What the last `flag VALUE` or `flag=VALUE` among the words says; None where there is none."""
    found = None
    for word, following in pairwise([*argv, ""]):
        name, has_value, value = word.partition("=")
        if name.replace("_", "-") == flag:
            found = value if has_value else following
    return found


def find_parent(text: str, output_dir: str) -> Parent:
    """The checkpoint that RUN@STEP names: a run folder, or a name below `output_dir`; a step, "best" or "newest".

    Errors: UserError that lists the steps there are.
    """
    name, _, step = text.rpartition("@")
    if not name or not step:
        raise UserError(
            f"fork is {text!r}; write RUN@STEP: a run's folder or name, and a step of which it keeps a checkpoint, or "
            "best, or newest"
        )
    folder = next(
        (path for path in (Path(name), Path(output_dir) / name) if (path / "config.toml").is_file()), None
    )
    if folder is None:
        raise UserError(
            f"fork: there is no run at {name} nor at {Path(output_dir) / name}; give a folder below runs/"
        )
    path = _chosen(folder, step)
    verify_checkpoint(path)
    return Parent(folder, int(path.name.partition("-")[2]), path)


def _chosen(folder: Path, step: str) -> Path:
    places = folder / "checkpoints"
    if step == "best" and (places / BEST).is_file():
        step = str(json.loads((places / BEST).read_text(encoding="utf-8"))["step"])
    path = latest_checkpoint(places) if step == "newest" else None
    if step.isdigit():
        path = places / f"step-{int(step):08d}"
    if path is None or not path.is_dir():
        there = sorted(int(found.name.partition("-")[2]) for found in places.glob("step-*"))
        raise UserError(
            f"fork: {folder} keeps no checkpoint of step {step}; it keeps {', '.join(map(str, there)) or 'none'} "
            "(a run with --keep-checkpoints 0 keeps them all)"
        )
    return path


def describe_fork(parent: Parent, cfg: TrainConfig, task: Task) -> dict[str, Any]:
    """What fork.json says: the parent, and everything in which the child differs from it."""
    manifest = verify_checkpoint(parent.checkpoint)
    before = {name.partition(".")[0] for name in manifest["weights"]}
    changed = settings_difference(parent.cfg, cfg)
    return {
        "parent": str(parent.folder),
        "step": parent.step,
        "checkpoint": parent.checkpoint.name,
        "sha256": manifest["sha256"][MODEL],
        "new_groups": [name for name in task.groups if name not in before],
        "dropped_groups": sorted(before - set(task.groups)),
        "changed": {path: [was, now] for path, (was, now) in changed.items()},
        "routing": routing_sentences(parent.cfg, cfg, (parent.folder.name, "this run")),
    }


def fork_sentences(about: Mapping[str, Any]) -> list[str]:
    """The notes that a fork begins with."""
    found = [f"a fork of {about['parent']} after step {about['step']}"]
    if about["new_groups"]:
        found.append(f"fresh weights, since the parent has none: {', '.join(about['new_groups'])}")
    if about["dropped_groups"]:
        found.append(f"of the parent, but needed by no loss here: {', '.join(about['dropped_groups'])}")
    found += [f"{path}: {was} in the parent, {now} here" for path, (was, now) in about["changed"].items()]
    if not about["changed"]:
        found.append("no setting differs from the parent's, so the numbers will be the same too")
    if odd := [path for path in about["changed"] if path.startswith(ORDER)]:
        found.append(f"{', '.join(odd)} differs, so the windows come in another order than in the parent")
    return found
