"""`jepa-wm ablate`: train arms that differ in losses or gates, over seeds, and lay them side by side."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from jepa_world_model.core.errors import UserError

EPILOG = """What stands after -- goes to the trainer, in every arm.
A toggle is name=value, several joined by commas; a name is a loss, an edge or a setting of the trainer:
  jepa-wm ablate --toggles "rollout_kstep_h=0" "z->h=0.5" "detach_z_from_h_and_p=false" \\
    --leave-one-out --add sigreg pose_measure_p --seeds 0 1 2 --jobs 2 -- --steps 900
The same command goes on where it was interrupted; finished runs are not repeated."""


def main(argv: Sequence[str]) -> int:
    """Run the arms, write table and page; 1 when a run failed. Errors: UserError before anything runs."""
    words = list(argv)
    cut = words.index("--") if "--" in words else len(words)
    own, flags = _parser().parse_args(words[:cut]), words[cut + 1 :]
    if own.jobs < 1 or min(own.seeds) < 0:
        raise UserError("--jobs must be 1 or above and --seeds 0 or above")
    from jepa_world_model.core.run import atomic_write, writing
    from jepa_world_model.experiment.ablation import check_trials, make_arms, make_trials
    from jepa_world_model.experiment.ablation_page import ablation_page
    from jepa_world_model.experiment.ablation_runs import run_trials
    from jepa_world_model.experiment.ablation_table import results

    arms = make_arms(flags, toggles=own.toggles, leave_one_out=own.leave_one_out, add=own.add)
    trials = make_trials(arms, own.seeds, own.out)
    print(f"{len(arms)} arms: {', '.join(arm.name for arm in arms)}")
    check_trials(trials)
    with writing(own.out):
        own.out.mkdir(parents=True, exist_ok=True)
    failures = run_trials(trials, jobs=own.jobs)
    found = results(trials, failures, own.metrics)
    atomic_write(own.out / "ablation.json", json.dumps(found.to_json(), indent=1) + "\n")
    atomic_write(own.out / "ablation.md", found.to_markdown())
    atomic_write(own.out / "ablation.html", ablation_page(found, own.out.resolve().name))
    print(f"\n{found.to_markdown()}\npage: {own.out / 'ablation.html'}")
    return 1 if failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jepa-wm ablate",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--toggles", nargs="+", default=[], metavar="NAME=VALUE", help="one arm each")
    parser.add_argument(
        "--leave-one-out", action="store_true", help="one arm for each active loss, without it"
    )
    parser.add_argument("--add", nargs="+", default=[], metavar="LOSS[=WEIGHT]", help="one arm each, with it")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="training seeds (0 1 2)")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/ablation"), help="folder of the runs and the page"
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each (1)")
    parser.add_argument("--metrics", nargs="+", default=[], help="what to compare (the report's headlines)")
    return parser
