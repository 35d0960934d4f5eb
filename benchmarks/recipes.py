"""The shipped recipes on Two Rooms: an equal share of processor time each, then the same cheap planner and a probe.

Command: python benchmarks/recipes.py [--seconds 150] [--seeds 0] [--pairs 40] [--out runs/recipes]

Every recipe trains on one thread for about --seconds CPU-seconds (calibrated by benchmarks/two_rooms.py, which this builds
on), on the same 550 recorded walks, with the same z, batch and window. Then the same planner for all: iCEM, 48 samples in
the first round, 6 rounds, horizon 50, replan 10, 200 steps, the cost looked at every 5th step of a plan; once over the
graph of the training data's z, once along the straight line in z. The untrained model and a random policy stand beside
them. What is done already is not done again. The table goes to <out>/table.md.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from flags import flags_of
from two_rooms import ROOT, Rows, benchmark_plan, planned, trained

from jepa_world_model.commands.docs_recipes import recipes
from jepa_world_model.core.log import read_metrics
from jepa_world_model.core.rng import Streams
from jepa_world_model.experiment.config import TrainConfig
from jepa_world_model.experiment.load import load
from jepa_world_model.experiment.plan import Planning, open_planning, untrained_model
from jepa_world_model.planning.closed_loop import RandomPolicy
from jepa_world_model.planning.planners import IcemConfig
from jepa_world_model.planning.scores import summary, wilson

DATA = (
    "--data.source two_rooms --data.episodes 550 --data.length 91 --data.val-fraction 0.09 --batch-size 16 --seq-len 10 "
    "--model.in-channels 2 --model.image-size 65 --model.z-dim 32 --no-report"
)  # what a recipe does not say: data, sizes and windows, those of configs/two_rooms.toml with fewer walks
COSTS = ("graph", "latent")
UNTRAINED = "untrained"
EVALUATED = {  # evaluation on held-out walks after the last step -> the table's heading
    "eval/latent_one_step_ratio": "one-step error",
    "eval/latent_open_loop_ratio_k8": "8-step error",
    "eval/probe_z_r2": "position in z, R^2",
    "eval/std_z": "std of z",
    "eval/rank_z": "rank of z",
}


def settings(given: argparse.Namespace, name: str) -> argparse.Namespace:
    """What benchmarks/two_rooms.py needs to know to train a recipe."""
    file = ROOT / "configs" / ("" if name == "recommended" else "recipes") / f"{name}.toml"
    cache = ("--data.cache-dir", str(given.out.resolve() / "datasets"))
    every = {"planner": "icem", "every": 5, "precision": "", "graph_frames": 8000, "threads": 1}
    every |= {"schedule": "cosine"}  # one budget, so the rate may fall towards its end
    told = {
        "out": given.out / name,
        "config": str(file),
        "flags": [*DATA.split(), *cache],
        "pairs": given.pairs,
    }
    told["out"].mkdir(parents=True, exist_ok=True)
    return argparse.Namespace(**every, **told)


def planning_for(args: argparse.Namespace, cfg: TrainConfig, cost: str) -> Planning:
    """The planner that all recipes share."""
    plan = dataclasses.replace(benchmark_plan(args, cost), icem=IcemConfig(samples=48))
    return open_planning(plan, cfg)


def model_rows(
    args: argparse.Namespace, rows: Rows, model: Any, cfg: TrainConfig, told: dict, **key: Any
) -> None:
    """A model under both costs, and how far a linear probe of its z errs."""
    for cost in COSTS:
        if rows.has(**key, cost=cost, pairs=args.pairs):
            continue
        planning = planning_for(args, cfg, cost)
        dynamics, made = planning.cost(planning.dynamics(model), cost)
        probe_px = planning.cost(planning.dynamics(model), "true")[0].error
        rows.add(
            planned(planning, dynamics, made) | told | {"probe_px": probe_px},
            **key,
            cost=cost,
            pairs=args.pairs,
        )


def recipe_rows(given: argparse.Namespace, rows: Rows, name: str, seed: int) -> None:
    """Train a recipe and plan with it; beside the first, what needs no training."""
    args = settings(given, name)
    made = [{"recipe": who, "cost": cost} for who in (name, UNTRAINED) for cost in COSTS]
    if all(rows.has(**key, seed=seed, pairs=args.pairs) for key in [*made, {"recipe": "random policy"}]):
        return
    folder, took = trained(args, seed, given.seconds / 60)
    run = load(folder, device="cpu")
    last = next(row for row in reversed(list(read_metrics(folder / "metrics.jsonl"))) if "eval/std_z" in row)
    told = took | {name: last[name] for name in EVALUATED}
    model_rows(args, rows, run.model, run.cfg, told, recipe=name, seed=seed)
    if not rows.has(
        recipe=UNTRAINED, seed=seed
    ):  # same encoder, same start for all: z alone decides what it can do
        model_rows(args, rows, untrained_model(run.cfg), run.cfg, {}, recipe=UNTRAINED, seed=seed)
    if not rows.has(recipe="random policy", seed=seed, pairs=args.pairs):
        shared = planning_for(args, run.cfg, "latent")
        found = summary(shared.follow(RandomPolicy(shared.world, streams=Streams(0))))
        rows.add(found, recipe="random policy", seed=seed, cost="", pairs=args.pairs)


def table(rows: Rows) -> Iterator[str]:
    """One line a recipe, seeds pooled, as markdown."""
    heads = [
        "recipe",
        "steps",
        "CPU-s",
        *EVALUATED.values(),
        "probe of z, px",
        "graph: ever, final < 4.5 px",
        "straight line",
    ]
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for name in dict.fromkeys(row["recipe"] for row in rows.rows):
        mine = [row for row in rows.rows if row["recipe"] == name]
        cells = [
            _mean(mine, "steps", ".0f"),
            _mean(mine, "cpu_s", ".0f"),
            *(_mean(mine, key, ".3g") for key in EVALUATED),
        ]
        cells += [_mean(mine, "probe_px", ".2f")]
        cells += [_success([row for row in mine if row["cost"] in (cost, "")]) for cost in COSTS]
        yield (
            f"| `{name}` | {' | '.join(cells)} |"
            if "probe_px" in mine[0]
            else f"| {name} | {' | '.join(cells)} |"
        )


def _mean(rows: list[dict[str, Any]], key: str, form: str) -> str:
    values = [row[key] for row in rows if key in row]
    return f"{sum(values) / len(values):{form}}" if values else "-"


def _success(rows: list[dict[str, Any]]) -> str:
    rules = [rule for rule in rows[0]["success"] if "4.5" in rule]
    said = []
    for rule in sorted(rules):  # "ever" before "final"
        solved, trials = (
            sum(row["success"][rule]["solved"] for row in rows),
            sum(row["episodes"] for row in rows),
        )
        low, high = wilson(solved, trials)
        said.append(f"{solved / trials:.0%} [{low:.0%}, {high:.0%}]")
    return ", ".join(said)


def main() -> None:
    """Train, plan, and write the table."""
    parser = flags_of(__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/recipes"))
    parser.add_argument("--seconds", type=float, default=150, help="of processor time for each training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--only", nargs="+", default=None, help="names of recipes; default: all")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = Rows(given.out)
    for seed in given.seeds:
        for name in given.only or recipes(ROOT / "configs"):
            recipe_rows(given, rows, name, seed)
    text = "\n".join(table(rows)) + "\n"
    (given.out / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
