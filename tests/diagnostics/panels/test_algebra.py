"""The algebra of actions, against closed forms."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from jepa_world_model.data.batch import ActionSpace
from jepa_world_model.diagnostics.panels.algebra import (
    commutator,
    composition,
    increments,
    orders,
    returns,
    straight,
)
from jepa_world_model.diagnostics.panels.panel import MissingError
from tests.diagnostics.oracle import MOVES
from tests.diagnostics.panels.asked import ask, broken, healthy


def test_a_clock_goes_on_where_it_should_come_back():
    clock = broken("p_clock")
    assert returns(clock).values["p_gap"] == pytest.approx(2, abs=1e-5)
    values = increments(clock).values
    assert values["p_inverse"] == pytest.approx(2, abs=1e-5)
    for name in ("p_common", "p_noop", "p_blocked"):
        assert values[name] == pytest.approx(1, abs=1e-5)
    assert values["p_q"] == pytest.approx(0, abs=1e-3)
    assert straight(clock).values["p_straight"] == pytest.approx(1)


def test_a_pose_blind_to_walls_moves_against_them():
    values = increments(broken("p_walls")).values
    assert values["p_blocked"] == pytest.approx(1)
    assert values["p_noop"] == values["p_common"] == pytest.approx(0)


def test_one_action_that_does_all_the_moving_is_no_clock():
    only = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0])[:, None] * MOVES[1]
    assert "p_common" not in {
        name for name, value in increments(ask(p_action_delta_projector=lambda p, h, a: a @ only)).values.items()
        if np.isfinite(value)
    }  # fmt: skip


def test_continuous_actions_are_judged_by_a_linear_map():
    rng = np.random.default_rng(0)
    space = ActionSpace(kind="continuous", dim=2, low=(-1.0, -1.0), high=(1.0, 1.0))
    seen = healthy()
    a = rng.uniform(-1, 1, (*seen.noop.shape, 2)).astype(np.float32)
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    never = np.zeros_like(seen.noop)
    for drift, wanted in (((0.0, 0.0), 0.0), ((30.0, 0.0), 2.0)):
        delta = a @ turn + np.array(drift)
        p = np.pad(delta.cumsum(1), ((0, 0), (1, 0), (0, 0)))
        made = dataclasses.replace(
            seen,
            space=space,
            actions=a,
            noop=never,
            places=None,
            latents={"p": p},
            action_id=seen.action_id * 0 - 1,
        )
        values = increments(made).values
        assert values["p_inverse"] == pytest.approx(wanted, abs=0.03)
        assert values["p_common"] == pytest.approx(wanted / 2, abs=0.03)
        assert values["p_align"] == pytest.approx(1, abs=1e-6)
        assert values["p_q"] == pytest.approx(0, abs=1e-6)


def test_a_circle_is_not_straight():
    seen = healthy()
    angle = np.linspace(0, 2 * np.pi, 33)
    way = np.stack([np.cos(angle), np.sin(angle)], -1)
    said = seen.repeats
    shape = said.latents["p"].shape[:2]
    circling = {"p": np.broadcast_to(way, (*shape, 33, 2)), "h": said.latents["h"]}
    values = straight(dataclasses.replace(seen, repeats=dataclasses.replace(said, latents=circling))).values
    assert values["p_straight"] == pytest.approx(0, abs=1e-6)
    assert values["h_straight"] == pytest.approx(1)


def test_orders_count_only_where_the_world_says_that_they_commute():
    seen = healthy()
    assert orders(seen).values["p_gap"] == pytest.approx(0, abs=1e-6)
    grid = dataclasses.replace(seen.orders, free=np.zeros_like(seen.orders.free))
    with pytest.raises(MissingError, match="commute"):
        orders(dataclasses.replace(seen, orders=grid))
    later = ask(p_action_delta_projector=lambda p, h, a: (a @ MOVES) * (1 + p.norm(dim=-1, keepdim=True)))
    # Right then up ends at (1, 2), up then right at (2, 1): the second step is twice as long.
    assert orders(later).values["p_gap"] == pytest.approx((2 / 5) ** 0.5, abs=0.15)


def test_increments_that_depend_on_the_pose_do_not_add_up():
    odd = ask(p_action_delta_projector=lambda p, h, a: (a @ MOVES) * (1 + p[..., :1].abs()))
    assert composition(odd).values["p_gap"] > 0.3
    assert commutator(odd).values["p_commutator"] > 0.1
    assert commutator(healthy()).values["p_commutator"] == 0


def test_expected_changes_of_h_are_added_up_where_the_head_exists():
    seen = healthy()
    assert "h_gap" not in composition(seen).values
    true = np.random.default_rng(0).normal(size=(30, 4))
    made = dataclasses.replace(seen, h_two_steps=(np.zeros_like(true), true))
    assert composition(made).values["h_gap"] == pytest.approx(1)
