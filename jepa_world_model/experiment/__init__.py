"""Floor 5: configurations, what is built from them, and the run."""

from __future__ import annotations

from jepa_world_model.experiment.build import Experiment, build, build_task
from jepa_world_model.experiment.config import LossOptions, TrainConfig, WandbConfig
from jepa_world_model.experiment.data import DataConfig, open_dataset
from jepa_world_model.experiment.fork import read_config
from jepa_world_model.experiment.load import LoadedRun, load
from jepa_world_model.experiment.run import train

__all__ = [
    "DataConfig", "Experiment", "LoadedRun", "LossOptions", "TrainConfig", "WandbConfig", "build", "build_task", "load",
    "open_dataset", "read_config", "train",
]  # fmt: skip
