from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from jepa_world_model.envs import SHORT_NAMES, Gridworld
from jepa_world_model.envs.gridworld import AGENT, draw_all
from jepa_world_model.envs.layouts import free_cells, make_layout, shortest_path


@pytest.mark.parametrize("env_id", SHORT_NAMES.values())
def test_registered_environments_pass_the_checker_without_a_warning(env_id):
    check_env(gymnasium.make(env_id, render_mode="rgb_array").unwrapped)


@pytest.mark.parametrize("layout", ["pinwheel", "random", "open"])
@pytest.mark.parametrize(("cells", "size"), [(10, 64), (8, 64), (10, 32), (12, 96)])
def test_the_picture_alone_tells_the_cell(layout, cells, size):
    walls = make_layout(layout, cells=cells)
    pictures = draw_all(walls, size).astype(np.int64)
    free = free_cells(walls)
    index = free[:, 1] * cells + free[:, 0]
    red = np.abs(pictures[index] - np.array(AGENT)[:, None, None]).sum(1) < 60  # [F,H,W]
    assert (red.sum((1, 2)) >= 4).all()
    cell, margin = (size - 2) // cells, (size - cells * ((size - 2) // cells)) // 2
    grid = np.arange(size)
    x = (red * grid).sum((1, 2)) / red.sum((1, 2))
    y = (red * grid[:, None]).sum((1, 2)) / red.sum((1, 2))
    centre = (np.stack([x, y], 1) - margin - (cell - 1) / 2) / cell
    np.testing.assert_allclose(centre, free, atol=0.1)  # a tenth of a cell: soft edges


def test_the_floor_has_no_symmetry_left():
    empty = draw_all(make_layout("pinwheel"), 64)[0]
    for turn in range(1, 4):
        assert (np.rot90(empty, turn, (1, 2)) != empty).mean() > 0.5
    assert (empty[:, :, ::-1] != empty).mean() > 0.5


def test_steps_move_the_agent_and_tell_its_true_state():
    env = Gridworld()
    frame, info = env.reset(seed=0, options={"start": (0, 0)})
    assert info["state"].tolist() == [0, 0]
    below, _, terminated, truncated, info = env.step(2)
    assert (info["state"].tolist(), info["blocked"], terminated, truncated) == ([0, 1], False, False, False)
    assert (below != frame).any()
    same, *_, info = env.step(3)
    assert info["blocked"]
    assert (same == below).all()


def test_an_oracle_path_reaches_the_goal_with_reward_one():
    env = Gridworld(layout="random", layout_seed=3)
    path = shortest_path(env.walls, (0, 0), (9, 9))
    env.reset(options={"start": (0, 0), "goal": (9, 9)})
    rewards = [env.step(action)[1:3] for action in path]
    assert rewards == [(0.0, False)] * (len(path) - 1) + [(1.0, True)]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"start": (4, 1)}, "not a free cell"),
        ({"goal": (10, 0)}, "not a free cell"),
        ({"begin": 1}, "unknown"),
    ],
)
def test_reset_options_that_cannot_be_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        Gridworld().reset(options=options)


def test_a_picture_too_small_for_its_cells_is_refused():
    with pytest.raises(ValueError, match="use at least 30"):
        Gridworld(size=20)
    with pytest.raises(ValueError, match="rgb_array"):
        Gridworld(render_mode="human")
