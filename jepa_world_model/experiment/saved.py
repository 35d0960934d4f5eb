"""A run that was trained, read back: its configuration and its model."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from jepa_world_model.core.checkpoint import latest_checkpoint, load_checkpoint
from jepa_world_model.core.config import from_toml
from jepa_world_model.core.errors import UserError
from jepa_world_model.core.run import Run
from jepa_world_model.experiment.build import build_task, resolve_device
from jepa_world_model.experiment.config import TrainConfig
from jepa_world_model.models.world_model import WorldModel


def load_run(
    folder: str | os.PathLike[str], *, device: str = "cpu", step: int | None = None
) -> tuple[TrainConfig, WorldModel]:
    """The configuration of a run and its model at the newest checkpoint (or that of a step), in eval mode.

    Errors: UserError for a folder that is no run, or has no such checkpoint, or a damaged one.
    """
    run = Run.open(folder)
    cfg = from_toml(TrainConfig, run.config)
    path = latest_checkpoint(run.checkpoints) if step is None else run.checkpoints / f"step-{step:08d}"
    if path is None or not path.is_dir():
        there = sorted(int(p.name.split("-")[1]) for p in Path(run.checkpoints).glob("step-*"))
        raise UserError(
            f"{folder} has no checkpoint{'' if step is None else f' of step {step}'}; "
            + (f"there are {there}" if there else "train it to a checkpoint first")
        )
    model = build_task(cfg, resolve_device(device)).model
    load_checkpoint(path, model)
    return cfg, model.eval().requires_grad_(False)


def untrained(cfg: TrainConfig, device: str | torch.device = "cpu") -> WorldModel:
    """The model of a configuration as training starts it, before the encoder is calibrated on data."""
    return build_task(cfg, device).model.eval().requires_grad_(False)
