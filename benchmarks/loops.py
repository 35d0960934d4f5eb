"""B2, loops to interior: which planners reach places that no data showed.

Command: python benchmarks/loops.py [--config configs/pose_planning.toml] [--seeds 0 1 2] [--layout open pinwheel]
                                    [--out runs/loops] [--pairs 50] [--arms h_graph p_lattice ...] [--untrained]

Trains one run a seed and layout on walks round the ring and its corners (a run that is there is used, one that was cut
short goes on), then asks every planner for tests 0 (inside the data), 1 (from the loop to the unseen interior) and 2
(inside it). Start and goal come from the world's own search, a goal is one frame, and success is the agent's true cell
after the plan was executed. results.jsonl holds one line an arm; a line that is there is not computed again.
"""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import numpy as np
from flags import flags_of

from jepa_world_model.core.checkpoint import latest_checkpoint, read_extra
from jepa_world_model.core.config import from_toml
from jepa_world_model.core.rng import Streams
from jepa_world_model.data.episodes import Episodes as Dataset
from jepa_world_model.diagnostics.plan_page import view_of, write_plan_page
from jepa_world_model.envs.loops import TESTS, Pairs, make_pairs
from jepa_world_model.experiment import TrainConfig, build, load, open_dataset, train
from jepa_world_model.planning.closed_loop import (
    LoopConfig,
    PlanningPolicy,
    Policy,
    RandomPolicy,
    run_episodes,
)
from jepa_world_model.planning.costs import LatentDistance
from jepa_world_model.planning.dynamics import Dynamics, WorldModelDynamics
from jepa_world_model.planning.known import Known
from jepa_world_model.planning.oracles import make_oracle, true_cost
from jepa_world_model.planning.planners import CategoricalCemConfig
from jepa_world_model.planning.rollout import Objective
from jepa_world_model.planning.routes import GraphRouter, LatticeRouter, RoutePolicy
from jepa_world_model.planning.scores import summary, weights_hash, wilson
from jepa_world_model.planning.worlds import GridworldWorld

STEPS = 60  # of an episode; a route that is done rests
CEM = LoopConfig(steps=40, horizon=12, replan=4)
SEARCH = CategoricalCemConfig(samples=64, rounds=4, elites=10)


class Arms:
    """Every planner over one model and its data."""

    def __init__(self, known: Known, world: GridworldWorld, seed: int) -> None:
        self.known, self.dynamics, self.world, self.seed = known, known.dynamics, world, seed

    def graph(self, name: str, count: int) -> Policy:
        """Shortest ways over the data in h or p."""
        graph = self.known.graph(name)
        return RoutePolicy(self.dynamics, [GraphRouter(graph, name) for _ in range(count)], step=graph.step)

    def lattice(self, count: int, *, look: bool) -> Policy:
        """Sums of increments."""
        steps = self.known.steps
        routers = [LatticeRouter(steps.mean) for _ in range(count)]
        return RoutePolicy(self.dynamics, routers, look=look, step=steps.step)

    def cem(self, dynamics: Dynamics, cost) -> Policy:
        """Search through imagined steps, planned anew every few."""
        return PlanningPolicy(
            dynamics, SEARCH, Objective(cost=cost), CEM, streams=Streams(self.seed), max_norm=float("inf")
        )

    def policy(self, arm: str, count: int) -> Policy:
        """The policy of an arm."""
        makers = {
            "h_graph": lambda: self.graph("h", count),
            "p_graph": lambda: self.graph("p", count),
            "p_lattice": lambda: self.lattice(count, look=False),
            "p_lattice_looking": lambda: self.lattice(count, look=True),
            "z_cem": lambda: self.cem(self.dynamics, LatentDistance()),
            "oracle_cem": lambda: self.cem(make_oracle(self.world), true_cost(self.world)),
            "random": lambda: RandomPolicy(self.world, streams=Streams(self.seed)),
        }
        return makers[arm]()


ARMS = ("h_graph", "p_graph", "p_lattice", "p_lattice_looking", "z_cem", "oracle_cem", "random")


def trained(config: Path, layout: str, seed: int, out: Path) -> Path:
    """The run of a seed: trained now, or gone on with, unless it is there."""
    base = from_toml(TrainConfig, config)
    data = dataclasses.replace(base.data, options={**base.data.options, "layout": layout})
    folder = out / f"{layout}-s{seed}"
    newest = latest_checkpoint(folder / "checkpoints") if folder.is_dir() else None
    if newest is not None and int(read_extra(newest)["step"]) >= base.steps:
        return folder
    return train(
        dataclasses.replace(
            base, data=data, seed=seed, output_dir=str(out), name=folder.name, resume=newest is not None
        )
    )


