"""Search over action sequences: each planner a configuration and a function of a `Problem`.

All candidates of all episodes are scored by one call; nothing here loops over either.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_world_model.core.errors import UserError
from jepa_world_model.planning.problem import Best, Meter, Plan, Problem, coloured_noise


def _require(problem: Problem, planner: str, *kinds: str) -> None:
    if problem.space.kind not in kinds:
        fitting = [name for name, row in PLANNERS.items() if problem.space.kind in row.kinds]
        raise UserError(
            f"the planner {planner} searches {' or '.join(kinds)} actions, but these are "
            f"{problem.space.kind}; use {' or '.join(fitting)}"
        )


def _above(least: float, **values: float) -> None:
    for name, value in values.items():
        if not least <= value < math.inf:
            raise ValueError(f"{name} must be a finite number of {least} or more, got {value}")


# Continuous actions


@dataclass(frozen=True, kw_only=True)
class CemConfig:
    """Cross-entropy search: a Gaussian over sequences, fitted to the best of its samples, round after round."""

    samples: int = 100  # sequences a round; cost is linear in it
    rounds: int = 6  # fits; more sharpen the plan
    elites: int = 16  # samples that the next Gaussian is fitted to; very few freeze the search
    std: float = 1.0  # of the first Gaussian, in encoded units (the box is [-1, 1])
    least_std: float = 0.05  # a dimension never gets narrower
    keep_mean: float = 0.0  # share of the mean before that stays; 0: the fit alone

    def __post_init__(self) -> None:
        _above(1, samples=self.samples, rounds=self.rounds, elites=self.elites)
        _above(0, std=self.std, least_std=self.least_std)
        if self.elites > self.samples:
            raise ValueError(f"{self.elites} elites cannot be chosen among {self.samples} samples")
        if not 0 <= self.keep_mean < 1:
            raise ValueError(f"keep_mean must lie in [0, 1), got {self.keep_mean}")


@torch.inference_mode()
def cem(cfg: CemConfig, problem: Problem) -> Plan:
    """Fit, sample, score; the plan is the last mean, unless a sample was better.

    Source: Rubinstein 1999, The Cross-Entropy Method.
    """
    _require(problem, "cem", "continuous")
    mean, std, meter, best = _start(problem), cfg.std, Meter(problem), Best()
    rounds = meter.rounds_up_to(cfg.rounds, cfg.samples)
    shape = (problem.episodes, cfg.samples, problem.horizon, problem.space.dim)
    for _ in range(rounds):
        noise = torch.randn(shape, generator=problem.generator, device=problem.device)
        actions = problem.allowed(mean[:, None] + noise.mul_(std))  # [E,S,H,A]
        cost = meter.score(actions)
        best.see(actions, cost)
        fit, spread = _fit(actions, cost, cfg.elites)
        mean = cfg.keep_mean * mean + (1 - cfg.keep_mean) * fit
        std = spread.clamp_(min=cfg.least_std)[:, None]
        if not meter.goes_on():
            break
    return _conclude(problem, meter, best, mean)


def _start(problem: Problem) -> Tensor:
    if problem.warm is not None:
        return problem.warm
    return torch.zeros(problem.episodes, problem.horizon, problem.space.dim, device=problem.device)


def _fit(actions: Tensor, cost: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [E,H,A] of the cheapest sequences."""
    chosen = _cheapest(actions, cost, count)
    return chosen.mean(1), chosen.std(1, correction=0)


def _cheapest(actions: Tensor, cost: Tensor, count: int) -> Tensor:
    index = cost.topk(count, dim=1, largest=False, sorted=True).indices
    return actions[torch.arange(len(index), device=index.device)[:, None], index]  # [E,count,H,A]


def _conclude(problem: Problem, meter: Meter, best: Best, mean: Tensor) -> Plan:
    """The mean is smoother than any sample, and mostly better: it is scored too."""
    mean = problem.allowed(mean)[:, None]
    best.see(mean, meter.score(mean))
    return meter.plan(best.actions, best.cost)


