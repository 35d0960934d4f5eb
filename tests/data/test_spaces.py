from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces

from jepa_world_model.data.spaces import from_zero, gym_space, is_image, read_space
from tests.data.build import SPACES


@pytest.mark.parametrize("kind", SPACES)
def test_a_space_survives_the_way_through_gymnasium_but_for_what_that_cannot_tell(kind):
    wanted = SPACES[kind]
    found = read_space(gym_space(wanted), wanted.names)
    assert (found.kind, found.dim, found.names, found.low, found.high) == (
        wanted.kind, wanted.dim, wanted.names, wanted.low, wanted.high,
    )  # fmt: skip


def test_a_quiet_action_is_known_by_its_name():
    assert read_space(spaces.Discrete(3), ("UP", "NOOP", "DOWN")).noop == 1
    assert read_space(spaces.Discrete(3), ("UP", "DOWN")).noop is None  # names that do not fit are dropped


def test_discrete_actions_count_from_zero():
    assert from_zero(np.array([-1, 0, 1]), spaces.Discrete(3, start=-1)).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("shape", "dtype", "wanted"),
    [
        ((64, 64, 3), np.uint8, True),
        ((64, 64), np.uint8, True),
        ((64, 64, 3), np.float32, False),
        ((7, 7, 3), np.uint8, False),  # MiniGrid's symbolic view
        ((128,), np.uint8, False),  # Atari's memory
    ],
)
def test_images_are_told_from_other_numbers(shape, dtype, wanted):
    high = 255 if dtype == np.uint8 else 1
    assert is_image(spaces.Box(0, high, shape, dtype)) == wanted
