"""A run as a folder for others: weights, configuration, model card, and programs that run without this package."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jepa_world_model.core.config import to_toml
from jepa_world_model.core.log import read_metrics
from jepa_world_model.core.run import atomic_write
from jepa_world_model.diagnostics.page import number
from jepa_world_model.diagnostics.scorecard import find
from jepa_world_model.experiment.config import TrainConfig
from jepa_world_model.experiment.load import ACTIONS, LoadedRun
from jepa_world_model.models.pretrained import front_matter
from jepa_world_model.models.programs import export_programs

COPIED = ("reach.json", "environment.json")  # of the run folder, as they are


def release(run: LoadedRun, folder: str | os.PathLike[str], *, programs: bool = True) -> list[Path]:
    """Write everything that others need to use the model of a run; returns the files.

    config.json, model.safetensors and README.md as `WorldModel.save_pretrained` writes them; config.toml and
    actions.json, with which `load` opens the folder; *.pt2 programs, unless told otherwise.
    Errors: UserError for a place that cannot be written or has no room.
    """
    folder = Path(folder)
    about = {"action_space": run.space.to_json(), "training": {"steps": run.step, "dataset": dataset(run)}}
    run.model.save_pretrained(folder, card=card(run), extra=about)
    atomic_write(folder / "config.toml", to_toml(without_places(run.cfg)))
    atomic_write(folder / ACTIONS, json.dumps(run.space.to_json(), indent=1) + "\n")
    for name in COPIED:
        if (run.folder / name).is_file() and run.folder != folder:
            atomic_write(folder / name, shareable(name, (run.folder / name).read_text(encoding="utf-8")))
    if programs:
        export_programs(folder, run.model, run.cfg.model, memory=not run.cfg.force_h_zero)
    return sorted(path for path in folder.iterdir() if path.is_file())


def without_places(cfg: TrainConfig) -> TrainConfig:
    """The configuration without what only one machine knows: its folders, and whose account it logs to."""
    defaults = TrainConfig()
    return dataclasses.replace(
        cfg, output_dir=defaults.output_dir, wandb=defaults.wandb, tensorboard=False, resume=False,
        model=dataclasses.replace(cfg.model, backbone_weights=""),
        data=dataclasses.replace(cfg.data, source=source_for_others(cfg), cache_dir=defaults.data.cache_dir),
    )  # fmt: skip


def shareable(name: str, text: str) -> str:
    """A file of the run folder without the command line, which may hold paths and names of one machine."""
    if name != "environment.json":
        return text
    about = json.loads(text)
    about.pop("command", None)
    return json.dumps(about, indent=2) + "\n"


def dataset_name(cfg: TrainConfig) -> str:
    """What the data are called: a built-in world, or the last name of a folder."""
    return Path(cfg.data.source).name


def source_for_others(cfg: TrainConfig) -> str:
    """Where the data are, without the folders above them on this machine."""
    return dataset_name(cfg) if Path(cfg.data.source).is_absolute() else cfg.data.source


def dataset(run: LoadedRun) -> str:
    """What the run learned from, in a few words."""
    about = environment(run.folder)
    return str(about.get("dataset") or dataset_name(run.cfg))


def environment(folder: Path) -> Mapping[str, Any]:
    """environment.json of a run; empty without one."""
    path = folder / "environment.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def card(run: LoadedRun) -> str:
    """The model card: what it is, how to use it, what moved what, how well it does, and how it was made."""
    model = run.cfg.model
    parts = ", ".join(name for name, _ in run.model.named_children())
    count = sum(p.numel() for p in run.model.parameters())
    git = environment(run.folder).get("git") or {}
    frames = f"{model.in_channels} x {model.image_size} x {model.image_size}"
    lines = [
        front_matter(),
        f"# A JEPA world model of {dataset_name(run.cfg)}", "",
        f"Three states, learned apart: `z` [{model.z_dim}] what a frame shows, `h` [{model.state_dim}] what happens next, "
        f"`p` [{model.pose_dim}] where it leads. {count:,} parameters: {parts}.", "",
        "## Use", "",
        "```python", "import jepa_world_model as jwm", "",
        'run = jwm.load("<this folder>")                  # pip install jepa-world-model',
        f"z = run.encode(frames)                           # frames: uint8 [T, {model.image_size}, {model.image_size}, "
        f"{model.in_channels}]",
        "future = run.imagine(frames, actions).frames     # what follows, from the actions alone", "```", "",
        f"Frames are uint8, {frames} (channels, height, width); actions are {actions_told(run)}.",
        "The `.pt2` files are the same parts as `torch.export` programs: "
        '`torch.export.load("encoder.pt2").module()`.', "",
        *_results(run), *_reach(run),
        "## Made with", "",
        f"{run.step} steps on {dataset(run)}, seed {run.cfg.seed}, {run.cfg.precision}, "
        f"commit {git.get('commit', 'unknown')}{' with changes' if git.get('dirty') else ''}. "
        "`config.toml` holds every setting: `jepa-wm train --config config.toml` trains it anew.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def actions_told(run: LoadedRun) -> str:
    """The action space in words."""
    space = run.space
    names = f" ({', '.join(space.names)})" if space.names else ""
    if space.kind == "discrete":
        return f"whole numbers from 0 to {space.dim - 1}{names}"
    if space.kind == "multi_binary":
        return f"{space.dim} bits{names}"
    ranges = ", ".join(f"{low:g} to {high:g}" for low, high in zip(space.low, space.high, strict=True))
    return f"{space.dim} numbers{names}, {ranges}"


def _results(run: LoadedRun) -> list[str]:
    """The last evaluation on held-out episodes, as a table; nothing where there was none."""
    path = run.folder / "metrics.jsonl"
    found: dict[str, float] = {}
    for row in read_metrics(path) if path.is_file() else ():
        if row["step"] <= run.step:
            found |= {name: value for name, value in row.items() if name.startswith("eval/")}
    known = [(find(name), value) for name, value in found.items()]
    rows = [
        f"| {metric.title} | {number(value)} | {metric.better} | {metric.meaning} |"
        for metric, value in known
        if metric is not None
    ]
    if not rows:
        return []
    return [
        "## On held-out episodes", "", "| metric | value | better | meaning |", "|---|---|---|---|", *rows, "",
    ]  # fmt: skip


def _reach(run: LoadedRun) -> list[str]:
    """The reach table of the run, which was proven before its first step."""
    path = run.folder / "reach.md"
    if not path.is_file():
        return []
    return [
        "## Which loss moved which part", "",
        "Declared, and measured against autograd before the first step (x: moved).", "", path.read_text(encoding="utf-8"),
    ]  # fmt: skip