def dynamics_of(folder: Path, *, untrained: bool) -> tuple[Dynamics, Dataset, str]:
    """The model of a run, or the one its training began with; its data; the hash of its weights."""
    run = load(folder, device="cpu", precision="fp32")
    task = build(dataclasses.replace(run.cfg, device="cpu", resume=False)).task if untrained else run.task
    dynamics = WorldModelDynamics(task.model, run.task.settings, run.space, pose=True)
    return dynamics, open_dataset(run.cfg.data), weights_hash(task.model)


def evaluate(arms: Arms, arm: str, pairs: Pairs) -> dict:
    """One arm on one test."""
    begin = time.perf_counter()
    steps = CEM.steps if arm.endswith("cem") else STEPS
    policy = arms.policy(arm, len(pairs.start))
    found = run_episodes(arms.world, policy, pairs.start, pairs.goal, steps)
    record = {"arm": arm, "test": pairs.test, "pairs": pairs.digest[:16], "seconds": 0.0, **summary(found)}
    if isinstance(policy, RoutePolicy):
        record["routes_found"] = sum(route.reached for route in policy.first)
    return record | {"seconds": round(time.perf_counter() - begin, 1)}


def table(rows: list[dict]) -> str:
    """Success over all seeds as Markdown: solved / asked, the 95 % interval, and path length over the optimum."""
    lines = []
    for layout in sorted({row["layout"] for row in rows}):
        lines += [f"\n{layout}\n", "| model | planner | " + " | ".join(f"test {t}" for t in TESTS) + " |"]
        lines.append("|---" * (2 + len(TESTS)) + "|")
        for model in ("trained", "untrained"):
            for arm in ARMS:
                mine = [r for r in rows if (r["layout"], r["model"], r["arm"]) == (layout, model, arm)]
                if mine:
                    cells = [cell([r for r in mine if r["test"] == test]) for test in TESTS]
                    lines.append(f"| {model} | {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(rows: list[dict]) -> str:
    """One entry of the table."""
    asked = sum(row["episodes"] for row in rows)
    if not asked:
        return ""
    won = sum(row["success"]["final"]["solved"] for row in rows)
    low, high = wilson(won, asked)
    ratio = [row["path_over_optimal"] for row in rows if row["path_over_optimal"] is not None]
    return f"{won}/{asked} [{low:.2f}, {high:.2f}]" + (f", x{np.mean(ratio):.2f}" if ratio else "")


def main() -> None:
    """Train, ask, tabulate."""
    parser = flags_of(__doc__)
    parser.add_argument("--config", type=Path, default=Path("configs/pose_planning.toml"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--layout", nargs="+", default=["open"])
    parser.add_argument("--out", type=Path, default=Path("runs/loops"))
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--page", action="store_true", help="write a page to watch the plans of each run on")
    parser.add_argument("--untrained", action="store_true", help="the weights that training began with, too")
    args = parser.parse_args()
    path = args.out / "results.jsonl"
    for layout in args.layout:
        tests = [make_pairs(test, layout=layout, count=args.pairs) for test in TESTS]
        folders = {seed: trained(args.config, layout, seed, args.out) for seed in args.seeds}
        for seed, folder in folders.items():
            rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
            for model in ("trained", "untrained") if args.untrained else ("trained",):
                dynamics, data, digest = dynamics_of(folder, untrained=model == "untrained")
                known, world = Known(dynamics, data), GridworldWorld(layout=layout)
                arms = Arms(known, world, seed)
                if args.page and model == "trained":
                    page = args.out / f"plan-{folder.name}.html"
                    print(write_plan_page(view_of(known, world), page, f"Plans: {layout}, seed {seed}"))
                for arm in args.arms:
                    for pairs in tests:
                        key = {"layout": layout, "seed": seed, "model": model, "weights": digest[:16]}
                        asked = key | {"arm": arm, "test": pairs.test, "pairs": pairs.digest[:16]}
                        if any(all(row.get(k) == v for k, v in asked.items()) for row in rows):
                            continue
                        record = key | evaluate(arms, arm, pairs)
                        with path.open("a") as file:
                            file.write(json.dumps(record) + "\n")
                        print(layout, seed, model, arm, pairs.test, record["success"]["final"], flush=True)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    print(table([row for row in rows if row["layout"] in args.layout and row["seed"] in args.seeds]))


if __name__ == "__main__":
    main()
