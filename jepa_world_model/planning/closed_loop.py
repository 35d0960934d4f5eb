"""Closed loop: plan, execute a few steps, look, plan again; all episodes side by side, and what came of each."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from jepa_world_model.core.rng import Streams
from jepa_world_model.planning.dynamics import Dynamics, State, device_of
from jepa_world_model.planning.planners import CemConfig, random_sequences, search
from jepa_world_model.planning.problem import Budget, Plan, Problem
from jepa_world_model.planning.rollout import Objective, make_score
from jepa_world_model.planning.worlds import World


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """The receding horizon, and how long an episode lasts."""

    steps: int = 200  # executed in each episode; no rule ends it early
    horizon: int = 50  # steps that a plan looks ahead
    replan: int = 10  # steps that are executed before the next plan
    warm_start: bool = True  # a plan begins where the one before it left off
    budget: Budget = field(default_factory=Budget)  # of each plan

    def __post_init__(self) -> None:
        if min(self.steps, self.horizon, self.replan) < 1:
            raise ValueError("steps, horizon and replan must be 1 or above")
        if self.replan > self.horizon:
            raise ValueError(
                f"a plan of {self.horizon} steps cannot be followed for {self.replan}; "
                f"use replan <= {self.horizon}"
            )


class Policy(Protocol):
    """What acts in an episode; encoded actions."""

    def begin(self, frames: Tensor, goals: Tensor) -> None:
        """The first frames and the goals' frames [E,C,H,W] uint8."""
        ...

    def act(self) -> Tensor:
        """The next action of each episode [E,A]."""
        ...

    def see(self, action: Tensor, frames: Tensor) -> None:
        """What was executed, and the frames after it."""
        ...


class PlanningPolicy:
    """A planner over dynamics. Frames are encoded once: at the start, and one a step to follow the world."""

    def __init__(
        self,
        dynamics: Dynamics,
        planner: Any,
        objective: Objective,
        cfg: LoopConfig,
        *,
        streams: Streams,
        max_norm: float,
    ) -> None:
        self.dynamics, self.planner, self.objective, self.cfg = dynamics, planner, objective, cfg
        self.streams, self.max_norm = streams, max_norm
        self.plans = self.candidate_steps = 0
        self.plan_ms: list[float] = []
        self.kept: list[tuple[int, Plan]] = []  # (step, plan) of every plan, for pictures
        self.missed = self.moved = 0.0  # of the plans followed: foretold to seen, and start to seen

    def begin(self, frames: Tensor, goals: Tensor) -> None:
        """Encode where the episodes are and where they shall go."""
        with torch.no_grad():
            self.state: State = self.dynamics.encode(frames)
            self.measure = self.objective.cost.towards(self.dynamics, self.dynamics.encode(goals))
        self.plan: Plan | None = None
        self.step, self.episodes = 0, len(frames)
        self.foretold: State | None = None

    def act(self) -> Tensor:
        """The next action of the present plan, or the first of a new one."""
        into = self.step % self.cfg.replan
        if into == 0:
            self._replan()
        return self.plan.actions[:, into]

    def _replan(self) -> None:
        start = time.perf_counter()
        warm = self.plan.shifted(self.cfg.replan) if self.plan is not None and self.cfg.warm_start else None
        problem = Problem(
            score=make_score(self.dynamics, self.state, self.measure, self.objective),
            episodes=self.episodes,
            horizon=self.cfg.horizon,
            space=self.dynamics.space,
            generator=self.streams.torch("plan", self.step, device_of(self.state)),
            warm=warm,
            max_norm=self.max_norm,
            budget=self.cfg.budget,
        )
        self.plan = search(self.planner, problem)
        self.plan_ms.append((time.perf_counter() - start) * 1e3)
        self.candidate_steps += self.plan.candidate_steps
        self.kept.append((self.step, self.plan))
        self._compare()

    @property
    def prediction_error(self) -> float:
        """How far what plans foretold lay from what came, as a share of the way; 1 is no better than staying."""
        return self.missed / self.moved if self.moved > 0 else float("nan")

    @torch.no_grad()
    def _compare(self) -> None:
        """Hold what the last plan foretold against what came; then foretell again."""
        if self.foretold is not None:
            self.missed += float(self.dynamics.distance(self.foretold, self.state).mean())
            self.moved += float(self.dynamics.distance(self.left, self.state).mean())
        self.left = self.foretold = self.state
        for step in range(self.cfg.replan):
            self.foretold = self.dynamics.step(self.foretold, self.plan.actions[:, step])

    def see(self, action: Tensor, frames: Tensor) -> None:
        """Update the belief by what was executed and seen."""
        self.state = self.dynamics.observe(self.state, action, frames)
        self.step += 1


