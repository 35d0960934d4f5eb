"""A roadmap that a model imagines: as good as its dynamics, in a place that no data showed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.rng import Streams
from jepa_world_model.envs.two_rooms import HIGH, LOW, MAX_STEP
from jepa_world_model.planning.costs import stride_of
from jepa_world_model.planning.dynamics import pick_rows
from jepa_world_model.planning.oracles import TwoRoomsOracle
from jepa_world_model.planning.roadmap import RoadmapConfig, RoadmapDistance, imagine
from jepa_world_model.planning.worlds import TwoRoomsWorld

QUICK = RoadmapConfig(walks=120, steps=30, rounds=5)


class Ghost(TwoRoomsOracle):
    """Two Rooms for one who walks through walls."""

    def step(self, state, action):
        move = action * (MAX_STEP / action.norm(dim=-1, keepdim=True).clamp(min=1.0))
        return state | {"xy": (state["xy"] + move).clamp(LOW, HIGH)}


def drawn(world: TwoRoomsWorld, count: int):
    starts, goals = world.pairs(count, 0)
    frames = torch.from_numpy(world.draw(np.concatenate([starts, goals])))
    return starts, goals, TwoRoomsOracle().encode(frames)


def test_ways_lead_through_the_door_of_each_place_if_the_model_knows_walls():
    world = TwoRoomsWorld(random_wall=True)
    starts, goals, states = drawn(world, 4)
    here, there = pick_rows(states, slice(0, 4)), pick_rows(states, slice(4, 8))
    true, straight = world.steps_to_go(starts, goals), world.distance(starts, goals)
    spread = lambda found, real: (found / real).std() / (found / real).mean()
    asked = {}
    for model in (TwoRoomsOracle(), Ghost()):
        measure = RoadmapDistance(cfg=QUICK, latent="xy").towards(model, there)
        assert 1 < stride_of(measure) < 4  # in median moves
        asked[type(model)] = measure(here, slice(0, 4)).numpy()
        one = measure(pick_rows(here, slice(2, 3)), slice(2, 3))
        assert one.item() == pytest.approx(asked[type(model)][2], rel=1e-5)
        assert measure(there, slice(0, 4)).max() < 0.1
    assert spread(asked[TwoRoomsOracle], true) < 0.06 < spread(straight, true)
    assert spread(asked[Ghost], straight) < 0.06 < spread(asked[Ghost], true)


def test_walks_repeat_under_a_seed_and_are_laid_out_one_after_another():
    _, _, states = drawn(TwoRoomsWorld(), 1)
    goal, cfg = pick_rows(states, slice(1, 2)), RoadmapConfig(walks=7, steps=5, rounds=3)
    walks = [imagine(TwoRoomsOracle(), goal, "xy", cfg, Streams(seed).torch("roadmap")) for seed in (0, 0, 1)]
    (latents, bounds), (again, _), (other, _) = walks
    assert latents.shape == (7 * 3 * 6, 2)
    assert bounds.tolist() == [[6 * row, 6] for row in range(21)]
    np.testing.assert_array_equal(
        latents[:42:6], np.repeat(goal["xy"].numpy(), 7, 0)
    )  # the first round starts here
    assert np.linalg.norm(np.diff(latents.reshape(21, 6, 2), axis=1), axis=-1).max() < MAX_STEP + 1e-4
    np.testing.assert_array_equal(latents, again)
    assert not np.array_equal(latents, other)


def test_a_latent_that_a_picture_does_not_tell_is_refused():
    _, _, states = drawn(TwoRoomsWorld(), 1)
    with pytest.raises(UserError, match="a single frame of this model has no 'h'"):
        RoadmapDistance(latent="h").towards(TwoRoomsOracle(), states)


@pytest.mark.parametrize(
    "wrong", [{"walks": 0}, {"steps": 1}, {"rounds": 0}, {"apart": 0.0}, {"apart": float("inf")}]
)
def test_a_roadmap_without_walks_is_refused(wrong):
    with pytest.raises(ValueError, match="walks and rounds must be 1"):
        RoadmapConfig(**wrong)


def test_a_model_that_diverges_is_named():
    class Divergent(TwoRoomsOracle):
        def step(self, state, action):
            return state | {"xy": state["xy"] * 1e9}

    _, _, states = drawn(TwoRoomsWorld(), 1)
    with pytest.raises(UserError, match="within 150 steps of its own is not finite"):
        RoadmapDistance(latent="xy").towards(Divergent(), states)
