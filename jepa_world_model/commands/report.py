"""`jepa-wm report RUN`: write the report page again from what lies in the run folder."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from jepa_world_model.core.errors import UserError


def main(argv: Sequence[str]) -> None:
    """Write report.html of the given run folders."""
    parser = argparse.ArgumentParser(prog="jepa-wm report", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("--diagnostics", action="store_true", help="question the model again before")
    given = parser.parse_args(argv)
    from jepa_world_model.diagnostics.report import write_report

    for folder in given.runs:
        if not (folder / "config.toml").is_file():
            raise UserError(f"{folder} is no run folder: it holds no config.toml; pass a folder below runs/")
        if given.diagnostics:
            from jepa_world_model.experiment.diagnose import (
                diagnose_run,
            )  # loads a model: not needed otherwise

            print(diagnose_run(folder))
        print(write_report(folder))
