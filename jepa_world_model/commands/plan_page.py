"""`jepa-wm plan-page RUN`: a page to pick start and goal on and watch plans: pose lattice, graphs over h and p."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from jepa_world_model.core.errors import UserError


def main(argv: Sequence[str]) -> None:
    """Plan every pair of cells and write one HTML file.

    Errors: UserError for a run of another world, or a model that gives a lone frame no pose.
    """
    parser = argparse.ArgumentParser(prog="jepa-wm plan-page", description=__doc__)
    parser.add_argument("run", type=Path, help="run folder, of a gridworld")
    parser.add_argument("--out", type=Path, help="where to write it; default: RUN/planning/plan.html")
    given = parser.parse_args(argv)
    from jepa_world_model.diagnostics.plan_page import view_of, write_plan_page
    from jepa_world_model.experiment.data import open_dataset, option_value
    from jepa_world_model.experiment.load import load
    from jepa_world_model.planning.dynamics import WorldModelDynamics
    from jepa_world_model.planning.known import Known
    from jepa_world_model.planning.worlds import make_world

    run = load(given.run, device="cpu", precision="fp32")
    if run.cfg.data.source != "gridworld":
        raise UserError(
            f"the page shows gridworlds, but {given.run} learned from {run.cfg.data.source!r}; "
            "`jepa-wm plan` draws the episodes of other worlds"
        )
    world = make_world("gridworld", {k: option_value(v) for k, v in run.cfg.data.options.items()})
    dynamics = WorldModelDynamics(run.task.model, run.task.settings, run.space, pose=True)
    out = given.out or given.run / "planning" / "plan.html"
    view = view_of(Known(dynamics, open_dataset(run.cfg.data)), world)
    print(write_plan_page(view, out, f"Plans of {given.run.resolve().name}"))
