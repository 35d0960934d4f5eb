"""From dynamics and a cost to a score: all candidates of all episodes are rolled out together."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from jepa_world_model.planning.costs import LatentDistance, Measure, stride_of
from jepa_world_model.planning.dynamics import Dynamics, State, num_rows, pick_rows, repeat_rows
from jepa_world_model.planning.problem import Score


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What a plan is to make small."""

    cost: Any = field(default_factory=LatentDistance)  # of `costs`: how far a state is from the goal
    over: str = "sum"  # "sum" of every step's cost: arrive early; "last": only where the plan ends
    every: int = 1  # steps between two looks at the cost; the last step always counts
    # for a fall of the cost that no step makes, times the excess, from there on; 0: none
    leap_charge: float = 2.0
    action_penalty: float = 0.0  # times the squared length of every action, in units of the cost
    rows_at_once: int = 2048  # candidates rolled out together: a layer's output should stay in the cache

    def __post_init__(self) -> None:
        if self.over not in ("sum", "last"):
            raise ValueError(f"over must be sum or last, got {self.over!r}")
        if self.every < 1 or self.rows_at_once < 1:
            raise ValueError("every and rows_at_once must be 1 or above")
        for name in ("leap_charge", "action_penalty"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a finite number of 0 or more, got {getattr(self, name)}")

    def looks(self, horizon: int) -> list[bool]:
        """Whether the cost is asked for after each step."""
        if self.over == "last":
            return [t == horizon - 1 for t in range(horizon)]
        return [(horizon - 1 - t) % self.every == 0 for t in range(horizon)]


class Leaps:
    """Falls of a cost that no step makes, summed up along rollouts."""

    def __init__(self, stride: float, charge: float, start: Tensor) -> None:
        self.stride, self.charge = stride, charge
        self.before, self.step, self.excess = start, 0, torch.zeros_like(start)

    def charged(self, cost: Tensor, step: int) -> Tensor:
        """The cost after so many steps, and what all leaps up to there are charged."""
        allowed = self.stride * (step - self.step)
        self.excess = self.excess + (self.before - cost - allowed).clamp(min=0)
        self.before, self.step = cost, step
        return cost + self.charge * self.excess


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
    it stands for, so that `every` does not change the scale. A measure in moves to go (`ToGo`) cannot fall by
    more than its stride a step; a model that has not learned a wall imagines such falls, and plans that rest
    on them push against the wall for ever. The excess is charged, `leap_charge` times, at every later look: above 1
    the leap no longer pays. on_rollout: called with each state and its
    episodes, for pictures.
    """
    episodes = num_rows(state)
    stride = stride_of(measure) if objective.leap_charge else math.inf

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
        leaps = Leaps(stride, objective.leap_charge, measure(here, chosen)) if stride < math.inf else None
        for t, (action, looks) in enumerate(zip(by_step, objective.looks(horizon), strict=True)):
            here = dynamics.step(here, action)
            if on_rollout is not None:
                on_rollout(here, chosen)
            if looks:
                cost = measure(here, chosen)
                total = total + weight * (cost if leaps is None else leaps.charged(cost, t + 1))
        if objective.action_penalty:
            total = total + objective.action_penalty * by_step.square().sum((0, 2))
        return total.unflatten(0, (count, samples))

    return score
