"""A run that was trained, as planning takes it: its configuration and its model. `load` gives the rest besides."""

from __future__ import annotations

import os

import torch

from jepa_world_model.experiment.build import build_task
from jepa_world_model.experiment.config import TrainConfig
from jepa_world_model.experiment.load import load
from jepa_world_model.models.world_model import WorldModel


def load_run(
    folder: str | os.PathLike[str], *, device: str = "cpu", step: int | None = None
) -> tuple[TrainConfig, WorldModel]:
    """The configuration of a run and its model at the newest checkpoint (or that of a step), in eval mode.

    Errors: UserError for a folder that is no run, or has no such checkpoint, or a damaged one.
    """
    run = load(folder, device=device, step=step)
    return run.cfg, run.model


def untrained(cfg: TrainConfig, device: str | torch.device = "cpu") -> WorldModel:
    """The model of a configuration as training starts it, before the encoder is calibrated on data."""
    model = build_task(cfg, device).model
    assert isinstance(model, WorldModel)
    return model.eval().requires_grad_(False)
