"""How far a state is from the goal: interchangeable costs, each a configuration that is prepared once a goal.

`cost.towards(dynamics, goal)` does what depends on the goal alone and returns a measure. A measure takes the
states of all candidates of some episodes, episode by episode, and the slice of those episodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from jepa_world_model.core.errors import UserError
from jepa_world_model.planning.dynamics import Dynamics, State, num_rows, pick_rows, repeat_rows

Measure = Callable[[State, slice], Tensor]  # states [e*S] and their episodes -> cost [e*S]


@dataclass(frozen=True)
class ToGo:
    """A measure in moves to go, of which one step can take off only so many: see `Objective.leap_charge`."""

    ask: Measure
    stride: float  # the most that one step takes off

    def __call__(self, state: State, episodes: slice) -> Tensor:
        return self.ask(state, episodes)


def stride_of(measure: Measure) -> float:
    """The most that one step takes off a measure; infinite where it does not say."""
    return measure.stride if isinstance(measure, ToGo) else math.inf


def each_its_own(measures: list[Measure]) -> Measure:
    """One measure of many episodes from one for each of them."""

    def measure(state: State, episodes: slice) -> Tensor:
        chosen = measures[episodes]
        size = num_rows(state) // len(chosen)
        return torch.cat(
            [
                one(pick_rows(state, slice(i * size, (i + 1) * size)), slice(0, 1))
                for i, one in enumerate(chosen)
            ]
        )

    return ToGo(measure, max(stride_of(one) for one in measures))


class Cost(Protocol):
    """How far states are from goals."""

    def towards(self, dynamics: Dynamics, goal: State) -> Measure:
        """The measure for E goals; UserError where this model or data cannot tell it."""
        ...


def goal_latent(dynamics: Dynamics, goal: State, name: str) -> Tensor:
    """A latent of the goals [E,D]. Errors: UserError when a single frame does not tell it."""
    if name not in dynamics.goal_latents:
        reason = f"a single frame of this model has no {name!r}; it has {', '.join(dynamics.goal_latents)}"
        if name == "p":
            reason += "; train with --loss-weights.pose-measure-p above 0 to plan by pose to a picture"
        raise UserError(reason)
    return dynamics.read(goal, name)


def paired(latent: Tensor, goal: Tensor, episodes: slice) -> tuple[Tensor, Tensor]:
    """Latents [e*S,D] as [e,S,D] beside their goals [e,1,D]: nothing is copied."""
    mine = goal[episodes]
    return latent.unflatten(0, (len(mine), -1)), mine[:, None]


@dataclass(frozen=True, kw_only=True)
class OwnDistance:
    """The distance that the model itself declares."""

    def towards(self, dynamics: Dynamics, goal: State) -> Measure:
        """`Dynamics.distance`."""

        def measure(state: State, episodes: slice) -> Tensor:
            mine = pick_rows(goal, episodes)
            return dynamics.distance(state, repeat_rows(mine, num_rows(state) // num_rows(mine)))

        return measure


@dataclass(frozen=True, kw_only=True)
class LatentDistance:
    """The straight line in a latent: it knows nothing of walls."""

    latent: str = "z"  # "z", "h", or "p" for the pose distance
    squared: bool = False  # the squared distance: far states weigh more, near ones hardly

    def towards(self, dynamics: Dynamics, goal: State) -> Measure:
        """Euclidean distance to the goal's latent."""
        there = goal_latent(dynamics, goal, self.latent)

        def measure(state: State, episodes: slice) -> Tensor:
            here, mine = paired(dynamics.read(state, self.latent), there, episodes)
            square = (here - mine).square().sum(-1).flatten()
            # The offset gives the root a gradient at the goal.
            return square if self.squared else (square + 1e-12).sqrt()

        return measure


@dataclass(frozen=True, kw_only=True)
class LearnedSteps:
    """The steps to go that the model's `temporal_distance` head has learned."""

    def towards(self, dynamics: Dynamics, goal: State) -> Measure:
        """Steps from z to the goal's z, the goal's side of the head computed once."""
        head = getattr(getattr(dynamics, "model", None), "temporal_distance", None)
        if head is None:
            raise UserError(
                "this model has no learned steps to go; train with --loss-weights.temporal-distance above 0"
            )
        there = head.embed(goal_latent(dynamics, goal, "z"))

        def measure(state: State, episodes: slice) -> Tensor:
            here, mine = paired(head.embed(dynamics.read(state, "z")), there, episodes)
            return head.between(here, mine).expm1().flatten()

        return measure


@dataclass(frozen=True, kw_only=True)
class WeightedSum:
    """Several costs added up."""

    parts: Sequence[tuple[float, Any]] = field(default_factory=tuple)  # weight and cost

    def __post_init__(self) -> None:
        if not self.parts or not all(0 <= weight < math.inf for weight, _ in self.parts):
            raise ValueError("a sum of costs needs parts (weight, cost) with weights of 0 or more")

    def towards(self, dynamics: Dynamics, goal: State) -> Measure:
        """The weighted sum of the parts' measures."""
        made = [(weight, cost.towards(dynamics, goal)) for weight, cost in self.parts if weight]

        def measure(state: State, episodes: slice) -> Tensor:
            return torch.stack([weight * one(state, episodes) for weight, one in made]).sum(0)

        return ToGo(measure, sum(weight * stride_of(one) for weight, one in made))
