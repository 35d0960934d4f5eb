"""From dynamics and a cost to a score: all candidates of all episodes are rolled out together."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from jepa_world_model.planning.costs import LatentDistance, Measure
from jepa_world_model.planning.dynamics import Dynamics, State, num_rows, pick_rows, repeat_rows
from jepa_world_model.planning.problem import Score


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What a plan is to make small."""

    cost: Any = field(default_factory=LatentDistance)  # of `costs`: how far a state is from the goal
    over: str = "sum"  # "sum" of every step's cost: arrive early; "last": only where the plan ends
    every: int = 1  # steps between two looks at the cost; the last step always counts
    action_penalty: float = 0.0  # times the squared length of every action, in units of the cost
    rows_at_once: int = 2048  # candidates rolled out together: a layer's output should stay in the cache

    def __post_init__(self) -> None:
        if self.over not in ("sum", "last"):
            raise ValueError(f"over must be sum or last, got {self.over!r}")
        if self.every < 1 or self.rows_at_once < 1:
            raise ValueError("every and rows_at_once must be 1 or above")
        if not 0 <= self.action_penalty < math.inf:
            raise ValueError(
                f"action_penalty must be a finite number of 0 or more, got {self.action_penalty}"
            )

    def looks(self, horizon: int) -> list[bool]:
        """Whether the cost is asked for after each step."""
        if self.over == "last":
            return [t == horizon - 1 for t in range(horizon)]
        return [(horizon - 1 - t) % self.every == 0 for t in range(horizon)]


def make_score(
    dynamics: Dynamics,
    state: State,
    measure: Measure,
    objective: Objective,
    *,
    on_rollout: Callable[[State, slice], None] | None = None,
) -> Score:
    """The score of action sequences [E,S,H,A] from E states: the cost along the rollout, [E,S].

    measure: the objective's cost, prepared for the E goals. Sums count each look for the `every` steps that
    it stands for, so that `every` does not change the scale. on_rollout: called with each state and its
    episodes, for pictures.
    """
    episodes = num_rows(state)

    def score(actions: Tensor) -> Tensor:
        samples = actions.shape[1]
        at_once = max(objective.rows_at_once // samples, 1)
        parts = [score_some(actions, slice(e, e + at_once)) for e in range(0, episodes, at_once)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def score_some(actions: Tensor, chosen: slice) -> Tensor:
        mine = actions[chosen]
        count, samples, horizon = mine.shape[:3]
        by_step = mine.flatten(0, 1).transpose(0, 1).contiguous()  # [H,e*S,A]
        here = repeat_rows(pick_rows(state, chosen), samples)
        total = by_step.new_zeros(count * samples)
        weight = 1 if objective.over == "last" else objective.every
        for action, looks in zip(by_step, objective.looks(horizon), strict=True):
            here = dynamics.step(here, action)
            if on_rollout is not None:
                on_rollout(here, chosen)
            if looks:
                total = total + weight * measure(here, chosen)
        if objective.action_penalty:
            total = total + objective.action_penalty * by_step.square().sum((0, 2))
        return total.unflatten(0, (count, samples))

    return score
