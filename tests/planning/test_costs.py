"""Costs: zero at the goal, prepared once, refused where a goal cannot tell; and what a rollout adds up."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from jepa_world_model.core.errors import UserError
from jepa_world_model.models.world_model import WorldModel
from jepa_world_model.planning.costs import (
    LatentDistance,
    LearnedSteps,
    OwnDistance,
    ToGo,
    WeightedSum,
    stride_of,
)
from jepa_world_model.planning.dynamics import WorldModelDynamics, repeat_rows
from jepa_world_model.planning.oracles import TwoRoomsOracle
from jepa_world_model.planning.rollout import Objective, make_score
from tests.planning.test_dynamics import GROUPS, SPACE, batch, make


def goals(dynamics: WorldModelDynamics):
    return dynamics.encode(batch(windows=3).frames[:, 0])


COSTS = [OwnDistance(), LatentDistance(), LatentDistance(latent="h"), LatentDistance(latent="p"),
         LatentDistance(squared=True), LearnedSteps(),
         WeightedSum(parts=((2.0, LatentDistance()), (0.5, LatentDistance(latent="h"))))]  # fmt: skip


@pytest.mark.parametrize("cost", COSTS, ids=str)
def test_a_cost_is_zero_at_its_own_goal_and_positive_at_others(cost):
    dynamics = make((*GROUPS, "pose_measurement", "temporal_distance"), pose=True)
    goal = goals(dynamics)
    measure = cost.towards(dynamics, goal)
    at = measure(repeat_rows(goal, 2), slice(0, 3))
    assert at.shape == (6,)
    assert at.abs().max() < 1e-4
    moved = {name: value.roll(1, 0) for name, value in goal.items()}
    assert (measure(moved, slice(0, 3)) > 3e-4).all()  # poses of fresh heads lie close together
    torch.testing.assert_close(
        measure({k: v[1:] for k, v in moved.items()}, slice(1, 3)), measure(moved, slice(0, 3))[1:]
    )


def test_a_pose_without_a_measurement_is_refused_as_a_cost():
    dynamics = make(pose=True)
    with pytest.raises(UserError, match=r"no 'p'.*--loss-weights.pose-measure-p above 0"):
        LatentDistance(latent="p").towards(dynamics, goals(dynamics))
    with pytest.raises(UserError, match=r"--loss-weights.temporal-distance above 0"):
        LearnedSteps().towards(dynamics, goals(dynamics))


def test_learned_steps_are_those_of_the_head():
    dynamics = make((*GROUPS, "temporal_distance"))
    goal = goals(dynamics)
    other = {name: value.roll(1, 0) for name, value in goal.items()}
    found = LearnedSteps().towards(dynamics, goal)(other, slice(0, 3))
    torch.testing.assert_close(found.log1p(), dynamics.model.temporal_distance(other["z"], goal["z"]))


def rooms(xy, goal):
    state = lambda rows: {"xy": torch.tensor(rows), "wall": torch.tensor([[32.0, 18.0]]).expand(len(rows), 2)}
    return state(xy), state(goal)


def score_of(objective: Objective, actions: torch.Tensor) -> torch.Tensor:
    start, goal = rooms([[10.0, 10.0], [20.0, 40.0]], [[10.0, 10.0], [20.0, 40.0]])
    oracle = TwoRoomsOracle()
    return make_score(oracle, start, objective.cost.towards(oracle, goal), objective)(actions)


XY = LatentDistance(latent="xy")
OUT = torch.tensor([1.0, 0.0]).expand(2, 3, 4, 2)  # four steps to the right: 1.8, 3.6, 5.4 and 7.2 px away


@pytest.mark.parametrize(("objective", "expected"), [
    (Objective(cost=XY), 18.0), (Objective(cost=XY, over="last"), 7.2),
    (Objective(cost=XY, every=2), 2 * (3.6 + 7.2)), (Objective(cost=XY, action_penalty=0.5), 18.0 + 2.0),
    (Objective(cost=WeightedSum(parts=((2.0, XY), (1.0, XY)))), 54.0), (Objective(cost=XY, rows_at_once=3), 18.0),
])  # fmt: skip
def test_a_rollout_adds_up_what_the_objective_asks_for(objective, expected):
    torch.testing.assert_close(score_of(objective, OUT), torch.full((2, 3), expected))


def far_from(x: float):
    """Moves of 1.8 px to the left of x, of which a step takes off one."""
    return ToGo(lambda state, _: (x - state["xy"][:, 0]).abs() / 1.8, 1.0)


class Tunnel(TwoRoomsOracle):
    """Dynamics that go through the wall: beyond x = 15 they are 18 px further."""

    def step(self, state, action):
        after = super().step(state, action)
        x = after["xy"][:, :1]
        jump = torch.where((state["xy"][:, :1] < 15) & (x >= 15), 18.0, 0.0)
        return after | {"xy": after["xy"] + jump * torch.tensor([1.0, 0.0])}


@pytest.mark.parametrize(("over", "every", "plain"), [
    ("sum", 1, 19 + 18 + 7 + 6), ("sum", 2, 2 * (18 + 6)), ("last", 1, 6),
])  # fmt: skip
def test_a_fall_that_no_step_makes_is_charged_from_there_on(over, every, plain):
    """Ten moves are skipped by the third step: what later looks gain by it is charged `leap_charge` times."""
    start = {"xy": torch.tensor([[10.0, 10.0]]), "wall": torch.tensor([[32.0, 18.0]])}
    actions = torch.tensor([1.0, 0.0]).expand(1, 1, 4, 2)
    looks = {("sum", 1): 2, ("sum", 2): 2, ("last", 1): 1}[
        over, every
    ]  # after the leap, times what each counts for
    for charge in (0.0, 2.0):
        objective = Objective(over=over, every=every, leap_charge=charge)
        found = make_score(Tunnel(), start, far_from(46.0), objective)(actions)
        torch.testing.assert_close(
            found, torch.tensor([[plain + charge * looks * 10.0]]), rtol=1e-4, atol=1e-3
        )
    honest = Objective(over=over, every=every), Objective(over=over, every=every, leap_charge=0.0)
    one, other = (make_score(TwoRoomsOracle(), start, far_from(46.0), o)(actions) for o in honest)
    torch.testing.assert_close(one, other)


def test_a_sum_of_costs_in_moves_is_one_and_with_another_is_not():
    part = SimpleNamespace(towards=lambda dynamics, goal: far_from(46.0))
    dynamics, (_, goal) = TwoRoomsOracle(), rooms([[10.0, 10.0]], [[46.0, 10.0]])
    assert stride_of(WeightedSum(parts=((2.0, part), (0.5, part))).towards(dynamics, goal)) == 2.5
    assert stride_of(WeightedSum(parts=((2.0, part), (0.5, XY))).towards(dynamics, goal)) == math.inf


def test_scores_do_not_depend_on_how_many_are_rolled_out_at_once():
    actions = torch.randn(2, 5, 6, 2, generator=torch.Generator().manual_seed(0))
    one, all_of_them = (score_of(Objective(cost=XY, rows_at_once=rows), actions) for rows in (1, 100))
    torch.testing.assert_close(one, all_of_them)


def test_a_world_model_is_rolled_out_as_one_episode_after_the_other():
    """Batched over episodes and candidates, the score is that of a plain loop over both."""
    torch.manual_seed(0)
    settings = make().settings
    dynamics = WorldModelDynamics(WorldModel(settings.model, GROUPS), settings, SPACE)
    frames, objective = batch(windows=3).frames, Objective()
    start, goal = dynamics.encode(frames[:, 0]), dynamics.encode(frames[:, 1])
    actions = torch.eye(5)[torch.randint(5, (3, 4, 6), generator=torch.Generator().manual_seed(0))]
    together = make_score(dynamics, start, objective.cost.towards(dynamics, goal), objective)(actions)
    for e in range(3):
        for s in range(4):
            state, total = {k: v[e : e + 1] for k, v in start.items()}, 0.0
            for t in range(6):
                state = dynamics.step(state, actions[e, s, t][None])
                total = total + dynamics.distance(state, {k: v[e : e + 1] for k, v in goal.items()})
            torch.testing.assert_close(together[e, s], total[0], rtol=1e-4, atol=1e-4)
