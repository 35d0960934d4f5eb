from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from jepa_world_model.data import ActionSpace, Windows

from .build import DISCRETE, make_episodes

BITS = ActionSpace(kind="multi_binary", dim=3)
STICK = ActionSpace(kind="continuous", dim=2, low=(-2.0, 0.0), high=(2.0, 10.0))


def test_discrete_actions_encode_to_one_hot():
    raw = np.array([[0, 2], [1, 1]])
    encoded = DISCRETE.encode(raw)
    assert encoded.shape == (2, 2, 3)
    assert encoded.dtype == np.float32
    assert (encoded.argmax(-1) == raw).all()
    assert (encoded.sum(-1) == 1).all()
    assert DISCRETE.is_noop(raw).tolist() == [[True, False], [False, False]]


def test_bits_spell_a_number_with_bit_0_least():
    assert BITS.ids(np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0]], np.uint8)).tolist() == [1, 6, 0]
    assert BITS.is_noop(np.array([[1, 0, 0], [0, 0, 0]], np.uint8)).tolist() == [False, True]


def test_continuous_range_maps_to_minus_one_and_one():
    assert STICK.encode(np.array([[-2.0, 0.0], [2.0, 10.0], [0.0, 5.0]])).tolist() == [
        [-1, -1],
        [1, 1],
        [0, 0],
    ]
    assert STICK.ids(np.zeros((4, 2))).tolist() == [-1] * 4
    assert STICK.is_noop(np.array([[0.0, 0.0], [0.0, 0.1]])).tolist() == [True, False]


@pytest.mark.parametrize("space", [DISCRETE, BITS, STICK], ids=lambda s: s.kind)
def test_decode_inverts_encode_and_json_round_trips(space):
    raw = make_episodes(space=space).actions
    np.testing.assert_allclose(
        space.decode(space.encode(raw)), raw, atol=1e-5
    )  # float32 rounding of the range
    assert ActionSpace.from_json(space.to_json()) == space
    assert space.check(raw).dtype == space.raw_dtype


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"kind": "analog", "dim": 2}, "use one of"),
        ({"kind": "discrete", "dim": 0}, "at least 1"),
        ({"kind": "discrete", "dim": 2, "names": ("a",)}, "1 action names given for 2"),
        ({"kind": "discrete", "dim": 2, "noop": 2}, "lies in 0..1"),
        ({"kind": "multi_binary", "dim": 99}, "at most 62"),
        ({"kind": "continuous", "dim": 2, "low": (0.0,), "high": (1.0,)}, "as many low and high"),
        ({"kind": "continuous", "dim": 1, "low": (1.0,), "high": (1.0,)}, "low < high"),
        ({"kind": "discrete", "dim": 2, "low": (0.0,)}, "belong to continuous"),
    ],
)
def test_an_impossible_space_says_what_is_allowed(fields, says):
    with pytest.raises(ValueError, match=says):
        ActionSpace(**fields)


@pytest.mark.parametrize(
    ("space", "raw", "says"),
    [
        (DISCRETE, np.array([0, 3]), "value 3; discrete actions are whole numbers from 0 to 2"),
        (DISCRETE, np.array([0.5]), "whole numbers"),
        (DISCRETE, np.array(["a"]), "are numbers"),
        (BITS, np.array([[0, 2, 0]]), "from 0 to 1"),
        (BITS, np.array([[0, 1]]), r"end in \(3,\)"),
        (STICK, np.array([[0.0, np.nan]]), "not finite"),
    ],
)
def test_actions_outside_the_space_are_refused(space, raw, says):
    with pytest.raises(ValueError, match=says):
        space.check(raw)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([], "table of fields"),
        ({"dim": 1}, "lacks"),
        ({"kind": "discrete", "dim": 1, "colour": 2}, "unknown fields"),
        ({"kind": "discrete", "dim": "x"}, "invalid literal"),
        ({"kind": "discrete", "dim": None}, "wrong type"),
    ],
)
def test_a_damaged_description_of_a_space_is_refused(data, says):
    with pytest.raises(ValueError, match=says):
        ActionSpace.from_json(data)


def batch_of(**changes):
    return replace(Windows(make_episodes(), [0, 1, 2], frames=3).batch([0, 1, 4, 7]), **changes)


def test_a_gathered_batch_is_valid_and_rows_takes_the_first():
    batch = batch_of().validate()
    assert (batch.B, batch.T) == (4, 3)
    first = batch.rows(2).validate()
    assert first.B == 2
    assert torch.equal(first.frames, batch.frames[:2])
    assert torch.equal(batch.to("cpu").actions, batch.actions)


def test_moved_is_false_where_the_state_rests():
    state = torch.tensor([[[0.0, 0.0], [0.0, 1.0], [0.0, 1.0]]]).repeat(4, 1, 1)
    assert batch_of(state=state).moved.tolist() == [[True, False]] * 4
    assert batch_of(state=None).moved is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"frames": torch.zeros(4, 3, 4, 4, dtype=torch.uint8)}, "needs .B,T,C,H,W."),
        ({"frames": torch.zeros(4, 3, 3, 4, 4)}, "torch.uint8"),
        ({"frames": torch.zeros(4, 1, 3, 4, 4, dtype=torch.uint8)}, "at least 1 window of 2 frames"),
        ({"actions": torch.zeros(4, 3, 3)}, "one action between every two frames"),
        ({"actions": torch.zeros(4, 2, 5)}, "5 wide; this action space encodes to 3"),
        ({"noop": torch.zeros(4, 2)}, "noop is torch.float32"),
        ({"start": torch.zeros(3, dtype=torch.int64)}, "start is"),
        ({"state": torch.zeros(4, 2, 2)}, "one state a frame"),
        ({"state": torch.zeros(4, 3, 2, dtype=torch.float64)}, "torch.float32"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused_in_one_sentence(changes, says):
    with pytest.raises(ValueError, match=says):
        batch_of(**changes).validate()
