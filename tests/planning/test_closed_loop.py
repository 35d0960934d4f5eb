"""Closed loop: what is recorded is what happened, seeds decide it, and the evaluation cannot flatter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jepa_world_model.core.rng import Streams
from jepa_world_model.planning.closed_loop import (
    LoopConfig,
    PlanningPolicy,
    RandomPolicy,
    StillPolicy,
    plan_episodes,
    run_episodes,
)
from jepa_world_model.planning.costs import LatentDistance
from jepa_world_model.planning.dynamics import Dynamics
from jepa_world_model.planning.oracles import DoorDistance, PathDistance, TwoRoomsOracle, make_oracle
from jepa_world_model.planning.planners import CategoricalCemConfig, IcemConfig
from jepa_world_model.planning.rollout import Objective
from jepa_world_model.planning.worlds import GridworldWorld, TwoRoomsWorld

ROOMS, GRID = TwoRoomsWorld(), GridworldWorld(cells=8, size=32)
SHORT = LoopConfig(steps=60, horizon=20, replan=10)
DOOR = Objective(cost=DoorDistance())


def test_perfect_dynamics_with_the_true_cost_solve_two_rooms():
    episodes, policy = plan_episodes(
        ROOMS, TwoRoomsOracle(), planner=IcemConfig(), objective=DOOR, cfg=SHORT, count=12
    )
    assert episodes.success["final_4.5"].all()
    assert (episodes.steps_to_goal >= episodes.optimal - 4.5 / 1.8 - 1).all()
    assert policy.candidate_steps == sum(plan.candidate_steps for _, plan in policy.kept)
    assert [step for step, _ in policy.kept] == [0, 10, 20, 30, 40, 50]


def test_perfect_dynamics_with_a_straight_cost_fail_where_the_wall_is_in_the_way():
    straight = Objective(cost=LatentDistance(latent="xy"))
    episodes, _ = plan_episodes(ROOMS, TwoRoomsOracle(), objective=straight, cfg=SHORT, count=20)
    assert 0.3 < episodes.success["ever_4.5"].mean() < 0.9


def test_perfect_dynamics_solve_the_gridworld():
    cfg = LoopConfig(steps=25, horizon=12, replan=3)
    objective = Objective(cost=PathDistance(world=GRID))
    episodes, _ = plan_episodes(
        GRID, make_oracle(GRID), planner=CategoricalCemConfig(), objective=objective, cfg=cfg, count=10
    )
    assert episodes.success["final"].all()
    assert (episodes.steps_to_goal >= episodes.optimal).all()
    assert (episodes.steps_to_goal <= episodes.optimal + 4).all()


def test_records_tell_what_happened():
    episodes, _ = plan_episodes(ROOMS, TwoRoomsOracle(), objective=DOOR, cfg=SHORT, count=3)
    places = episodes.starts
    for t in range(60):
        np.testing.assert_allclose(episodes.distance[:, t], ROOMS.distance(places, episodes.goals))
        places = ROOMS.step(places, episodes.actions[:, t])
    np.testing.assert_array_equal(places, episodes.places[:, -1])
    rows = episodes.to_json()
    assert len(rows) == 3
    assert len(rows[0]["actions"]) == 60
    assert rows[0]["success"]["ever_4.5"] == bool((episodes.distance[0] < 4.5).any())
    assert rows[0]["steps_to_goal"] == int((episodes.distance[0] < 4.5).argmax())


def test_a_seed_decides_everything():
    small = LoopConfig(steps=6, horizon=5, replan=3)
    runs = [
        plan_episodes(ROOMS, TwoRoomsOracle(), objective=DOOR, cfg=small, count=4, seed=s)[0]
        for s in (3, 3, 4)
    ]
    np.testing.assert_array_equal(runs[0].actions, runs[1].actions)
    assert (runs[0].actions != runs[2].actions).any()


class Shuffled(TwoRoomsOracle):
    """Perfect but for its actions: it believes in those of another candidate."""

    def step(self, state, action):
        """The step of somebody else's action."""
        generator = torch.Generator().manual_seed(len(action))
        return super().step(state, action[torch.randperm(len(action), generator=generator)])


def test_a_model_with_shuffled_actions_and_standing_still_score_what_chance_scores():
    """The evaluation gives no credit for anything but plans: 60 pairs, the same for all of them."""
    starts, goals = ROOMS.pairs(60, 0)
    score = lambda policy: run_episodes(ROOMS, policy, starts, goals, 60).success["ever_4.5"].mean()
    chance = score(RandomPolicy(ROOMS, streams=Streams(0)))
    assert score(StillPolicy(ROOMS)) <= chance
    plan = lambda model: PlanningPolicy(
        model, IcemConfig(rounds=3), DOOR, SHORT, streams=Streams(0), max_norm=1.0
    )
    shuffled, honest = score(plan(Shuffled())), score(plan(TwoRoomsOracle()))
    assert chance < 0.2
    assert shuffled < chance + 0.1
    assert honest > 0.9


def test_standing_still_moves_nothing_in_either_world():
    for world in (ROOMS, GRID):
        starts, goals = world.pairs(5, 0)
        episodes = run_episodes(world, StillPolicy(world), starts, goals, 5)
        np.testing.assert_array_equal(episodes.places[:, -1], starts)
        assert not any(won.any() for won in episodes.success.values())


def test_a_start_within_the_radius_is_reported_as_solved_at_start():
    starts, goals = ROOMS.pairs(4, 0)
    goals[0] = starts[0]
    episodes = run_episodes(ROOMS, StillPolicy(ROOMS), starts, goals, 2)
    assert episodes.solved_at_start.tolist() == [True, False, False, False]
    assert episodes.steps_to_goal[0] == 0


class Counting(TwoRoomsOracle):
    """Counts the frames it is shown."""

    seen = 0

    def encode(self, frames):
        """Count, and read."""
        self.seen += len(frames)
        return super().encode(frames)


def test_each_frame_is_encoded_once():
    model = Counting()
    plan_episodes(ROOMS, model, objective=DOOR, cfg=LoopConfig(steps=20, horizon=10, replan=5), count=3)
    assert model.seen == 3 * (1 + 1 + 20)  # start, goal, and what follows each step


def test_the_belief_follows_what_is_seen():
    """A model that is wrong about every step is put right by every frame."""

    class Drifting(TwoRoomsOracle):
        def step(self, state, action):
            after = super().step(state, action)
            return {**after, "xy": after["xy"] + 3.0}

    assert isinstance(Drifting(), Dynamics)
    episodes, policy = plan_episodes(ROOMS, Drifting(), objective=DOOR, cfg=SHORT, count=2)
    torch.testing.assert_close(
        policy.state["xy"], torch.from_numpy(episodes.places[:, -1, :2]).float(), atol=0.03, rtol=0
    )


def test_a_plan_cannot_be_followed_beyond_its_end():
    with pytest.raises(ValueError, match="use replan <= 5"):
        LoopConfig(horizon=5, replan=6)