@dataclass(frozen=True, kw_only=True)
class IcemConfig:
    """CEM with coloured noise and elites that are kept: long horizons with few samples."""

    samples: int = 100  # sequences in the first round
    rounds: int = 6  # fits
    elites: int = 16  # samples that the next Gaussian is fitted to
    beta: float = 2.5  # colour of the noise: 0 white, 2 and more hold an action for long
    shrink: float = 1.25  # each round has fewer samples by this factor; 1: all the same
    keep_elites: float = 0.3  # share of the elites that is scored again in the next round
    std: float = 0.5  # of the first Gaussian, in encoded units
    least_std: float = 0.02  # a dimension never gets narrower
    keep_mean: float = 0.1  # share of the mean before that stays

    def __post_init__(self) -> None:
        _above(1, samples=self.samples, rounds=self.rounds, elites=self.elites, shrink=self.shrink)
        _above(0, std=self.std, least_std=self.least_std, beta=self.beta)
        if self.elites > self.samples:
            raise ValueError(f"{self.elites} elites cannot be chosen among {self.samples} samples")
        if not (0 <= self.keep_mean < 1 and 0 <= self.keep_elites <= 1):
            raise ValueError("keep_mean must lie in [0, 1) and keep_elites in [0, 1]")


@torch.inference_mode()
def icem(cfg: IcemConfig, problem: Problem) -> Plan:
    """CEM on coloured noise; the best sequences of a round compete again in the next.

    Source: Pinneri et al. 2020, Sample-efficient Cross-Entropy Method for Real-time Planning; elites are not carried over
    to the next plan, the mean is.
    """
    _require(problem, "icem", "continuous")
    mean, std, meter, best = _start(problem), cfg.std, Meter(problem), Best()
    rounds, kept = meter.rounds_up_to(cfg.rounds, cfg.samples), None
    for number in range(rounds):
        samples = max(int(cfg.samples * cfg.shrink**-number), 2 * cfg.elites)
        noise = coloured_noise(
            problem.episodes, samples, problem.horizon, problem.space.dim,
            beta=cfg.beta, generator=problem.generator,
        )  # fmt: skip
        actions = problem.allowed(mean[:, None] + noise.mul_(std))
        extra = [mean[:, None]] if number == 0 and problem.warm is not None else []
        actions = torch.cat([actions, *extra, *([] if kept is None else [kept])], 1)
        cost = meter.score(actions)
        best.see(actions, cost)
        chosen = _cheapest(actions, cost, cfg.elites)
        mean = cfg.keep_mean * mean + (1 - cfg.keep_mean) * chosen.mean(1)
        std = chosen.std(1, correction=0).clamp_(min=cfg.least_std)[:, None]
        kept = chosen[:, : math.ceil(cfg.keep_elites * cfg.elites)]
        if not meter.goes_on():
            break
    return _conclude(problem, meter, best, mean)


@dataclass(frozen=True, kw_only=True)
class MppiConfig:
    """Model predictive path integral: the mean moves to the average of its samples, good ones weighing more."""

    samples: int = 100  # sequences a round
    rounds: int = 6  # updates of the mean
    # of the weights, in standard deviations of the cost; 0 would take the best alone
    temperature: float = 0.1
    beta: float = 2.0  # colour of the noise: 0 white
    std: float = 0.5  # of the noise in the first round, in encoded units
    shrink_std: float = 0.8  # factor a round; 1: the noise keeps its size

    def __post_init__(self) -> None:
        _above(1, samples=self.samples, rounds=self.rounds)
        _above(0, beta=self.beta, std=self.std)
        if not (self.temperature > 0 and 0 < self.shrink_std <= 1):
            raise ValueError("temperature must be above 0 and shrink_std in (0, 1]")


@torch.inference_mode()
def mppi(cfg: MppiConfig, problem: Problem) -> Plan:
    """Weight samples by exp(-cost / temperature), cost in its own standard deviations, and average them.

    Source: Williams et al. 2017, Information Theoretic MPC; the temperature is relative to the spread of the costs.
    """
    _require(problem, "mppi", "continuous")
    mean, meter, best = _start(problem), Meter(problem), Best()
    for number in range(meter.rounds_up_to(cfg.rounds, cfg.samples)):
        noise = coloured_noise(
            problem.episodes, cfg.samples, problem.horizon, problem.space.dim,
            beta=cfg.beta, generator=problem.generator,
        )  # fmt: skip
        noise[:, 0] = 0  # the mean itself competes
        actions = problem.allowed(mean[:, None] + noise.mul_(cfg.std * cfg.shrink_std**number))
        cost = meter.score(actions)
        best.see(actions, cost)
        finite = cost.clamp(max=cost.masked_fill(cost.isinf(), -torch.inf).amax(1, keepdim=True))
        unit = finite.std(1, correction=0, keepdim=True).clamp(min=1e-12) * cfg.temperature
        weights = ((finite.amin(1, keepdim=True) - finite) / unit).softmax(1)  # [E,S]
        mean = torch.einsum("es,esha->eha", weights, actions)
        if not meter.goes_on():
            break
    return _conclude(problem, meter, best, mean)


