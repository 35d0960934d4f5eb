"""`jepa-wm diagnose RUN`: question a run's model, and write diagnostics.html and diagnostics.json into its folder."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from jepa_world_model.core.errors import UserError


def main(argv: Sequence[str]) -> None:
    """Write the dashboards, and print what each says. Errors: UserError for what the user can mend."""
    parser = argparse.ArgumentParser(prog="jepa-wm diagnose", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("--step", type=int, help="of the checkpoint; default: the newest")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--windows", type=int, help="held-out windows that are looked at (64)")
    parser.add_argument("--seed", type=int, default=0, help="of the windows; the same seed, the same batch")
    given = parser.parse_args(argv)
    if given.windows is not None and given.windows < 1:
        raise UserError(f"--windows must be 1 or above, got {given.windows}")
    from jepa_world_model.diagnostics.dashboard import NUMBERS
    from jepa_world_model.experiment.diagnose import WINDOWS, diagnose_run

    for folder in given.runs:
        page = diagnose_run(
            folder,
            step=given.step,
            device=given.device,
            windows=WINDOWS if given.windows is None else given.windows,
            seed=given.seed,
        )
        summary = json.loads((folder / NUMBERS).read_text(encoding="utf-8"))["summary"]
        print(f"{folder.name}: {summary}\n{page}")
