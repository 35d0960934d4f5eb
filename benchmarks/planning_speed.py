"""How fast plans are: candidate-steps/s and ms a plan of the Two Rooms benchmark, batched against a loop over candidates.

Command: python benchmarks/planning_speed.py [--episodes 1 10 100] [--threads 1] [--turns 5] [--precision fp32 bf16]

One plan is CEM with 100 samples, 6 rounds, 16 elites and a horizon of 50 steps: 30,000 candidate-steps an episode and 50
for the last mean. The loop rolls one candidate after the other out with the same model, 2 candidates a turn, and scales up.
Arms take turns, figures are medians of CPU seconds of the process, so that a busy machine blurs them less. The model has
the default sizes and untrained weights: what it costs does not depend on what it knows.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from flags import flags_of

from jepa_world_model.envs import generate_two_rooms
from jepa_world_model.latents import Settings
from jepa_world_model.model_config import ModelConfig
from jepa_world_model.models.world_model import WorldModel
from jepa_world_model.planning.costs import LatentDistance
from jepa_world_model.planning.dynamics import WorldModelDynamics, pick_rows
from jepa_world_model.planning.oracles import DoorDistance, TwoRoomsOracle
from jepa_world_model.planning.planners import CemConfig, cem
from jepa_world_model.planning.problem import Problem
from jepa_world_model.planning.reach import GraphDistance, build_reach
from jepa_world_model.planning.rollout import Objective, make_score
from jepa_world_model.planning.worlds import TwoRoomsWorld

HORIZON = 50


def cpu_seconds(function: Callable[[], object]) -> float:
    """CPU time of one call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def make_dynamics(precision: str) -> WorldModelDynamics:
    """A model of the default sizes for Two Rooms."""
    torch.manual_seed(0)
    settings = Settings(
        model=ModelConfig(in_channels=2, image_size=65, action_dim=2, action_kind="continuous")
    )
    model = WorldModel(settings.model, ("encoder", "predictor", "h_to_z", "z_to_h"))
    return WorldModelDynamics(model, settings, TwoRoomsWorld.space, precision=precision)


def arms(dynamics, frames: torch.Tensor, goals: torch.Tensor, cost, rows_at_once: int) -> dict[str, Callable]:
    """The batched plan, and a loop over candidates that does two of them."""
    objective = Objective(cost=cost, rows_at_once=rows_at_once)
    with torch.no_grad():
        state, measure = dynamics.encode(frames), cost.towards(dynamics, dynamics.encode(goals))
    score = make_score(dynamics, state, measure, objective)

    def batched() -> None:
        generator = torch.Generator().manual_seed(0)
        problem = Problem(score=score, episodes=len(frames), horizon=HORIZON, space=dynamics.space,
                          generator=generator, max_norm=1.0)  # fmt: skip
        cem(CemConfig(), problem)

    def loop() -> None:
        actions = torch.randn(2, HORIZON, 2).clamp_(-1, 1)
        with torch.inference_mode():
            for candidate in actions:
                here, total = pick_rows(state, slice(0, 1)), 0.0
                for action in candidate:
                    here = dynamics.step(here, action[None])
                    total = total + measure(here, slice(0, 1))

    return {"batched": batched, "loop": loop}


def main() -> None:
    """Measure and print one JSON line an arm."""
    parser = flags_of(__doc__)
    parser.add_argument("--episodes", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--rows-at-once", type=int, default=Objective().rows_at_once)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    world, runs = TwoRoomsWorld(), {}
    for count in args.episodes:
        frames, goals = (torch.from_numpy(world.draw(rows)) for rows in world.pairs(count, 0))
        for precision in args.precision:
            dynamics = make_dynamics(precision)
            runs[count, precision, "latent"] = arms(
                dynamics, frames, goals, LatentDistance(), args.rows_at_once
            )
            if count == max(args.episodes):
                data = generate_two_rooms(episodes=100, length=91, seed=0)
                parts = np.array_split(np.arange(len(data["states"])), 20)
                z = [dynamics.encode_z(torch.from_numpy(data["frames"][part])).numpy() for part in parts]
                cost = GraphDistance(graph=build_reach(np.concatenate(z), data["bounds"]))
                runs[count, precision, "graph"] = arms(dynamics, frames, goals, cost, args.rows_at_once)
        oracle = TwoRoomsOracle()
        runs[count, "fp32", "simulator, true way"] = arms(
            oracle, frames, goals, DoorDistance(), args.rows_at_once
        )
    times: dict[tuple, dict[str, list[float]]] = {key: {"batched": [], "loop": []} for key in runs}
    for turn in range(1 + args.turns):
        for key, functions in runs.items():
            for name, function in functions.items():
                spent = cpu_seconds(function)
                if turn:
                    times[key][name].append(spent)
    for (count, precision, what), spent in times.items():
        steps = count * HORIZON * (6 * 100 + 1)
        batched = statistics.median(spent["batched"])
        looped = statistics.median(spent["loop"]) / (2 * HORIZON) * steps
        print(json.dumps({
            "episodes": count, "precision": precision, "cost": what, "threads": args.threads,
            "candidate_steps_per_s": round(steps / batched), "ms_a_plan": round(1e3 * batched / count, 1),
            "loop_candidate_steps_per_s": round(steps / looped), "times_faster": round(looped / batched, 1),
        }))  # fmt: skip


if __name__ == "__main__":
    main()
