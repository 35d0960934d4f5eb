"""What every planner is given and gives back: a score over action sequences, a budget, a plan."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from jepa_world_model.data.batch import ActionSpace

Score = Callable[[Tensor], Tensor]  # encoded actions [E,S,H,A] -> cost [E,S], lower is better


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much a plan may cost; the first limit that is met ends the search. 0: no such limit."""

    # model steps an episode; a search of 100 candidates of 50 steps takes 5,000 a round
    candidate_steps: int = 0
    milliseconds: float = 0.0  # of the whole batch of plans; the plan then depends on the machine

    def __post_init__(self) -> None:
        if self.candidate_steps < 0 or not 0 <= self.milliseconds < math.inf:
            raise ValueError("a budget is 0 (no limit) or above, in candidate_steps and in milliseconds")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is to be planned: action sequences of E episodes, scored together."""

    score: Score
    episodes: int  # E
    horizon: int  # H, steps
    space: ActionSpace
    generator: torch.Generator  # every draw; on the device of the scores
    warm: Tensor | None = None  # [E,H,A] the plan before, moved on by what was executed (`shifted`)
    max_norm: float = math.inf  # the longest encoded action that the environment executes as it is
    budget: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        shape = (self.episodes, self.horizon, self.space.dim)
        if self.horizon < 1 or self.episodes < 1:
            raise ValueError(f"a plan needs an episode and a step, got {self.episodes} and {self.horizon}")
        if self.warm is not None and tuple(self.warm.shape) != shape:
            raise ValueError(f"the plan to go on from has shape {tuple(self.warm.shape)}, it must be {shape}")

    @property
    def device(self) -> torch.device:
        """Where the plans live."""
        return self.generator.device

    def allowed(self, actions: Tensor) -> Tensor:
        """Encoded continuous actions [...,A] brought into the box [-1, 1] and below `max_norm`."""
        actions = actions.clamp(-1, 1)
        if self.max_norm < math.inf:
            length = actions.norm(dim=-1, keepdim=True)
            actions = actions * (self.max_norm / length.clamp(min=self.max_norm))
        return actions


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The sequences that a search ends with, and what it took."""

    actions: Tensor  # [E,H,A] encoded
    cost: Tensor  # [E] of these actions
    candidate_steps: int  # model steps an episode
    rounds: int  # of the search

    def shifted(self, steps: int) -> Tensor:
        """Where the next search starts after `steps` steps: the rest of the plan, its last action repeated."""
        rest = self.actions[:, min(steps, self.actions.shape[1] - 1) :]
        missing = self.actions.shape[1] - rest.shape[1]
        return torch.cat([rest, rest[:, -1:].expand(-1, missing, -1)], 1)


class Meter:
    """Counts model steps of a search and tells when the budget is spent."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.spent, self.rounds = problem, 0, 0
        self._start, self._round = time.perf_counter(), 0.0

    def score(self, actions: Tensor) -> Tensor:
        """Score [E,S,H,A] and count it; a score that is not finite counts as the worst."""
        self.spent += actions.shape[1] * actions.shape[2]
        return self.problem.score(actions).nan_to_num(torch.inf, posinf=torch.inf)

    def rounds_up_to(self, most: int, candidates: int) -> int:
        """How many rounds of so many candidates the step budget allows; at least one."""
        steps, cost = self.problem.budget.candidate_steps, candidates * self.problem.horizon
        return min(most, max(steps // cost, 1)) if steps else most

    def goes_on(self) -> bool:
        """Ask after each round: whether there is time for another one like it."""
        self.rounds += 1
        limit = self.problem.budget.milliseconds
        if not limit:
            return True
        now = (time.perf_counter() - self._start) * 1e3
        self._round, took = now, now - self._round
        return now + took <= limit

    def plan(self, actions: Tensor, cost: Tensor) -> Plan:
        """The result."""
        return Plan(actions=actions, cost=cost, candidate_steps=self.spent, rounds=self.rounds)


class Best:
    """The best sequence seen so far, of each episode."""

    def __init__(self) -> None:
        self.actions, self.cost = torch.empty(0), torch.empty(0)

    def see(self, actions: Tensor, cost: Tensor) -> None:
        """Candidates [E,S,H,A] and what they cost [E,S]."""
        least, index = cost.min(1)
        picked = actions[torch.arange(len(index), device=index.device), index]
        if not len(self.cost):
            self.actions, self.cost = picked, least
        better = least < self.cost
        self.actions = torch.where(better[:, None, None], picked, self.actions)
        self.cost = torch.where(better, least, self.cost)


def coloured_noise(
    episodes: int, samples: int, horizon: int, width: int, *, beta: float, generator: torch.Generator
) -> Tensor:
    """Normal noise [E,S,H,A] with a power spectrum of 1/f^beta over the horizon, variance 1 at every step.

    beta 0 is white: neighbouring actions are independent. From 2 on, actions hold for most of the horizon.
    Source: Timmer and Koenig 1995, On generating power law noise.
    """
    device = generator.device
    if beta == 0 or horizon == 1:
        return torch.randn(episodes, samples, horizon, width, generator=generator, device=device)
    bins = horizon // 2 + 1
    parts = torch.randn(2, episodes, samples, width, bins, generator=generator, device=device)
    frequency = torch.fft.rfftfreq(horizon, device=device)
    frequency[0] = frequency[1]  # the mean gets the power of the slowest wave
    size = frequency ** (-beta / 2)
    real_only = torch.zeros(bins, device=device)
    real_only[0] = 1.0
    if horizon % 2 == 0:
        real_only[-1] = 1.0
    # A bin without an imaginary part gets the power of both in its real one.
    real = parts[0] * size * (1 + real_only * (math.sqrt(2) - 1))
    spectrum = torch.complex(real, parts[1] * size * (1 - real_only))
    twice = 2 - real_only  # every other bin stands for its conjugate too
    power = (2 * size.square() * twice).sum() / horizon**2
    return torch.fft.irfft(spectrum, n=horizon).div_(power.sqrt()).transpose(2, 3)
