"""Planning with a trained run in closed loop, beside what chance, an untrained model and perfect dynamics score."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jepa_world_model.core.config import flatten
from jepa_world_model.core.engine import Hook
from jepa_world_model.core.errors import UserError
from jepa_world_model.core.rng import Streams, isolated
from jepa_world_model.core.run import atomic_write, environment, writing
from jepa_world_model.data.episodes import Episodes as DataSet
from jepa_world_model.data.episodes import split_episodes
from jepa_world_model.experiment.build import build
from jepa_world_model.experiment.config import TrainConfig
from jepa_world_model.experiment.data import open_dataset, option_value
from jepa_world_model.experiment.plan_config import LOOPS, PlanConfig
from jepa_world_model.models.world_model import WorldModel
from jepa_world_model.planning.closed_loop import (
    Episodes,
    PlanningPolicy,
    RandomPolicy,
    StillPolicy,
    plan_episodes,
    run_episodes,
)
from jepa_world_model.planning.costs import LatentDistance, LearnedSteps
from jepa_world_model.planning.decompose import TabulatedCost, with_position
from jepa_world_model.planning.dynamics import Dynamics, WorldModelDynamics
from jepa_world_model.planning.oracles import make_oracle, true_cost
from jepa_world_model.planning.reach import GraphDistance, build_reach, latents_of
from jepa_world_model.planning.roadmap import RoadmapDistance
from jepa_world_model.planning.rollout import Objective
from jepa_world_model.planning.scenes import Scenes, ScenesDistance
from jepa_world_model.planning.scores import data_hash, pairs_hash, summary, weights_hash
from jepa_world_model.planning.worlds import World, make_world


def world_of(plan: PlanConfig, cfg: TrainConfig) -> World:
    """The world to plan in, with the options of the run's data where they are the same world's.

    Errors: UserError where the run's data come from no built-in world and none was named.
    """
    name = plan.env or cfg.data.source
    if name not in LOOPS:
        raise UserError(
            f"the run learned from {cfg.data.source!r}, which is no world to plan in; name one with --env "
            f"({' or '.join(LOOPS)}), or plan through planning.closed_loop with a World of your own"
        )
    same = cfg.data.source == name
    return make_world(name, {k: option_value(v) for k, v in cfg.data.options.items()} if same else {})


@dataclass
class Planning:
    """Everything that the arms of an evaluation share."""

    plan: PlanConfig
    cfg: TrainConfig  # of the run
    world: World
    data: Callable[[], DataSet]  # asked for only where a cost is made of it

    @cached_property
    def training_data(self) -> DataSet:
        """The episodes that training saw; held-out ones stay unseen here too."""
        data = self.data()
        train, _ = split_episodes(data, self.cfg.data.val_fraction, self.cfg.data.seed)
        return data.subset(train)

    def dynamics(self, model: WorldModel) -> WorldModelDynamics:
        """A model as planners take it."""
        precision = self.plan.precision or self.cfg.precision
        precision = precision if precision in ("fp32", "bf16") else "fp32"
        return WorldModelDynamics(
            model, self.cfg.settings, self.world.space, pose=self.plan.cost == "pose", precision=precision
        )

    def cost(self, dynamics: Dynamics, name: str) -> tuple[Dynamics, Any]:
        """A cost by its name, made for these dynamics, and the dynamics that can tell it."""
        if name == "graph":
            told = latents_of(dynamics, self.training_data, "z", frames=self.plan.graph_frames)
            return dynamics, GraphDistance(graph=build_reach(told.latents, told.bounds, self.plan.graph))
        if name == "true":
            return with_position(dynamics, self.training_data, frames=self.plan.graph_frames), true_cost(
                self.world
            )
        if name == "roadmap":
            return dynamics, RoadmapDistance(cfg=self.plan.roadmap, seed=self.plan.seed)
        if name == "scenes":
            return dynamics, ScenesDistance(scenes=Scenes(dynamics, self.training_data, cfg=self.plan.scenes))
        if name == "steps":
            return dynamics, LearnedSteps()
        return dynamics, LatentDistance(latent={"latent": "z", "h": "h", "pose": "p"}[name])

    def run(self, dynamics: Dynamics, cost: Any) -> tuple[Episodes, PlanningPolicy]:
        """Plan every pair."""
        plan = self.plan
        objective = Objective(
            cost=cost,
            over=plan.over,
            every=plan.every,
            action_penalty=plan.action_penalty,
            leap_charge=plan.leap_charge,
        )
        return plan_episodes(
            self.world, dynamics, planner=plan.planner_for(self.world.space.kind), objective=objective,
            cfg=plan.loop(self.world.name), count=plan.episodes, seed=plan.seed,
        )  # fmt: skip

    def follow(self, policy: Any) -> Episodes:
        """Let a policy that does not plan act on the same pairs."""
        starts, goals = self.world.pairs(self.plan.episodes, self.plan.seed)
        return run_episodes(self.world, policy, starts, goals, self.plan.loop(self.world.name).steps)

    def model_arm(self, model: WorldModel, cost: str) -> tuple[Episodes, dict[str, Any], Any]:
        """Plan with a model: the episodes, their summary, and the cost that was made for it."""
        dynamics, made = self.cost(self.dynamics(model), cost)
        episodes, policy = self.run(dynamics, made)
        return episodes, summary(episodes) | effort(policy) | about_cost(dynamics, made), (dynamics, made)


def effort(policy: PlanningPolicy) -> dict[str, Any]:
    """What the plans took: model steps an episode and plan, and time for all episodes of a plan together."""
    total_ms, plans = sum(policy.plan_ms), max(len(policy.plan_ms), 1)
    steps = policy.candidate_steps * policy.episodes
    return {
        "plans": len(policy.plan_ms),
        "candidate_steps_a_plan": policy.candidate_steps // plans,
        "candidate_steps_per_s": round(steps / max(total_ms / 1e3, 1e-9)),
        "ms_a_plan_of_all_episodes": round(total_ms / plans, 1),
        "prediction_error": None
        if math.isnan(policy.prediction_error)
        else round(policy.prediction_error, 4),
    }


def about_cost(dynamics: Dynamics, cost: Any) -> dict[str, Any]:
    """What is to know of a cost that was made of data."""
    if isinstance(cost, GraphDistance):
        graph = cost.graph
        found = {"nodes": len(graph.nodes), "dimensions": graph.nodes.shape[1], "edges": len(graph.edges)}
        return {
            "graph": found
            | {"radius": round(graph.radius, 3), "connected": round(graph.reachable_share(), 4)}
        }
    error = getattr(dynamics, "error", None)
    return {} if error is None else {"probe_error": round(error, 3)}


def evaluate_plans(
    planning: Planning, model: WorldModel, untrained: Callable[[], WorldModel], say: Callable[[str], None]
) -> tuple[dict[str, dict[str, Any]], Episodes]:
    """Every arm's summary, the model's first, and the model's episodes."""
    plan, world, arms = planning.plan, planning.world, {}
    say(f"planning {plan.episodes} pairs in {world.name}, cost: {plan.cost}")
    episodes, arms["model"], (dynamics, cost) = planning.model_arm(model, plan.cost)
    if plan.baselines:
        streams = Streams(plan.seed)
        arms["random policy"] = summary(planning.follow(RandomPolicy(world, streams=streams)))
        arms["standing still"] = summary(planning.follow(StillPolicy(world)))
        arms["untrained model"] = planning.model_arm(untrained(), plan.cost)[1]
    if plan.baselines or plan.decompose:
        oracle = make_oracle(world)
        for name, other in (
            ("perfect dynamics, straight line", LatentDistance(latent="xy")),
            ("perfect dynamics, true way", true_cost(world)),
        ):
            ran, policy = planning.run(oracle, other)
            arms[name] = summary(ran) | effort(policy)
    if plan.decompose and plan.cost != "true":
        ran, policy = planning.run(oracle, TabulatedCost(dynamics, cost, world))
        arms[f"perfect dynamics, the model's {plan.cost}"] = summary(ran) | effort(policy)
        arms["model, true way"] = planning.model_arm(model, "true")[1]
    return arms, episodes


