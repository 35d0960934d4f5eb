"""What data tell planners of routes."""

from __future__ import annotations

import numpy as np
import pytest

from jepa_world_model.core.errors import UserError
from jepa_world_model.data.batch import ActionSpace
from jepa_world_model.data.episodes import Episodes
from jepa_world_model.envs.gridworld_walks import generate_gridworld
from jepa_world_model.planning.graph import GraphConfig
from jepa_world_model.planning.known import Known
from jepa_world_model.planning.worlds import GridworldWorld
from tests.planning.posed import AXES, PosedGridworld


def episodes(count: int = 40) -> Episodes:
    data = generate_gridworld(episodes=count, length=30)
    return Episodes(
        frames=np.asarray(data["frames"]), actions=data["actions"], bounds=data["bounds"],
        space=ActionSpace.from_json(data["action_space"]), states=data["states"],
    ).validate()  # fmt: skip


def test_graph_and_increments_come_from_whole_episodes_spread_over_the_data():
    data = episodes()
    known = Known(PosedGridworld(GridworldWorld()), data, frames=300)
    assert len(known.frames) == 10 * 30
    assert len(known.source) == len(known.action) == 10 * 29
    assert (known.frames[-1] == data.frames[-1]).all()
    assert np.allclose(known.steps.mean, [[0] * 4, -AXES[1], AXES[1], -AXES[0], AXES[0]], atol=1e-5)
    graph = known.graph("p")
    assert graph is known.graph("p")
    assert len(graph.nodes) == len(np.unique(known.frames, axis=0))
    assert len(known.graph("p", GraphConfig(merge=1.5)).nodes) < len(graph.nodes)


def test_continuous_actions_are_refused():
    data = episodes(2)
    space = ActionSpace(kind="continuous", dim=2, low=(-1, -1), high=(1, 1))
    moved = Episodes(
        frames=data.frames, actions=np.zeros((60, 2), np.float32), bounds=data.bounds, space=space
    )
    with pytest.raises(UserError, match="routes are made of discrete actions"):
        Known(PosedGridworld(GridworldWorld()), moved)