class RandomPolicy:
    """Random actions that hold for a while: what chance scores on the same pairs."""

    def __init__(self, world: World, *, streams: Streams, beta: float = 2.0, hold: float = 0.5) -> None:
        self.world, self.streams, self.beta, self.hold = world, streams, beta, hold

    def begin(self, frames: Tensor, goals: Tensor) -> None:
        """Nothing is looked at."""
        self.step, self.episodes = 0, len(frames)

    def act(self) -> Tensor:
        """The next random action."""
        into = self.step % 50
        if into == 0:
            problem = Problem(
                score=torch.zeros_like, episodes=self.episodes, horizon=50, space=self.world.space,
                generator=self.streams.torch("random policy", self.step), max_norm=self.world.max_norm,
            )  # fmt: skip
            self.ahead = random_sequences(problem, 1, beta=self.beta, hold=self.hold)[:, 0]
        return self.ahead[:, into]

    def see(self, action: Tensor, frames: Tensor) -> None:
        """Count the step."""
        self.step += 1


class StillPolicy:
    """Stands still, where an action rests; else repeats the first action."""

    def __init__(self, world: World) -> None:
        self.space = world.space

    def begin(self, frames: Tensor, goals: Tensor) -> None:
        """Only the number of episodes matters."""
        self.rest = torch.zeros(len(frames), self.space.dim)
        if self.space.noop is not None:
            self.rest[:, self.space.noop] = 1.0

    def act(self) -> Tensor:
        """Rest."""
        return self.rest

    def see(self, action: Tensor, frames: Tensor) -> None:
        """Nothing to learn."""


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """What came of E episodes of T steps."""

    starts: np.ndarray  # [E,S]
    goals: np.ndarray  # [E,S]
    places: np.ndarray  # [E,T+1,S], the start first
    actions: np.ndarray  # [E,T,...] raw
    distance: np.ndarray  # [E,T+1] to the goal, by which success is judged
    optimal: np.ndarray  # [E] steps that the best policy needs to the goal itself
    success: Mapping[str, np.ndarray]  # rule -> [E] bool
    solved_at_start: np.ndarray  # [E] bool, by the widest radius of a rule
    steps_to_goal: np.ndarray  # [E] first step within that radius; nan where there is none

    def __len__(self) -> int:
        return len(self.starts)

    def to_json(self) -> list[dict[str, Any]]:
        """One plain record an episode."""
        return [
            {
                "start": self.starts[e].tolist(),
                "goal": self.goals[e].tolist(),
                "actions": np.round(self.actions[e].astype(float), 4).tolist(),
                "distance": np.round(self.distance[e], 3).tolist(),
                "success": {rule: bool(won[e]) for rule, won in self.success.items()},
                "solved_at_start": bool(self.solved_at_start[e]),
                "steps_to_goal": None if np.isnan(self.steps_to_goal[e]) else int(self.steps_to_goal[e]),
                "optimal_steps": round(float(self.optimal[e]), 3),
            }
            for e in range(len(self))
        ]


def run_episodes(world: World, policy: Policy, starts: np.ndarray, goals: np.ndarray, steps: int) -> Episodes:
    """Let a policy act for `steps` steps in every episode."""
    places, raws, curve = [starts], [], [world.distance(starts, goals)]
    policy.begin(torch.from_numpy(world.draw(starts)), torch.from_numpy(world.draw(goals)))
    for _ in range(steps):
        action = policy.act()
        raw = world.space.decode(action.cpu().numpy())
        places.append(world.step(places[-1], raw))
        raws.append(raw)
        curve.append(world.distance(places[-1], goals))
        policy.see(action.clone(), torch.from_numpy(world.draw(places[-1])))
    distance = np.stack(curve, 1)  # [E,T+1]
    widest = max(rule.radius for rule in world.rules)
    near = distance < widest
    first = np.where(near.any(1), near.argmax(1), np.nan)
    success = {
        rule.name: ((distance if rule.ever else distance[:, -1:]) < rule.radius).any(1)
        for rule in world.rules
    }
    return Episodes(
        starts=starts, goals=goals, places=np.stack(places, 1), actions=np.stack(raws, 1), distance=distance,
        optimal=world.steps_to_go(starts, goals), success=success, solved_at_start=near[:, 0], steps_to_goal=first,
    )  # fmt: skip


def plan_episodes(
    world: World,
    dynamics: Dynamics,
    *,
    planner: Any = None,
    objective: Objective | None = None,
    cfg: LoopConfig | None = None,
    count: int = 100,
    seed: int = 0,
) -> tuple[Episodes, PlanningPolicy]:
    """Plan `count` fixed pairs of a world in closed loop: the pairs and every draw follow from the seed."""
    cfg = cfg or LoopConfig()
    starts, goals = world.pairs(count, seed)
    policy = PlanningPolicy(
        dynamics, planner or CemConfig(), objective or Objective(), cfg, streams=Streams(seed), max_norm=world.max_norm
    )  # fmt: skip
    return run_episodes(world, policy, starts, goals, cfg.steps), policy
