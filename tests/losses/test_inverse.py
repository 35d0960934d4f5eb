"""Inverse dynamics."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from jepa_world_model.losses.inverse import action_error, exact_match
from tests.losses.world import SPACES, A, draw, heads, judge, make_batch


def certain(batch) -> torch.Tensor:
    """What a head that knows the action would say."""
    if batch.space.kind == "continuous":
        return batch.actions
    return 40 * (2 * batch.actions - 1)


@pytest.mark.parametrize("kind", SPACES)
def test_the_error_is_zero_for_a_head_that_knows_and_positive_for_one_that_does_not(kind):
    batch = make_batch(kind=kind)
    right, clueless = certain(batch), torch.zeros_like(batch.actions)
    assert action_error(batch, right).item() == pytest.approx(0, abs=1e-6)
    assert exact_match(batch, right) == 1
    assert action_error(batch, -right) > action_error(batch, clueless) > 0.1
    assert exact_match(batch, -right) < 0.5
    if kind == "discrete":
        assert action_error(batch, clueless).item() == pytest.approx(math.log(A))


def test_the_last_steps_are_compared_where_a_warm_up_cut_the_first():
    batch = make_batch()
    assert action_error(batch, certain(batch)[:, 2:]).item() == pytest.approx(0, abs=1e-6)
    assert exact_match(batch, certain(batch)[:, 2:]) == 1


def test_constant_bits_do_not_count_toward_accuracy():
    batch = make_batch(kind="multi_binary")
    assert (batch.actions[..., 0] == 0).all()
    wrong_bit = certain(batch).clone()
    wrong_bit[..., 0] *= -1
    assert exact_match(batch, wrong_bit) == 1
    moving = batch.actions.clone()
    moving[0, 0, 0] = 1.0
    assert exact_match(dataclasses.replace(batch, actions=moving), wrong_bit) < 1


@pytest.mark.parametrize("state", ["z", "h", "p"])
def test_a_head_sees_the_difference_of_two_states(state):
    batch, x = make_batch(), draw(3, 6, A)
    x = torch.nn.functional.pad((40 * (2 * batch.actions - 1)).cumsum(1), (0, 0, 1, 0))

    def head(here, change):
        torch.testing.assert_close(change, x[:, 1:] - x[:, :-1])
        torch.testing.assert_close(here, x[:, :-1])
        return change

    name = f"inverse_dynamics_{state}"
    assert judge(name, {state: x}, batch=batch, model=heads(**{name: head})).item() == pytest.approx(
        0, abs=1e-6
    )
    assert judge(name, {state: x}, batch=batch, model=heads(**{name: lambda s, c: c * 0})) > 1


def test_the_head_of_increments_sees_the_increment_alone():
    batch = make_batch()
    model = heads(inverse_dynamics_dp=lambda delta: delta)
    states = {"delta_p": certain(batch)}
    assert judge("inverse_dynamics_dp", states, batch=batch, model=model).item() == pytest.approx(0, abs=1e-6)
    assert judge("inverse_dynamics_dp", {"delta_p": certain(batch) * 0}, batch=batch, model=model) > 1
