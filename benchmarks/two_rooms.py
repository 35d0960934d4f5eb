"""B1: Two Rooms by planning, at several budgets of training, with model error and cost error told apart.

Command: python benchmarks/two_rooms.py [--seeds 0 1 2] [--minutes 5 10 20 30] [--threads 2] [--pairs 100]
         python benchmarks/two_rooms.py --perfect        the rows that need no training, a few minutes
         python benchmarks/two_rooms.py --config configs/two_rooms_random.toml      B1-random

A budget of m minutes is m * 60 * threads CPU-seconds of one training process, loading included: a short and a longer
calibration run tell what a step costs, and so how many steps a budget buys.
A seed is one run below --out, at a constant rate and with averaged weights, that goes on from budget to budget, which
are named from the smallest to the largest. What is there is not done again: finished rows of rows.jsonl are skipped, a
run that was cut off is resumed. Every budget is planned with --costs, those of --whole with every cost, each under
--dynamics. The table goes to <out>/table.md.

Walls are those of the configuration's data. Where they differ from episode to episode no graph of all data, and no table
of a model's cost for perfect dynamics, knows the place at hand: the cost is a graph of similar scenes instead, under the
model's dynamics.

The planner of every row is the benchmark's: CEM, 100 samples, 6 rounds, 16 elites, horizon 50, replan 10, 200 steps.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from flags import flags_of

from jepa_world_model.core.config import load_config
from jepa_world_model.core.errors import UserError
from jepa_world_model.core.rng import Streams
from jepa_world_model.envs import generate_two_rooms
from jepa_world_model.experiment import TrainConfig
from jepa_world_model.experiment.data import option_value
from jepa_world_model.experiment.load import load
from jepa_world_model.experiment.plan import Planning, effort, manifest, open_planning, untrained_model
from jepa_world_model.experiment.plan_config import PlanConfig
from jepa_world_model.planning.closed_loop import RandomPolicy, StillPolicy, plan_episodes
from jepa_world_model.planning.costs import LatentDistance
from jepa_world_model.planning.decompose import TabulatedCost
from jepa_world_model.planning.oracles import DoorDistance, TwoRoomsOracle
from jepa_world_model.planning.reach import GraphDistance, build_reach
from jepa_world_model.planning.roadmap import RoadmapDistance
from jepa_world_model.planning.rollout import Objective
from jepa_world_model.planning.scores import summary, wilson
from jepa_world_model.planning.worlds import TwoRoomsWorld

ROOT = Path(__file__).parents[1]
CALIBRATION = (20, 60)  # steps of the two runs that tell what a step costs
MODEL, PERFECT = "learned", "perfect"  # dynamics
STRAIGHT, TRUE = "straight line in px", "true way"  # costs of perfect dynamics alone
FIXED_COSTS = ("graph", "latent", "steps", "true")
RANDOM_COSTS = ("scenes", "roadmap", "latent", "steps", "true")  # where walls differ from episode to episode


class Rows:
    """rows.jsonl: one row a (seed, minutes, dynamics, cost)."""

    def __init__(self, out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.path = out / "rows.jsonl"
        text = self.path.read_text() if self.path.exists() else ""
        self.rows = [json.loads(line) for line in text.splitlines() if line.endswith("}")]

    def has(self, **key: Any) -> bool:
        """Whether a row with these values is there."""
        return any(all(row.get(name) == value for name, value in key.items()) for row in self.rows)

    def add(self, found: dict[str, Any], **key: Any) -> None:
        """Write a row down at once, and print its headline."""
        self.rows.append(key | found)
        with self.path.open("a") as file:
            file.write(json.dumps(self.rows[-1]) + "\n")
        rates = ", ".join(f"{rule} {row['rate']:.0%}" for rule, row in found["success"].items())
        print(f"{key}: {rates}, final {found['mean_final_distance']:.1f} px", flush=True)


def trainer(args: argparse.Namespace, name: str, seed: int, steps: int, *more: str) -> float:
    """Train in a process of its own; its CPU-seconds."""
    words = [sys.executable, str(ROOT / "jepa_world_model_trainer.py"), "--config", args.config, "--name", name,
             "--output-dir", str(args.out), "--seed", str(seed), "--steps", str(steps), "--threads", str(args.threads),
             *args.flags, *more]  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise UserError(f"the training {name} failed: {done.stderr.strip().splitlines()[-1:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def step_cost(args: argparse.Namespace) -> tuple[float, float]:
    """(CPU-seconds before the first step and after the last, CPU-seconds a step), measured once for an output folder."""
    path = args.out / "calibration.json"
    if not path.exists():
        plain = ("--eval-every", "0", "--checkpoint-every", "0", "--no-report")
        spent = []
        trainer(args, f"warm-{args.threads}", 0, 2, *plain)  # the data set is made here
        for steps in CALIBRATION:
            spent.append(trainer(args, f"calibrate-{args.threads}-{steps}", 0, steps, *plain))
        step = (spent[1] - spent[0]) / (CALIBRATION[1] - CALIBRATION[0])
        path.write_text(
            json.dumps({"start_s": spent[0] - CALIBRATION[0] * step, "step_s": step, "runs_s": spent})
        )
    told = json.loads(path.read_text())
    return told["start_s"], told["step_s"]


def steps_of(args: argparse.Namespace, minutes: float) -> int:
    """How many steps a budget buys, in whole tens."""
    start_s, step_s = step_cost(args)
    return max(int((minutes * 60 * args.threads - start_s) / step_s) // 10, 1) * 10


def trained(args: argparse.Namespace, seed: int, minutes: float) -> tuple[Path, dict[str, Any]]:
    """The run of a seed, trained up to a budget or found there; with what it took so far.

    At a constant rate and with averaged weights a run does not know how long it goes on, so that one which is there is
    the beginning of a longer one.
    """
    steps, folder = steps_of(args, minutes), args.out / f"b1-s{seed}"
    note = folder / "took.json"
    took = json.loads(note.read_text()) if note.exists() else {}
    if str(steps) not in took:
        longer = [int(step) for step in took if int(step) > steps]
        if longer:
            raise UserError(
                f"{folder} is at step {min(longer)}, past {steps}; name budgets in order, or another --out"
            )
        more = ["--eval-every", "0", "--checkpoint-every", "500", "--keep-checkpoints", "1000",
                "--optim.schedule", args.schedule]  # fmt: skip
        spent = trainer(args, folder.name, seed, steps, *more, *(["--resume"] if folder.exists() else []))
        before = max((row["cpu_s"] for row in took.values()), default=0.0)
        took[str(steps)] = {"steps": steps, "cpu_s": round(before + spent, 1)}
        note.write_text(json.dumps(took))
    size = load_config(TrainConfig, ["--config", str(folder / "config.toml")], prog="two_rooms.py")
    windows = steps * size.batch_size
    return folder, took[str(steps)] | {"windows": windows, "frames": windows * size.seq_len}


def benchmark_plan(args: argparse.Namespace, cost: str) -> PlanConfig:
    """The shared planner: the defaults of a plan, and those of Two Rooms, are the benchmark's."""
    return PlanConfig(env="two_rooms", episodes=args.pairs, seed=0, cost=cost, planner=args.planner,
                      every=args.every, precision=args.precision, graph_frames=args.graph_frames)  # fmt: skip


