"""What to plan and how: the settings of `jepa-wm plan`, and of planning during training."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.graph import unknown
from jepa_world_model.planning.closed_loop import LoopConfig
from jepa_world_model.planning.planners import (
    PLANNERS,
    CategoricalCemConfig,
    CemConfig,
    GradientConfig,
    IcemConfig,
    MppiConfig,
    ShootingConfig,
)
from jepa_world_model.planning.problem import Budget
from jepa_world_model.planning.reach import ReachConfig
from jepa_world_model.planning.roadmap import RoadmapConfig
from jepa_world_model.planning.scenes import ScenesConfig

COSTS = {  # name -> what it is
    "latent": "the straight line in z",
    "h": "the straight line in h",
    "pose": "the straight line in p; needs pose_measure_p",
    "graph": "shortest paths over a graph of the data's z",
    "roadmap": "shortest paths over a graph of what the model imagines around each goal",
    "scenes": "shortest paths over a graph of the data whose surroundings look like each goal's",
    "steps": "the learned steps to go; needs temporal_distance",
    "true": "the true way, of a position that a linear probe reads off z",
}
# World -> steps an episode, horizon, steps before the next plan. Those of two_rooms are the benchmark's.
LOOPS = {"two_rooms": (200, 50, 10), "gridworld": (60, 16, 4)}


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """Planning in closed loop on fixed pairs of start and goal."""

    env: str = ""  # "two_rooms" or "gridworld"; empty: the world that the run's data come from
    episodes: int = 100  # pairs of start and goal; below 30 an interval says little
    seed: int = 0  # of the pairs and of every draw; the same seed gives every run the same pairs
    # cem, icem, mppi, gradient, shooting, categorical_cem; auto: cem, or categorical_cem
    planner: str = "auto"
    # graph, scenes, roadmap, latent, h, pose, steps, true; a straight line knows nothing of walls
    cost: str = "graph"
    over: str = "sum"  # "sum" of every step's cost: arrive early; "last": only where the plan ends
    every: int = 1  # steps between two looks at the cost inside a plan; more is faster
    action_penalty: float = 0.0  # times the squared length of every action, in units of the cost
    # times what a plan gains by leaps that no step makes (costs graph, scenes, roadmap); 0: leaps are free
    leap_charge: float = 2.0
    steps: int = 0  # of an episode; 0: the world's own, 200 in two_rooms, 60 in gridworld
    horizon: int = 0  # steps that a plan looks ahead; 0: the world's own, 50 and 16
    replan: int = 0  # steps executed before the next plan; 0: the world's own, 10 and 4
    warm_start: bool = True  # a plan begins where the one before it left off
    budget: Budget = field(default_factory=Budget)  # of each plan
    baselines: bool = True  # also the random policy, standing still, the untrained model and perfect dynamics
    decompose: bool = False  # also this cost under perfect dynamics, and the true cost under the model
    precision: str = ""  # "fp32" or "bf16" of the model's products; empty: as it was trained
    graph_frames: int = 20_000  # of the training data that the graph, and the probe of "true", are made of
    pictures: int = 8  # episodes in the picture and the film; 0: none
    cem: CemConfig = field(default_factory=CemConfig)
    icem: IcemConfig = field(default_factory=IcemConfig)
    mppi: MppiConfig = field(default_factory=MppiConfig)
    gradient: GradientConfig = field(default_factory=GradientConfig)
    shooting: ShootingConfig = field(default_factory=ShootingConfig)
    categorical_cem: CategoricalCemConfig = field(default_factory=CategoricalCemConfig)
    graph: ReachConfig = field(default_factory=ReachConfig)
    roadmap: RoadmapConfig = field(default_factory=RoadmapConfig)
    scenes: ScenesConfig = field(default_factory=ScenesConfig)

    def __post_init__(self) -> None:
        for name, least in (("episodes", 1), ("seed", 0), ("every", 1), ("steps", 0), ("horizon", 0), ("replan", 0),
                            ("graph_frames", 100), ("pictures", 0)):  # fmt: skip
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be {least} or above, got {getattr(self, name)}")
        if self.planner != "auto" and self.planner not in PLANNERS:
            raise ValueError(unknown("planner", self.planner, ["auto", *PLANNERS]))
        if self.cost not in COSTS:
            raise ValueError(unknown("cost", self.cost, COSTS))
        if self.over not in ("sum", "last"):
            raise ValueError(f"over must be sum or last, got {self.over!r}")
        if not 0 <= self.leap_charge < math.inf:
            raise ValueError(f"leap_charge must be a finite number of 0 or more, got {self.leap_charge}")
        if self.precision not in ("", "fp32", "bf16"):
            raise ValueError(f"precision must be fp32, bf16 or empty, got {self.precision!r}")
        if self.env and self.env not in LOOPS:
            raise ValueError(unknown("world to plan in", self.env, LOOPS))

    def planner_for(self, kind: str) -> Any:
        """The configuration of the planner, for actions of a kind. Errors: UserError when none was meant."""
        name = self.planner
        if name == "auto":
            name = {"continuous": "cem", "discrete": "categorical_cem"}.get(kind, "shooting")
        if kind not in PLANNERS[name].kinds:
            fitting = [other for other, row in PLANNERS.items() if kind in row.kinds]
            raise UserError(
                f"planner {name} searches {' or '.join(PLANNERS[name].kinds)} actions, but this world's are "
                f"{kind}; use --planner {' or '.join(fitting)}"
            )
        return getattr(self, name)

    def loop(self, world: str) -> LoopConfig:
        """The receding horizon in a world."""
        steps, horizon, replan = LOOPS[world]
        horizon = self.horizon or horizon
        return LoopConfig(
            steps=self.steps or steps,
            horizon=horizon,
            replan=self.replan or min(replan, horizon),
            warm_start=self.warm_start,
            budget=self.budget,
        )
