"""JEPA world models whose gradient routing is declared once, shown, and proven before the first step.

    import jepa_world_model as jwm

    run = jwm.load("runs/x")
    z = run.encode(frames)

What stands in `__all__` is imported when it is first used: the package itself costs milliseconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jepa_world_model.core.errors import UserError
    from jepa_world_model.data.batch import ActionSpace, Batch
    from jepa_world_model.experiment.config import TrainConfig
    from jepa_world_model.experiment.data import DataConfig, open_dataset
    from jepa_world_model.experiment.load import Imagined, LoadedRun, Planned, load
    from jepa_world_model.experiment.run import train
    from jepa_world_model.losses.weights import LossWeights
    from jepa_world_model.model_config import ModelConfig
    from jepa_world_model.models.world_model import WorldModel

__version__ = "0.1.0"
__all__ = [
    "ActionSpace", "Batch", "DataConfig", "Imagined", "LoadedRun", "LossWeights", "ModelConfig", "Planned",
    "TrainConfig", "UserError", "WorldModel", "__version__", "load", "open_dataset", "train",
]  # fmt: skip

_HOME = {
    "ActionSpace": "data.batch", "Batch": "data.batch", "DataConfig": "experiment.data", "Imagined": "experiment.load",
    "LoadedRun": "experiment.load", "Planned": "experiment.load", "LossWeights": "losses.weights",
    "ModelConfig": "model_config", "TrainConfig": "experiment.config", "UserError": "core.errors",
    "WorldModel": "models.world_model", "load": "experiment.load", "open_dataset": "experiment.data",
    "train": "experiment.run",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = found  # the next look-up finds it at once
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
