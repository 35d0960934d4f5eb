from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from jepa_world_model.core.errors import UserError
from jepa_world_model.data import ActionSpace, describe, split_episodes

from .build import make_episodes

STICK = ActionSpace(kind="continuous", dim=2, low=(-1.0, -1.0), high=(1.0, 1.0))


def test_split_is_a_partition_that_depends_on_the_seed_alone():
    episodes = make_episodes([4] * 40)
    train, val = split_episodes(episodes, 0.1, seed=3)
    assert len(val) == 4
    assert sorted([*train, *val]) == list(range(40))
    again = split_episodes(episodes, 0.1, seed=3)
    assert (again[0] == train).all()
    assert (split_episodes(episodes, 0.1, seed=4)[1] != val).any()


def test_split_keeps_at_least_one_episode_on_each_side():
    assert [len(part) for part in split_episodes(make_episodes([4, 4]), 0.01, seed=0)] == [1, 1]
    assert [len(part) for part in split_episodes(make_episodes([4, 4]), 0.99, seed=0)] == [1, 1]
    assert [len(part) for part in split_episodes(make_episodes([4]), 0.0, seed=0)] == [1, 0]


@pytest.mark.parametrize(
    ("lengths", "fraction", "says"), [([4], 0.1, "cannot be split"), ([4, 4], 1.0, "0, 1")]
)
def test_an_impossible_split_is_refused(lengths, fraction, says):
    with pytest.raises(UserError, match=says):
        split_episodes(make_episodes(lengths), fraction, seed=0)


def test_transitions_leave_out_the_last_row_of_every_episode():
    assert make_episodes([3, 1, 2]).transitions().tolist() == [0, 1, 4]
    assert make_episodes([3, 1, 2]).subset([2]).transitions().tolist() == [4]


@pytest.mark.parametrize(
    "space", [ActionSpace(kind="discrete", dim=3, noop=1), ActionSpace(kind="multi_binary", dim=4), STICK]
)
def test_describe_tells_episodes_lengths_image_actions_and_states(space):
    text = describe(make_episodes([5, 3, 8], space=space))
    assert "3 episodes, 16 frames" in text
    assert "min 3, median 5, max 8" in text
    assert "3 x 4 x 4" in text
    assert f"{space.kind} ({space.dim}" in text
    assert "row 0 to 15" in text
    assert "not told" in describe(make_episodes(space=space, states=False))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"actions": np.zeros(15, np.int64)}, "15 action rows for 16 frames"),
        ({"actions": np.zeros((16, 2), np.int64)}, "an action has shape"),
        ({"bounds": np.zeros((0, 2), np.int64)}, "no episodes"),
        ({"bounds": np.array([[0, 17]])}, "outside the 16"),
        ({"bounds": np.array([[0, 9], [8, 3]])}, "overlap"),
        ({"states": np.zeros((3, 2), np.float32)}, "states have shape"),
        ({"frames": np.zeros((16, 4, 4), np.uint8)}, "uint8"),
    ],
)
def test_episodes_that_do_not_fit_together_are_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        replace(make_episodes(), **changes).validate()
