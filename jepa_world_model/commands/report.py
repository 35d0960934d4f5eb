"""`jepa-wm report RUN`: write the report page again from what lies in the run folder."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from jepa_world_model.core.errors import UserError
from jepa_world_model.diagnostics.report import write_report


def main(argv: Sequence[str]) -> None:
    """Write report.html of the given run folders."""
    parser = argparse.ArgumentParser(prog="jepa-wm report", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    for folder in parser.parse_args(argv).runs:
        if not (folder / "config.toml").is_file():
            raise UserError(f"{folder} is no run folder: it holds no config.toml; pass a folder below runs/")
        print(write_report(folder))
