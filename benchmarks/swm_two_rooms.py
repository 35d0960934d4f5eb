"""A run in stable-worldmodel's own Two Rooms evaluator, beside chance and its expert.

Commands, in an environment with the extra swm:
    python benchmarks/swm_two_rooms.py collect --out train.h5 --episodes 200 --noise 1.0 --seed 0
    python benchmarks/swm_two_rooms.py collect --out eval.h5 --episodes 60 --noise 0.0 --seed 100000
    jepa-wm train --data.source train.h5 --name two_room --steps 900 --threads 1
    python benchmarks/swm_two_rooms.py score --run runs/two_room --dataset eval.h5 --episodes 25

Protocol: its dataset-driven evaluation. An episode starts at a state of an expert's episode, the goal is the picture of the
state `--goal-offset` steps later, and it is won when the dot comes within 16 of 224 px of the goal in `--budget` steps. The
model plans with its cross-entropy solver over our `PlanCost`; so does the model as training started it. Random actions and
its expert, which reads the true state, act on the same starts and goals.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import io
import time
import warnings
from typing import Any

import numpy as np
from flags import flags_of

import jepa_world_model as jwm
from jepa_world_model.core.errors import UserError
from jepa_world_model.experiment.plan import untrained_model
from jepa_world_model.experiment.stable_worldmodel import stable_worldmodel, world_model_policy

ENV = "swm/TwoRoom-v1"
SETTERS = [  # how its own scripts put the environment into a state of the data
    {"method": "_set_state", "args": {"state": {"value": "state"}}},
    {"method": "_set_goal_state", "args": {"goal_state": {"value": "goal_state"}}},
]


def collect(given: argparse.Namespace) -> None:
    """Record episodes of its expert, with noise on every action."""
    swm = stable_worldmodel()
    from stable_worldmodel.envs.two_room.expert_policy import ExpertPolicy

    world = swm.World(ENV, num_envs=8, image_shape=(given.size, given.size), max_episode_steps=60)
    world.set_policy(ExpertPolicy(action_noise=given.noise, seed=given.seed))
    began = time.perf_counter()
    world.collect(given.out, episodes=given.episodes, seed=given.seed, format="hdf5", progress=False)
    print(f"{given.out}: {given.episodes} episodes in {time.perf_counter() - began:.0f} s")


def cases(dataset: Any, count: int, offset: int, seed: int) -> tuple[list[int], list[int]]:
    """Episodes and first steps, so that each goal lies `offset` steps ahead; fixed by the seed."""
    rng = np.random.default_rng(seed)
    fitting = np.flatnonzero(dataset.lengths > offset)
    if len(fitting) < count:
        raise UserError(
            f"{len(fitting)} episodes are longer than {offset} steps, {count} were asked for; record more"
        )
    chosen = np.sort(rng.permutation(fitting)[:count])
    return chosen.tolist(), [int(rng.integers(dataset.lengths[i] - offset)) for i in chosen]


def untrained(run: jwm.LoadedRun) -> jwm.LoadedRun:
    """The same run before its first step: encoder calibrated on its data, nothing learned."""
    task = copy.copy(run.task)
    task.model = untrained_model(run.cfg)
    return dataclasses.replace(run, task=task, step=0)


def score(given: argparse.Namespace) -> None:
    """Success of the model, trained and untrained, of chance and of the expert on the same starts and goals."""
    swm = stable_worldmodel()
    from stable_worldmodel.data.formats.hdf5 import HDF5Dataset
    from stable_worldmodel.envs.two_room.expert_policy import ExpertPolicy
    from stable_worldmodel.policy import RandomPolicy

    run = jwm.load(given.run, device=given.device, step=given.step)
    dataset = HDF5Dataset(path=given.dataset)
    episodes, starts = cases(dataset, given.episodes, given.goal_offset, given.seed)
    size = run.cfg.model.image_size
    search = {
        name: getattr(given, name)
        for name in ("horizon", "receding", "samples", "iterations", "elites", "seed")
    }
    policies = {
        "model": lambda: world_model_policy(run, **search),
        "untrained": lambda: world_model_policy(untrained(run), **search),
        "random": lambda: RandomPolicy(seed=given.seed),
        "expert": lambda: ExpertPolicy(seed=given.seed),
    }
    print(
        f"{given.run}, trained {run.step} steps; {len(episodes)} episodes, {given.goal_offset} steps to each goal"
    )
    for name, make in policies.items():
        world = swm.World(
            ENV, num_envs=len(episodes), image_shape=(size, size), max_episode_steps=10 * given.budget
        )
        world.set_policy(make())
        began = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):  # its solver prints a line for every plan
            found = world.evaluate(
                dataset=dataset, episodes_idx=episodes, start_steps=starts, goal_offset=given.goal_offset,
                eval_budget=given.budget, callables=SETTERS,
            )  # fmt: skip
        world.close()
        took = time.perf_counter() - began
        print(f"{name:>9}  success {found['success_rate']:5.1f} %   {took:.0f} s", flush=True)


def main() -> None:
    """Collect or score."""
    parser = flags_of(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("collect", help="record episodes")
    recording.add_argument("--out", required=True)
    recording.add_argument("--episodes", type=int, default=200)
    recording.add_argument("--noise", type=float, default=1.0)
    recording.add_argument("--size", type=int, default=64)
    recording.add_argument("--seed", type=int, default=0)
    scoring = commands.add_parser("score", help="score a run")
    scoring.add_argument("--run", required=True)
    scoring.add_argument("--dataset", required=True)
    scoring.add_argument("--device", default="auto")
    scoring.add_argument("--step", type=int, help="of the checkpoint; default: the newest")
    for flag, default in (
        ("episodes", 25), ("goal-offset", 25), ("budget", 50), ("horizon", 15), ("receding", 5), ("samples", 200),
        ("iterations", 6), ("elites", 20), ("seed", 0),
    ):  # fmt: skip
        scoring.add_argument(f"--{flag}", type=int, default=default)
    given = parser.parse_args()
    warnings.filterwarnings("ignore")  # gymnasium's checks of that environment, several a step
    {"collect": collect, "score": score}[given.command](given)


if __name__ == "__main__":
    main()
