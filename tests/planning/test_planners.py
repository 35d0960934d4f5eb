"""Planners on scores whose optimum is known: they find it, repeat it, keep to their budget and to the allowed actions."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from jepa_world_model.core.errors import UserError
from jepa_world_model.data.batch import ActionSpace
from jepa_world_model.planning.planners import (
    PLANNERS,
    CategoricalCemConfig,
    CemConfig,
    GradientConfig,
    IcemConfig,
    MppiConfig,
    ShootingConfig,
    random_sequences,
    search,
)
from jepa_world_model.planning.problem import Budget, Plan, Problem, coloured_noise

BOX = ActionSpace(kind="continuous", dim=2, low=(-1.0, -1.0), high=(1.0, 1.0))
MOVES = ActionSpace(kind="discrete", dim=5, noop=0)
BITS = ActionSpace(kind="multi_binary", dim=3)
STEPS = torch.tensor([[0.0, 0.0], [0.0, -1.0], [0.0, 1.0], [-1.0, 0.0], [1.0, 0.0]])
GOALS = torch.tensor([[3.0, -2.0], [-1.0, 2.0], [0.0, 4.0]])


def walk_cost(actions: torch.Tensor) -> torch.Tensor:
    """Distance to each episode's goal after walking the actions from the origin, summed over the steps."""
    moves = actions @ STEPS if actions.shape[-1] == 5 else actions
    return (moves.cumsum(2) - GOALS[:, None, None]).norm(dim=-1).sum(-1)


def problem(space=BOX, *, seed=0, score=walk_cost, horizon=6, **more) -> Problem:
    generator = torch.Generator().manual_seed(seed)
    return Problem(score=score, episodes=3, horizon=horizon, space=space, generator=generator, **more)


def by_kind(kind: str) -> list[str]:
    return [name for name, row in PLANNERS.items() if kind in row.kinds]


# The share of the gain that there is, from standing still to each axis at full speed, that a plan must have.
CONTINUOUS = {
    "cem": (CemConfig(), 0.9), "icem": (IcemConfig(), 0.85), "mppi": (MppiConfig(), 0.9),
    "gradient": (GradientConfig(rounds=60), 0.99), "shooting": (ShootingConfig(), 0.7),
}  # fmt: skip


@pytest.mark.parametrize("name", by_kind("continuous"))
def test_continuous_planners_find_the_straight_walk(name):
    cfg, share = CONTINUOUS[name]
    plan = search(cfg, problem())
    reach = torch.arange(1, 7.0)[:, None]
    fastest = GOALS[:, None].sign() * torch.minimum(GOALS[:, None].abs(), reach)  # [3,6,2]
    optimum = (fastest - GOALS[:, None]).norm(dim=-1).sum(-1)
    still = walk_cost(torch.zeros(3, 1, 6, 2))[:, 0]
    gain = (still - plan.cost) / (still - optimum)
    assert (gain >= share).all(), gain
    assert (gain <= 1 + 1e-5).all()
    torch.testing.assert_close(walk_cost(plan.actions[:, None])[:, 0], plan.cost)


@pytest.mark.parametrize("name", by_kind("discrete"))
def test_discrete_planners_choose_shortest_walks(name):
    cfg = {"gradient": GradientConfig(rounds=60, restarts=16), "shooting": ShootingConfig(samples=4000),
           "categorical_cem": CategoricalCemConfig(samples=256)}[name]  # fmt: skip
    plan = search(cfg, problem(MOVES))
    assert set(plan.actions.unique().tolist()) <= {0.0, 1.0}
    assert (plan.actions.sum(-1) == 1).all()
    ends = (plan.actions @ STEPS).sum(1)
    assert (ends - GOALS).norm(dim=-1).max() <= (0.5 if name == "categorical_cem" else 1.5)


