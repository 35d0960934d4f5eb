"""The simulators behind the protocol are the simulators, and the true costs are the true ways."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jepa_world_model.core.errors import UserError
from jepa_world_model.envs.two_rooms import draw_layouts, draw_starts, geodesic
from jepa_world_model.planning.costs import LatentDistance
from jepa_world_model.planning.oracles import (
    DoorDistance,
    GridworldOracle,
    PathDistance,
    TwoRoomsOracle,
    make_oracle,
    true_cost,
)
from jepa_world_model.planning.worlds import GridworldWorld, TwoRoomsWorld


def places(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    walls = draw_layouts(rng, count)
    walls[: count // 2] = (32.0, 18.0)
    xy = draw_starts(rng, walls)
    few = count // 8
    xy[:few] = rng.uniform((30.5, 14.0), (33.5, 22.0), (few, 2))  # in the door
    return np.concatenate([xy, walls], 1)


def as_state(rows: np.ndarray) -> dict[str, torch.Tensor]:
    rows = torch.from_numpy(rows).float()
    return {"xy": rows[:, :2], "wall": rows[:, 2:]}


def test_two_rooms_reads_the_true_state_off_the_picture():
    rows = places(400)
    seen = TwoRoomsOracle().encode(torch.from_numpy(TwoRoomsWorld().draw(rows)))
    assert (seen["xy"] - torch.from_numpy(rows[:, :2])).abs().max() < 0.03
    torch.testing.assert_close(seen["wall"], torch.from_numpy(rows[:, 2:]).float())


def test_two_rooms_moves_as_the_simulator_does():
    world, rows, rng = TwoRoomsWorld(), places(400), np.random.default_rng(1)
    state = as_state(rows)
    for _ in range(30):
        raw = rng.uniform(-1, 1, (len(rows), 2))
        rows = world.step(rows, raw)
        state = TwoRoomsOracle().step(state, torch.from_numpy(raw).float())
        # Floats may fall on the other side of a wall's corner: a handful in thousands.
        gap = (state["xy"] - torch.from_numpy(rows[:, :2])).abs().amax(1)
        assert (gap > 1e-3).sum() <= 2
        state = as_state(rows)


def test_the_way_through_the_door_is_the_true_one():
    rows, goals = places(300), places(300)[::-1].copy()
    goals[:, 2:] = rows[:, 2:]
    goals[:, :2] = draw_starts(np.random.default_rng(5), goals[:, 2:])
    goals[:20, :2] = rows[:20, 2:] + [0.4, 1.0]  # in the door
    measure = DoorDistance().towards(TwoRoomsOracle(), as_state(goals))
    found = measure(as_state(rows), slice(0, 300)).numpy()
    np.testing.assert_allclose(found, geodesic(rows[:, :2], goals[:, :2], rows[:, 2:]), atol=2e-3)


def test_measures_take_any_slice_of_episodes_with_their_candidates():
    rows, goals = places(12), places(4, seed=3)
    goals[:, 2:] = rows[::3, 2:] = (32.0, 18.0)
    for cost in (DoorDistance(), LatentDistance(latent="xy")):
        measure = cost.towards(TwoRoomsOracle(), as_state(goals))
        whole = measure(as_state(rows), slice(0, 4))
        parts = [measure(as_state(rows[3 * e : 3 * e + 6]), slice(e, e + 2)) for e in (0, 2)]
        torch.testing.assert_close(torch.cat(parts), whole)


def test_the_gridworld_reads_moves_and_counts_truly():
    world = GridworldWorld(cells=8, size=32)
    oracle = GridworldOracle(world)
    starts, goals = world.pairs(20, 0)
    state = oracle.encode(torch.from_numpy(world.draw(starts)))
    torch.testing.assert_close(oracle.read(state, "xy"), torch.from_numpy(starts).float())
    measure = PathDistance(world=world).towards(oracle, oracle.encode(torch.from_numpy(world.draw(goals))))
    rng = np.random.default_rng(0)
    for _ in range(10):
        np.testing.assert_allclose(measure(state, slice(0, 20)).numpy(), world.steps_to_go(starts, goals))
        raw = rng.integers(5, size=20)
        starts = world.step(starts, raw)
        state = oracle.step(state, torch.from_numpy(world.space.encode(raw)))
        torch.testing.assert_close(oracle.read(state, "xy"), torch.from_numpy(starts).float())


def test_simulators_are_found_by_their_world():
    assert isinstance(make_oracle(TwoRoomsWorld()), TwoRoomsOracle)
    assert isinstance(make_oracle(GridworldWorld(cells=8, size=32)), GridworldOracle)
    assert isinstance(true_cost(TwoRoomsWorld()), DoorDistance)
    with pytest.raises(UserError, match="no 'z'"):
        TwoRoomsOracle().read(as_state(places(2)), "z")
