"""Train a JEPA world model: `python jepa_world_model_trainer.py --help`."""

from __future__ import annotations

import sys

from jepa_world_model.core.config import cli_main
from jepa_world_model.experiment import TrainConfig, read_config, train
from jepa_world_model.losses import LossWeights

__all__ = ["LossWeights", "TrainConfig", "main"]


def main(argv: list[str] | None = None) -> int:
    """Configuration from defaults, then `--config FILE` or a fork's parent, then flags; one run; returns the exit code."""

    def run() -> None:
        train(read_config(flags, prog="jepa_world_model_trainer.py", description=__doc__))

    flags = sys.argv[1:] if argv is None else argv
    return cli_main(run)


if __name__ == "__main__":
    sys.exit(main())