@dataclass(frozen=True, kw_only=True)
class GradientConfig:
    """Descent on the actions by the gradient of the model."""

    restarts: int = 8  # sequences that are descended at once
    rounds: int = 30  # steps of Adam; each costs about three model evaluations
    lr: float = 0.1  # in encoded units a step; for discrete actions of the logits
    beta: float = 2.0  # colour of the starting noise
    std: float = 0.5  # of the starting noise; the first restart begins at the warm start itself

    def __post_init__(self) -> None:
        _above(1, restarts=self.restarts, rounds=self.rounds)
        _above(0, lr=self.lr, beta=self.beta, std=self.std)


def gradient(cfg: GradientConfig, problem: Problem) -> Plan:
    """Adam from several starts; the plan is the cheapest sequence that was scored.

    Discrete actions are descended as logits: the model sees the choice, the gradient passes to its softmax (a
    straight-through estimate). Source: Bengio et al. 2013, Estimating or Propagating Gradients.
    """
    _require(problem, "gradient", "continuous", "discrete")
    discrete, meter, best = problem.space.kind == "discrete", Meter(problem), Best()
    noise = coloured_noise(
        problem.episodes, cfg.restarts, problem.horizon, problem.space.dim, beta=cfg.beta, generator=problem.generator
    )  # fmt: skip
    noise[:, 0] = 0
    with torch.inference_mode(False), torch.enable_grad():
        start = _start(problem)[:, None].clone() * (2.0 if discrete else 1.0)
        free = (start + noise.clone() * cfg.std).requires_grad_()
        optimizer = torch.optim.Adam([free], lr=cfg.lr)
        for _ in range(meter.rounds_up_to(cfg.rounds, cfg.restarts)):
            actions = _straight_through(free) if discrete else problem.allowed(free)
            cost = meter.score(actions)
            best.see(actions.detach().round() if discrete else actions.detach(), cost.detach())
            optimizer.zero_grad()
            cost.masked_fill(cost.isinf(), 0).sum().backward()
            optimizer.step()
            if not discrete:
                free.data.copy_(problem.allowed(free.data))
            if not meter.goes_on():
                break
    return meter.plan(best.actions, best.cost)


def _straight_through(logits: Tensor) -> Tensor:
    share = logits.softmax(-1)
    choice = F.one_hot(logits.argmax(-1), logits.shape[-1]).to(share.dtype)
    return choice + share - share.detach()


@dataclass(frozen=True, kw_only=True)
class ShootingConfig:
    """Random shooting: the best of many random sequences."""

    samples: int = 600  # sequences
    beta: float = 2.0  # colour of continuous actions: 0 white
    hold: float = 0.5  # probability that a discrete action repeats the one before

    def __post_init__(self) -> None:
        _above(1, samples=self.samples)
        _above(0, beta=self.beta)
        if not 0 <= self.hold < 1:
            raise ValueError(f"hold must lie in [0, 1), got {self.hold}")


@torch.inference_mode()
def shooting(cfg: ShootingConfig, problem: Problem) -> Plan:
    """Score random sequences once, the warm start among them."""
    _require(problem, "shooting", "continuous", "discrete", "multi_binary")
    meter, best = Meter(problem), Best()
    budget = (
        problem.budget.candidate_steps // problem.horizon if problem.budget.candidate_steps else cfg.samples
    )
    samples = max(min(cfg.samples, budget), 1)
    actions = random_sequences(problem, samples, beta=cfg.beta, hold=cfg.hold)
    if problem.warm is not None:
        actions[:, 0] = problem.warm
    best.see(actions, meter.score(actions))
    meter.goes_on()
    return meter.plan(best.actions, best.cost)


