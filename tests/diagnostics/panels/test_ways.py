"""Actions to try, what undoes them, and ways that close."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from jepa_world_model.data.batch import ActionSpace
from jepa_world_model.diagnostics.panels.ways import closed_ways, follow, name_of, opposites, tries
from jepa_world_model.planning.worlds import GridworldWorld, TwoRoomsWorld
from tests.diagnostics.oracle import walk
from tests.diagnostics.panels.asked import Square

BATCH = walk()
BITS = ActionSpace(kind="multi_binary", dim=3, names=("left", "right", "jump"))


def test_discrete_actions_are_tried_without_the_no_op_and_undone_by_name():
    names, raw = tries(BATCH)
    assert names == ["right", "left", "up", "down"]
    assert [int(one) for one in opposites(BATCH.space, raw)] == [2, 1, 4, 3]
    nameless = dataclasses.replace(BATCH.space, names=())
    assert opposites(nameless, raw) == [None] * 4


def test_bits_are_undone_bit_by_bit():
    raw = [np.array(bits, np.uint8) for bits in ([1, 0, 0], [0, 0, 1], [1, 0, 1])]
    undone = opposites(BITS, raw)
    assert undone[0].tolist() == [0, 1, 0]
    assert undone[1] is None
    assert undone[2] is None
    assert name_of(BITS, 5) == "left+jump"


def test_continuous_actions_are_tried_along_their_axes_in_a_usual_size():
    space = TwoRoomsWorld.space
    actions = torch.tensor([[[0.3, 0.4], [0.0, -0.5], [0.5, 0.0]]])
    blank = torch.zeros(1, 3)
    batch = dataclasses.replace(
        BATCH, space=space, actions=actions, action_id=blank.long() - 1, noop=blank.bool()
    )
    names, raw = tries(batch)
    assert names == ["+dx", "-dx", "+dy", "-dy"]
    np.testing.assert_allclose(raw, [[0.5, 0], [-0.5, 0], [0, 0.5], [0, -0.5]], atol=1e-6)
    np.testing.assert_allclose(opposites(space, raw)[0], [-0.5, 0], atol=1e-6)


def test_a_way_is_free_where_every_step_goes_as_far_as_it_can():
    places = np.array([[0.0, 0.0], [6.0, 0.0], [7.0, 3.0]])
    told, free = follow(Square(), places, np.array([[1, 1], [3, 3]]))  # right twice, up twice
    assert told[0, :, -1].tolist() == [[2, 0], [7, 0], [7, 3]]
    assert free.tolist() == [[True, False, False], [True, True, True]]


def test_closed_ways_close_without_meeting_a_wall():
    world = GridworldWorld(layout="pinwheel")
    batch = dataclasses.replace(BATCH, space=world.space)
    y, x = np.nonzero(~world.walls)
    starts, raw = closed_ways(world, batch, np.stack([x, y], 1).astype(float))
    assert raw.shape[1] == 36  # the outermost ring
    here = starts
    for t in range(raw.shape[1]):
        there = world.step(here, raw[:, t])
        assert (there != here).any(1).all()
        here = there
    np.testing.assert_array_equal(here, starts)


def test_no_closed_way_is_known_without_opposites():
    nameless = dataclasses.replace(BATCH, space=dataclasses.replace(BATCH.space, names=()))
    assert closed_ways(Square(), nameless, np.zeros((1, 2))) is None