@pytest.mark.parametrize("name", PLANNERS)
def test_a_seed_decides_the_plan(name):
    kind = PLANNERS[name].kinds[0]
    space, cfg = {"continuous": BOX, "discrete": MOVES}[kind], PLANNERS[name].config()
    one, same, other = (search(cfg, problem(space, seed=seed)).actions for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("name", by_kind("continuous"))
def test_plans_stay_within_the_longest_action_that_is_executed(name):
    plan = search(PLANNERS[name].config(), problem(max_norm=0.5))
    assert plan.actions.norm(dim=-1).max() <= 0.5 + 1e-5


@pytest.mark.parametrize("name", PLANNERS)
def test_a_budget_of_candidate_steps_is_kept(name):
    space = {"continuous": BOX, "discrete": MOVES}[PLANNERS[name].kinds[0]]
    cfg = PLANNERS[name].config()
    free = search(cfg, problem(space))
    few = search(cfg, problem(space, budget=Budget(candidate_steps=free.candidate_steps // 3)))
    assert 0 < few.candidate_steps <= free.candidate_steps // 3 + 6  # the mean of a fit is scored once more
    assert few.cost.mean() >= free.cost.mean() - 0.2


def test_a_budget_of_milliseconds_ends_the_search():
    cfg = CemConfig(rounds=100_000, samples=16, elites=4)
    plan = search(cfg, problem(budget=Budget(milliseconds=30)))
    assert 1 <= plan.rounds < 100_000


@pytest.mark.parametrize("name", ["cem", "icem", "mppi", "gradient", "shooting", "categorical_cem"])
def test_a_warm_start_makes_a_short_search_better(name):
    space = {"continuous": BOX, "discrete": MOVES}[PLANNERS[name].kinds[0]]
    cfg = {"cem": CemConfig(rounds=1, std=0.1), "icem": IcemConfig(rounds=1, std=0.1),
           "mppi": MppiConfig(rounds=1, std=0.1), "gradient": GradientConfig(rounds=1, std=0.1),
           "shooting": ShootingConfig(samples=4), "categorical_cem": CategoricalCemConfig(rounds=1)}[name]  # fmt: skip
    good = search(PLANNERS[name].config(), problem(space))
    cold, warm = (search(cfg, problem(space, seed=3, warm=start)) for start in (None, good.actions))
    assert (warm.cost < cold.cost).all()


def test_a_plan_moves_on_by_what_was_executed():
    actions = torch.arange(4.0)[None, :, None]
    plan = Plan(actions=actions, cost=torch.zeros(1), candidate_steps=0, rounds=1)
    assert plan.shifted(0).flatten().tolist() == [0, 1, 2, 3]
    assert plan.shifted(3).flatten().tolist() == [3, 3, 3, 3]
    assert plan.shifted(9).flatten().tolist() == [3, 3, 3, 3]


def test_candidates_that_are_not_finite_are_never_chosen():
    def broken(actions):
        cost = walk_cost(actions)
        return torch.where(actions[:, :, 0, 0] > 0, torch.nan, cost)

    for name in by_kind("continuous"):
        plan = search(PLANNERS[name].config(), problem(score=broken))
        assert plan.cost.isfinite().all(), name
        assert (plan.actions[:, 0, 0] <= 0).all(), name


def test_episodes_do_not_look_at_each_other():
    """The plan of an episode depends on its own costs alone."""

    def doubled(actions):
        cost = walk_cost(actions)
        return torch.cat([cost[:1], cost[1:] * 0 + actions[1:].sum((2, 3))])

    for cfg in (CemConfig(), IcemConfig(), MppiConfig(), GradientConfig()):
        one, other = search(cfg, problem()), search(cfg, problem(score=doubled))
        torch.testing.assert_close(one.actions[0], other.actions[0])


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("horizon", [1, 2, 7, 50])
def test_coloured_noise_has_unit_variance_at_every_step(beta, horizon):
    noise = coloured_noise(4, 2000, horizon, 2, beta=beta, generator=torch.Generator().manual_seed(0))
    assert noise.shape == (4, 2000, horizon, 2)
    spread = noise.flatten(0, 1).var(0)
    assert (spread - 1).abs().max() < 6 * math.sqrt(2 / 8000)


def test_coloured_noise_has_the_power_spectrum_it_is_asked_for():
    noise = coloured_noise(1, 4000, 64, 1, beta=2.0, generator=torch.Generator().manual_seed(0))[0, :, :, 0]
    power = torch.fft.rfft(noise).abs().square().mean(0)[1:-1]
    slope = (power[15] / power[0]).log() / math.log(16)
    assert abs(slope + 2.0) < 0.15


def test_random_sequences_hold_discrete_actions_and_fill_the_box():
    held = random_sequences(problem(MOVES, horizon=200), 20, beta=0, hold=0.8)
    repeats = (held[:, :, 1:] == held[:, :, :-1]).all(-1).float().mean()
    assert abs(repeats - (0.8 + 0.2 / 5)) < 0.03
    bits = random_sequences(problem(BITS), 50, beta=0, hold=0.0)
    assert set(bits.unique().tolist()) == {0.0, 1.0}
    box = random_sequences(problem(horizon=50), 200, beta=2.0, hold=0)
    assert abs(box.var() - 1 / 3) < 0.05  # uniform in [-1, 1]


def test_actions_that_a_planner_cannot_search_are_refused_with_those_that_can():
    with pytest.raises(
        UserError, match=r"cem searches continuous actions.*use gradient or shooting or categorical_cem"
    ):
        search(CemConfig(), problem(MOVES))
    with pytest.raises(UserError, match="use shooting"):
        search(GradientConfig(), problem(BITS))
    with pytest.raises(ValueError, match="configures no planner"):
        search(object(), problem())


@pytest.mark.parametrize("make", [
    lambda: CemConfig(elites=200), lambda: CemConfig(samples=0), lambda: IcemConfig(keep_mean=1.0),
    lambda: MppiConfig(temperature=0), lambda: GradientConfig(lr=-1), lambda: ShootingConfig(hold=1),
    lambda: CategoricalCemConfig(least=1), lambda: Budget(candidate_steps=-1),
    lambda: problem(warm=torch.zeros(3, 5, 2)), lambda: problem(horizon=0),
])  # fmt: skip
def test_settings_that_make_no_sense_are_refused(make):
    with pytest.raises(ValueError):
        make()


def test_gradient_through_discrete_choices_scores_the_choices_themselves():
    seen = []

    def score(actions):
        seen.append(actions.detach())
        return walk_cost(actions)

    search(GradientConfig(rounds=3), problem(MOVES, score=score))
    for actions in seen:
        torch.testing.assert_close(actions, F.one_hot(actions.argmax(-1), 5).float())