def random_sequences(problem: Problem, samples: int, *, beta: float, hold: float) -> Tensor:
    """Sequences [E,S,H,A] of the action space: coloured uniform values, or choices that hold for a while."""
    shape = (problem.episodes, samples, problem.horizon)
    width, generator, device = problem.space.dim, problem.generator, problem.device
    if problem.space.kind == "continuous":
        noise = coloured_noise(*shape, width, beta=beta, generator=generator)
        return problem.allowed(torch.erf(noise / math.sqrt(2)))  # normal to uniform in [-1, 1]
    if problem.space.kind == "discrete":
        drawn = F.one_hot(torch.randint(width, shape, generator=generator, device=device), width).float()
    else:
        drawn = torch.randint(2, (*shape, width), generator=generator, device=device).float()
    anew = torch.rand(shape, generator=generator, device=device) >= hold
    anew[..., 0] = True
    last = torch.where(anew, torch.arange(problem.horizon, device=device), 0).cummax(-1).values
    return drawn.gather(2, last[..., None].expand_as(drawn))


# Discrete actions


@dataclass(frozen=True, kw_only=True)
class CategoricalCemConfig:
    """Cross-entropy search over choices: a distribution a step, fitted to the best of its samples."""

    samples: int = 128  # sequences a round
    rounds: int = 6  # fits
    elites: int = 16  # samples that the next distribution is fitted to
    keep: float = 0.2  # share of the distribution before that stays
    least: float = 0.02  # probability that every action keeps
    warm_share: float = 0.7  # probability of the warm start's action in the first round

    def __post_init__(self) -> None:
        _above(1, samples=self.samples, rounds=self.rounds, elites=self.elites)
        if self.elites > self.samples:
            raise ValueError(f"{self.elites} elites cannot be chosen among {self.samples} samples")
        if not (0 <= self.keep < 1 and 0 <= self.least < 1 and 0 <= self.warm_share < 1):
            raise ValueError("keep, least and warm_share must lie in [0, 1)")


@torch.inference_mode()
def categorical_cem(cfg: CategoricalCemConfig, problem: Problem) -> Plan:
    """Sample choices, count them among the cheapest sequences, and sample from the counts."""
    _require(problem, "categorical_cem", "discrete")
    width, meter, best = problem.space.dim, Meter(problem), Best()
    share = torch.full((problem.episodes, problem.horizon, width), 1 / width, device=problem.device)
    if problem.warm is not None:
        share = (1 - cfg.warm_share) * share + cfg.warm_share * problem.warm
    for _ in range(meter.rounds_up_to(cfg.rounds, cfg.samples)):
        floored = (1 - cfg.least * width) * share + cfg.least if cfg.least * width < 1 else share
        flat = floored.flatten(0, 1)  # [E*H,A]
        ids = flat.multinomial(cfg.samples, replacement=True, generator=problem.generator)
        ids = ids.unflatten(0, (problem.episodes, problem.horizon)).transpose(1, 2)  # [E,S,H]
        actions = F.one_hot(ids, width).float()
        cost = meter.score(actions)
        best.see(actions, cost)
        share = cfg.keep * share + (1 - cfg.keep) * _cheapest(actions, cost, cfg.elites).mean(1)
        if not meter.goes_on():
            break
    return _conclude_choice(meter, best, share)


def _conclude_choice(meter: Meter, best: Best, share: Tensor) -> Plan:
    likeliest = F.one_hot(share.argmax(-1), share.shape[-1]).float()[:, None]
    best.see(likeliest, meter.score(likeliest))
    return meter.plan(best.actions, best.cost)


@dataclass(frozen=True)
class Planner:
    """A row of the table of planners."""

    config: type
    search: Callable[[Any, Problem], Plan]
    kinds: tuple[str, ...]  # of actions


PLANNERS: dict[str, Planner] = {
    "cem": Planner(CemConfig, cem, ("continuous",)),
    "icem": Planner(IcemConfig, icem, ("continuous",)),
    "mppi": Planner(MppiConfig, mppi, ("continuous",)),
    "gradient": Planner(GradientConfig, gradient, ("continuous", "discrete")),
    "shooting": Planner(ShootingConfig, shooting, ("continuous", "discrete", "multi_binary")),
    "categorical_cem": Planner(CategoricalCemConfig, categorical_cem, ("discrete",)),
}


def search(cfg: Any, problem: Problem) -> Plan:
    """Plan with the planner that a configuration belongs to."""
    for row in PLANNERS.values():
        if type(cfg) is row.config:
            return row.search(cfg, problem)
    raise ValueError(f"{type(cfg).__name__} configures no planner; there are {', '.join(PLANNERS)}")
