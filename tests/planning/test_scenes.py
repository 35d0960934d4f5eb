"""A graph for each goal, of the episodes that look like it: places stay apart that a wall parts in this scene alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jepa_world_model.data.store import from_arrays
from jepa_world_model.envs import generate_two_rooms, two_rooms_walks
from jepa_world_model.planning.costs import stride_of
from jepa_world_model.planning.oracles import TwoRoomsOracle
from jepa_world_model.planning.scenes import Scenes, ScenesConfig, ScenesDistance, what_moves, what_stays
from jepa_world_model.planning.worlds import TwoRoomsWorld

LAYOUTS = np.array([[24.0, 14.0], [32.0, 50.0], [40.0, 14.0]])  # wall x, door y
MIX = torch.linalg.qr(torch.randn(6, 4, generator=torch.Generator().manual_seed(0))).Q.T  # [4,6]


class Seeing(TwoRoomsOracle):
    """Two Rooms behind a latent that tells dot and walls, mixed: walls make up most of it."""

    latents = goal_latents = ("z",)

    def read(self, state, name):
        return torch.cat([state["xy"] / 10, state["wall"]], 1) @ MIX


@pytest.fixture(scope="module")
def scenes():
    """150 walks in three layouts."""
    patch = pytest.MonkeyPatch()
    patch.setattr(two_rooms_walks, "draw_layouts", lambda rng, count: LAYOUTS[rng.integers(3, size=count)])
    made = generate_two_rooms(episodes=150, length=80, seed=0, random_wall=True)
    patch.undo()
    return made["walls"], Scenes(Seeing(), from_arrays(made), cfg=ScenesConfig(scenes=40))


def test_ways_are_those_of_the_goals_own_scene(scenes):
    world = TwoRoomsWorld(random_wall=True)
    x, y = (np.array([10.0, 52.0, 8.0, 55.0, 50.0, 12.0]), np.array([55.0, 40.0, 9.0, 12.0, 52.0, 30.0]))
    starts = np.stack([x, y], 1)
    goals = np.stack([64 - x, y], 1)  # across the wall, in every layout
    starts, goals = (np.concatenate([xy, np.tile(LAYOUTS, (2, 1))], 1) for xy in (starts, goals))
    here, there = (Seeing().encode(torch.from_numpy(world.draw(rows))) for rows in (starts, goals))
    measure = ScenesDistance(scenes=scenes[1]).towards(Seeing(), there)
    ratio = measure(here, slice(0, 6)).numpy() / world.steps_to_go(starts, goals)
    straight = world.distance(starts, goals) / world.steps_to_go(starts, goals)
    assert ratio.std() / ratio.mean() < 0.12 < straight.std() / straight.mean()
    assert 1 < stride_of(measure) < 4  # in median moves
    assert measure(there, slice(0, 6)).max() < 0.1


def test_similar_episodes_have_the_goals_walls(scenes):
    walls, found = scenes
    for layout in LAYOUTS:
        place = np.concatenate([[50.0, 20.0], layout])[None]
        picture = torch.from_numpy(TwoRoomsWorld().draw(place))
        chosen = found.similar(Seeing().read(Seeing().encode(picture), "z")[0].numpy())
        assert len(chosen) == 40
        assert (walls[chosen] == layout).all()


def test_what_moves_is_the_place_in_units_of_actions_whatever_stands_still():
    rng = np.random.default_rng(0)
    mix, actions = rng.normal(size=(2, 5)), rng.normal(size=(400, 2))
    moves = what_moves(actions @ mix, actions)
    np.testing.assert_allclose(actions @ mix @ moves, actions, atol=0.02)  # the ridge takes off a thousandth
    still = np.linalg.svd(mix)[2][2:]  # directions that no action moves
    assert np.abs(still @ moves).max() < 1e-6


def test_what_stays_leaves_out_what_varies_within_episodes():
    rng = np.random.default_rng(1)
    episodes = rng.normal(size=(50, 1, 3)) * [1.0, 0.0, 1.0]
    glances = episodes + rng.normal(size=(50, 4, 3)) * [0.0, 5.0, 0.1]
    still = what_stays(glances)
    apart = np.linalg.norm(np.eye(3) @ still, axis=1)
    assert apart[0] > 20 * apart[2] > 20 * 20 * apart[1]


@pytest.mark.parametrize("wrong", [{"scenes": 0}, {"glances": 1}])
def test_a_graph_of_no_scenes_is_refused(wrong):
    with pytest.raises(ValueError, match="scenes must be 1 and glances 2 or above"):
        ScenesConfig(**wrong)
