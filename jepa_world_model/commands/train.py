"""`jepa-wm train`: the same as `python jepa_world_model_trainer.py`."""

from __future__ import annotations

from collections.abc import Sequence

from jepa_world_model.experiment import read_config, train


def main(argv: Sequence[str]) -> None:
    """Train with the given flags."""
    train(read_config(argv, prog="jepa-wm train", description="Train a JEPA world model."))