def perfect_rows(args: argparse.Namespace, rows: Rows) -> None:
    """What needs no training: chance, and perfect dynamics under the straight line, a graph and the true way."""
    world, oracle = TwoRoomsWorld(random_wall=args.random_wall), TwoRoomsOracle()
    plan, graph = benchmark_plan(args, "latent"), ("graph of true positions", lambda: true_graph(args))
    if args.random_wall:
        graph = ("roadmap of true positions", lambda: RoadmapDistance(latent="xy"))
    shared = Planning(plan, None, world, lambda: None)
    for name, policy in (
        ("random policy", RandomPolicy(world, streams=Streams(0))),
        ("standing still", StillPolicy(world)),
    ):
        if not rows.has(dynamics=name, pairs=args.pairs):
            rows.add(summary(shared.follow(policy)), dynamics=name, cost="", pairs=args.pairs)
    for name, cost in (
        (STRAIGHT, lambda: LatentDistance(latent="xy")),
        (TRUE, DoorDistance),
        graph,
    ):
        if not rows.has(dynamics=PERFECT, cost=name, pairs=args.pairs):
            rows.add(planned(shared, oracle, cost()), dynamics=PERFECT, cost=name, pairs=args.pairs)


def true_graph(args: argparse.Namespace) -> GraphDistance:
    """A graph of the data's true positions: what the cost itself loses, no latent being in between."""
    made = generate_two_rooms(episodes=max(args.graph_frames // 91, 2), length=91, seed=0)
    return GraphDistance(graph=build_reach(made["states"], made["bounds"]), latent="xy")


def planned(planning: Planning, dynamics: Any, cost: Any) -> dict[str, Any]:
    """One arm."""
    plan = planning.plan
    objective = Objective(cost=cost, over=plan.over, every=plan.every)
    episodes, policy = plan_episodes(
        planning.world, dynamics, planner=plan.planner_for("continuous"), objective=objective,
        cfg=plan.loop("two_rooms"), count=plan.episodes, seed=plan.seed,
    )  # fmt: skip
    return summary(episodes) | effort(policy)


def model_rows(args: argparse.Namespace, rows: Rows, seed: int, minutes: float, whole: bool) -> None:
    """The rows of one budget of a run, under the model and under perfect dynamics; `whole`: every cost."""
    folder, took = trained(args, seed, minutes)
    run, world = load(folder, device="cpu", step=took["steps"]), TwoRoomsWorld(random_wall=args.random_wall)
    has_steps = hasattr(run.model, "temporal_distance")
    every = RANDOM_COSTS if args.random_wall else FIXED_COSTS
    costs = [cost for cost in every if (whole or cost in args.costs) and (has_steps or cost != "steps")]
    for cost in costs:
        key = {"seed": seed, "minutes": minutes, "cost": cost, "pairs": args.pairs}
        planning = open_planning(benchmark_plan(args, cost), run.cfg)
        missing = [name for name in args.dynamics if not rows.has(**key, dynamics=name)]
        missing = [name for name in missing if name == MODEL or (cost != "true" and not args.random_wall)]
        if not missing:
            continue
        dynamics, made = planning.cost(planning.dynamics(run.model), cost)
        for name in missing:
            arm = (
                (dynamics, made)
                if name == MODEL
                else (TwoRoomsOracle(), TabulatedCost(dynamics, made, world))
            )
            rows.add(planned(planning, *arm) | took, **key, dynamics=name)
    first = every[0]
    if whole and not rows.has(seed=seed, dynamics="untrained", pairs=args.pairs):
        planning = open_planning(benchmark_plan(args, first), run.cfg)
        dynamics, made = planning.cost(planning.dynamics(untrained_model(run.cfg)), first)
        rows.add(
            planned(planning, dynamics, made), seed=seed, dynamics="untrained", cost=first, pairs=args.pairs
        )
    about = manifest(open_planning(benchmark_plan(args, first), run.cfg), run.model, run.step)
    (folder / "planning").mkdir(exist_ok=True)
    (folder / "planning" / "b1.json").write_text(json.dumps(about, indent=1, default=str))


def table(rows: Rows) -> Iterator[str]:
    """The rows as markdown, seeds pooled: the interval is of all pairs, the range of the seeds' rates."""
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows.rows:
        groups.setdefault((row.get("minutes", 0), row["dynamics"], row["cost"]), []).append(row)
    heads = ("minutes", "dynamics", "cost", "seeds", "final < 4.5 px", "ever < 4.5", "ever < 1.41", "final px",
             "steps to goal", "windows")  # fmt: skip
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for (minutes, dynamics, cost), found in sorted(groups.items(), key=lambda item: item[0]):
        cells = []
        for rule in found[0]["success"]:
            solved = sum(row["success"][rule]["solved"] for row in found)
            trials = sum(row["episodes"] for row in found)
            low, high = wilson(solved, trials)
            rates = [row["success"][rule]["rate"] for row in found]
            between = f", {min(rates):.0%} to {max(rates):.0%}" if len(rates) > 1 else ""
            cells.append(f"{solved / trials:.1%} [{low:.0%}, {high:.0%}]{between}")
        final = sum(row["mean_final_distance"] for row in found) / len(found)
        steps = [row["mean_steps_to_goal"] for row in found if row["mean_steps_to_goal"] is not None]
        told = f"{sum(steps) / len(steps):.1f}" if steps else "-"
        yield (f"| {f'{minutes:g}' if minutes else '-'} | {dynamics} | {cost or '-'} | {len(found)} | {' | '.join(cells)} | "
               f"{final:.1f} | {told} | {found[0].get('windows', '-')} |")  # fmt: skip


def main() -> None:
    """Train, plan, and write the table."""
    parser = flags_of(__doc__)
    parser.epilog = "Flags of the trainer for every run follow a lone --."
    parser.add_argument("--out", type=Path, default=Path("runs/two_rooms_b1"))
    parser.add_argument("--config", default=str(ROOT / "configs" / "two_rooms.toml"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, nargs="+", default=[5, 10, 20, 30])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--costs", nargs="+", default=["graph", "scenes", "latent"], help="at every budget")
    parser.add_argument(
        "--planner", default="cem", help="other than the benchmark's: name it beside the figure"
    )
    parser.add_argument(
        "--every", type=int, default=1, help="steps between two looks at the cost inside a plan"
    )
    parser.add_argument("--graph-frames", type=int, default=20_000)
    parser.add_argument("--precision", default="", help="of the plans: fp32 or bf16; empty: as trained")
    parser.add_argument(
        "--whole", type=float, nargs="*", help="budgets that get every cost; left out: the largest"
    )
    parser.add_argument("--dynamics", nargs="+", choices=(MODEL, PERFECT), default=[MODEL, PERFECT])
    parser.add_argument("--perfect", action="store_true", help="only the rows that need no training")
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    args = parser.parse_args(words[:cut])
    args.flags, args.schedule = words[cut + 1 :], "constant"
    data = load_config(TrainConfig, ["--config", args.config, *args.flags], prog="two_rooms.py").data
    args.random_wall = bool(option_value(data.options.get("random_wall", "false")))
    torch.set_num_threads(args.threads)
    rows = Rows(args.out)
    perfect_rows(args, rows)
    if not args.perfect:
        whole = [max(args.minutes)] if args.whole is None else args.whole
        for minutes in args.minutes:
            for seed in args.seeds:
                model_rows(args, rows, seed, minutes, whole=minutes in whole)
    text = "\n".join(table(rows)) + "\n"
    (args.out / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