def untrained_model(cfg: TrainConfig) -> WorldModel:
    """The model as training started it: encoder calibrated on data, nothing learned."""
    with isolated(Streams(cfg.seed), "untrained"):
        return build(dataclasses.replace(cfg, resume=False)).task.model.eval().requires_grad_(False)


def manifest(planning: Planning, model: WorldModel, step: int) -> dict[str, Any]:
    """What makes this evaluation repeatable, and tells whether two of them met the same episodes."""
    starts, goals = planning.world.pairs(planning.plan.episodes, planning.plan.seed)
    try:
        data = data_hash(planning.data().manifest)
    except UserError:  # planning by the latent alone needs no data; then none are named
        data = ""
    hashes = {"model": weights_hash(model), "data": data, "pairs": pairs_hash(starts, goals)}
    return {"step": step, "sha256": hashes, "environment": environment()}


def write_results(folder: Path, planning: Planning, about: Mapping[str, Any], arms: Mapping[str, Any],
                  episodes: Episodes) -> None:  # fmt: skip
    """results.json with everything but the episodes, episodes.json with each of them."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    results = {
        "world": planning.world.name,
        "rules": [dataclasses.asdict(rule) for rule in planning.world.rules],
        "config": flatten(planning.plan),
        "loop": flatten(planning.plan.loop(planning.world.name)),
        "arms": arms,
        "manifest": about,
    }
    atomic_write(folder / "results.json", json.dumps(results, indent=1, default=str) + "\n")
    atomic_write(folder / "episodes.json", json.dumps(episodes.to_json()) + "\n")


def check_planning(cfg: TrainConfig) -> None:
    """Errors: UserError for planning while training that could not be done, before anything is built."""
    if cfg.plan_every:
        cfg.plan.planner_for(world_of(cfg.plan, cfg).space.kind)


def plan_hook(
    cfg: TrainConfig, model: WorldModel, data: DataSet, applied: Callable[[], Any] = nullcontext
) -> Hook:
    """Planning every `cfg.plan_every` steps of a training: numbers under `plan/`, chance's beside them.

    applied: a context in which the model has the weights that are evaluated.
    """
    planning = Planning(cfg.plan, cfg, world_of(cfg.plan, cfg), lambda: data)
    chance: dict[str, float] = {}

    def call(step: int) -> dict[str, float]:
        start = time.perf_counter()
        if not chance:
            streams = Streams(cfg.plan.seed)
            rules = summary(planning.follow(RandomPolicy(planning.world, streams=streams)))["success"]
            chance.update({f"plan/random_{rule}": row["rate"] for rule, row in rules.items()})
        with applied():
            values = _numbers(planning.model_arm(model, cfg.plan.cost)[1])
        return values | chance | {"plan/seconds": time.perf_counter() - start}

    return Hook(name="plan", every=cfg.plan_every, call=call, at_end=True)


def _numbers(found: Mapping[str, Any]) -> dict[str, float]:
    """A summary as logged names."""
    values = {f"plan/{rule}": row["rate"] for rule, row in found["success"].items()}
    for name in (
        "mean_final_distance",
        "mean_steps_to_goal",
        "path_over_optimal",
        "prediction_error",
        "solved_at_start",
    ):
        if found.get(name) is not None:
            values[f"plan/{name}"] = float(found[name])
    if "graph" in found:
        values["plan/graph_connected"] = found["graph"]["connected"]
    return values


def open_planning(plan: PlanConfig, cfg: TrainConfig) -> Planning:
    """The evaluation of a run that was read from its folder."""
    return Planning(plan, cfg, world_of(plan, cfg), lambda: open_dataset(cfg.data))
