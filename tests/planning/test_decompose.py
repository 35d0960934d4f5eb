"""Model error and cost error, told apart: tabulated costs and probed positions are what they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jepa_world_model.core.errors import UserError
from jepa_world_model.data.store import from_arrays
from jepa_world_model.envs import generate_gridworld, generate_two_rooms
from jepa_world_model.planning.costs import LatentDistance
from jepa_world_model.planning.decompose import Probed, TabulatedCost, with_position
from jepa_world_model.planning.dynamics import Dynamics
from jepa_world_model.planning.oracles import DoorDistance, GridworldOracle, PathDistance, TwoRoomsOracle
from jepa_world_model.planning.worlds import GridworldWorld, TwoRoomsWorld


def seen(world, places: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(world.draw(places))


def test_a_tabulated_cost_is_the_cost_itself_between_the_places_of_its_grid():
    """The simulator stands for the model, so that the truth is known: also right beside the wall."""
    world, oracle = TwoRoomsWorld(), TwoRoomsOracle()
    starts, goals = world.pairs(60, 0)
    starts[:10, 0], starts[10:20, 0] = 30.4, 33.6  # beside the wall, on either side
    goal, here = oracle.encode(seen(world, goals)), oracle.encode(seen(world, starts))
    exact = DoorDistance().towards(oracle, goal)(here, slice(0, 60))
    found = TabulatedCost(oracle, DoorDistance(), world).towards(oracle, goal)(here, slice(0, 60))
    assert (found - exact).abs().max() < 0.25
    assert (found - exact).abs().mean() < 0.05


def test_a_tabulated_cost_of_the_gridworld_is_that_of_every_cell():
    world = GridworldWorld(cells=8, size=32)
    oracle = GridworldOracle(world)
    starts, goals = world.pairs(20, 0)
    goal, here = oracle.encode(seen(world, goals)), oracle.encode(seen(world, starts))
    table = TabulatedCost(oracle, PathDistance(world=world), world).towards(oracle, goal)
    np.testing.assert_allclose(table(here, slice(0, 20)).numpy(), world.steps_to_go(starts, goals), rtol=1e-5)
    differing = TabulatedCost(TwoRoomsOracle(), DoorDistance(), TwoRoomsWorld(random_wall=True))
    with pytest.raises(UserError, match="walls that differ"):
        differing.towards(TwoRoomsOracle(), {"xy": torch.zeros(1, 2)})


class Skewed(Dynamics):
    """Two Rooms whose latent is a skewed image of the position."""

    latents = goal_latents = ("z",)
    space = TwoRoomsWorld.space
    skew = torch.tensor([[0.3, -0.1, 0.4], [0.2, 0.5, 0.0]])

    def encode(self, frames):
        """The true position, skewed."""
        return TwoRoomsOracle().encode(frames)["xy"] @ self.skew + 2.0

    def step(self, state, action):
        """Straight on."""
        return state + 1.8 * action @ self.skew

    def read(self, state, name):
        """The skewed position."""
        return state


def test_a_probe_reads_the_true_position_and_lets_the_true_cost_follow_a_models_states():
    made = generate_two_rooms(episodes=20, length=30, seed=0)
    dynamics = with_position(Skewed(), from_arrays(made), frames=400)
    assert isinstance(dynamics, Probed)
    assert dynamics.error < 0.05
    world = TwoRoomsWorld()
    starts, goals = world.pairs(15, 0)
    state = dynamics.encode(seen(world, starts))
    np.testing.assert_allclose(dynamics.read(state, "xy").numpy(), starts[:, :2], atol=0.1)
    found = DoorDistance().towards(dynamics, dynamics.encode(seen(world, goals)))(state, slice(0, 15))
    np.testing.assert_allclose(found.numpy(), world.steps_to_go(starts, goals) * 1.8, atol=0.3)
    assert torch.equal(dynamics.read(state, "z"), state)
    assert LatentDistance(latent="z").towards(dynamics, state)(state, slice(0, 15)).max() < 1e-5


def test_paths_can_be_counted_from_a_position_alone():
    world = GridworldWorld(cells=8, size=32)
    oracle = GridworldOracle(world)
    oracle.goal_latents = ("xy",)
    starts, goals = world.pairs(20, 0)
    measure = PathDistance(world=world).towards(oracle, oracle.encode(seen(world, goals)))
    here = oracle.encode(seen(world, starts))
    np.testing.assert_allclose(measure(here, slice(0, 20)).numpy(), world.steps_to_go(starts, goals))


def test_data_without_true_positions_are_refused():
    made = generate_gridworld(episodes=2, length=5, cells=8, size=32)
    made.pop("states")
    with pytest.raises(UserError, match="does not tell true positions"):
        with_position(Skewed(), from_arrays({**made, "state_names": ()}))
