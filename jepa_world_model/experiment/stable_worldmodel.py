"""A trained world model inside stable-worldmodel: a cost for its solvers, a policy for its evaluator.

from jepa_world_model.experiment.stable_worldmodel import world_model_policy

world = swm.World("swm/TwoRoom-v1", num_envs=20, image_shape=(64, 64))
world.set_policy(world_model_policy(jwm.load("runs/x"), horizon=10))
world.evaluate(dataset=..., episodes_idx=..., start_steps=..., goal_offset=25, eval_budget=50, callables=...)
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.extras import require
from jepa_world_model.experiment.load import LoadedRun
from jepa_world_model.models.backbone import import_torchvision
from jepa_world_model.planning.rollout import Objective, make_score


def stable_worldmodel() -> ModuleType:
    """The package, also beside a CPU build of torch. Errors: UserError that names the extra."""
    import_torchvision()  # it imports torchvision itself, which may need the mend
    return require("stable_worldmodel", "stable-worldmodel's environments and solvers", "swm")


class PlanCost(nn.Module):
    """How far imagined states end from the goal: what stable-worldmodel's solvers call `Costable`.

    info: `pixels` and `goal` [B,N,T,H,W,C] uint8, the same for every candidate, as its evaluator hands them over; of the T
    frames the last counts. candidates [B,N,K,A] in the environment's units, held to its bounds as the environment does;
    several actions may stand side by side in the last axis (`action_block`). The cost [B,N] can be differentiated.
    objective: of `planning.rollout`; by default the distance in z, summed along the plan: arriving early counts.
    Errors: UserError for a run whose actions are not continuous, or an `info` without a goal.
    """

    def __init__(self, run: LoadedRun, objective: Objective | None = None) -> None:
        super().__init__()
        if run.space.kind != "continuous":
            raise UserError(
                f"this run has {run.space.kind} actions; stable-worldmodel's solvers search continuous ones"
            )
        self.run, self.dynamics, self.objective = run, run.dynamics(), objective or Objective()
        self.model = run.model  # its parameters tell the solvers a type and a device
        for name in ("low", "high"):
            bound = torch.tensor(getattr(run.space, name), device=run.device)
            self.register_buffer(name, bound, persistent=False)

    def get_cost(self, info: Mapping[str, Any], candidates: Tensor) -> Tensor:
        """The cost of each candidate [B,N]."""
        return self.criterion(info, candidates)

    def criterion(self, info: Mapping[str, Any], candidates: Tensor) -> Tensor:
        """The same; the protocol asks for both names."""
        goal = self._seen(info, "goal")
        measure = self.objective.cost.towards(self.dynamics, goal)
        return make_score(self.dynamics, self._seen(info, "pixels"), measure, self.objective)(
            self._encoded(candidates)
        )

    def _seen(self, info: Mapping[str, Any], key: str) -> Any:
        if key not in info:
            raise UserError(
                f"the evaluator gave no {key}, only {', '.join(sorted(info))}; evaluate from a dataset with goals"
            )
        frames = torch.as_tensor(info[key])[:, 0, -1]  # [B,H,W,C]
        return self.dynamics.encode(self.run.frames(frames)[0])

    def _encoded(self, candidates: Tensor) -> Tensor:
        """Raw actions as the model sees them: blocks unrolled, held to the bounds, mapped to [-1, 1]."""
        actions = candidates.unflatten(-1, (-1, self.run.space.dim)).flatten(2, 3).to(self.low.dtype)
        held = torch.clamp(actions, self.low, self.high)
        return (held - self.low) / (self.high - self.low) * 2 - 1


def world_model_policy(
    run: LoadedRun,
    *,
    horizon: int = 10,
    receding: int = 5,
    action_block: int = 1,
    samples: int = 300,
    iterations: int = 10,
    elites: int = 30,
    objective: Objective | None = None,
    seed: int = 0,
) -> Any:
    """stable-worldmodel's `WorldModelPolicy` over its own cross-entropy solver and this run.

    horizon, receding: actions planned, and carried out before the next plan, in blocks of `action_block`.
    """
    stable_worldmodel()
    from stable_worldmodel.policy import PlanConfig, WorldModelPolicy
    from stable_worldmodel.solver import CEMSolver

    solver = CEMSolver(
        model=PlanCost(run, objective), num_samples=samples, n_steps=iterations, topk=elites,
        device=str(run.device), seed=seed,
    )  # fmt: skip
    plan = PlanConfig(horizon=horizon, receding_horizon=receding, action_block=action_block)
    return WorldModelPolicy(solver=solver, config=plan)
