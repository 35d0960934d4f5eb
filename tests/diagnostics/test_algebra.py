"""The algebra scorecard: closed forms on a simulator with a pose, and any module with encode and step."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from jepa_world_model.diagnostics.algebra import algebra, card_table
from jepa_world_model.planning.dynamics import Dynamics
from tests.diagnostics.oracle import MOVES, SIDE, SPACE, see, walk, walled


class Odometer(Dynamics):
    """The dot's simulator: z is the place, p an odometry of it; a wrong one on demand."""

    space, latents, goal_latents = SPACE, ("p", "z"), ("p", "z")

    def __init__(self, moves: Tensor = MOVES, walls: bool = True) -> None:
        self.moves, self.walls = moves, walls

    def encode(self, frames: Tensor):
        """Place and pose of a lone frame."""
        place = see(frames.float() / 255)
        return {"z": place, "p": place.clone()}

    def step(self, state, action: Tensor):
        """The true move; the pose by this model's own moves."""
        place = walled(state["z"] + action @ MOVES)
        stopped = (place == state["z"]).all(-1, keepdim=True) if self.walls else False
        add = torch.where(torch.as_tensor(stopped), 0.0, action @ self.moves)
        return {"z": place, "p": state["p"] + add}

    def read(self, state, name: str) -> Tensor:
        """z or p."""
        return state[name]


def test_a_true_odometry_has_a_clean_card():
    card = algebra(Odometer(), walk(windows=64)).latents["p"]
    for metric in ("q", "inverse_ratio", "noop_ratio", "k_error_1", "k_error_8", "loop_residual"):
        assert card[metric] == pytest.approx(0, abs=1e-5), metric
    assert card["commutator"] < 0.1  # a wall lets the order of two moves matter now and then
    assert card["position_r2"] == pytest.approx(1, abs=1e-4)
    assert card["displacement_r2"] == pytest.approx(1, abs=1e-4)
    assert card["dead_reckoning_r2"] < 0.97  # blind to walls
    assert card["rank_accuracy"] == 1
    assert card["rank_minus_clock"] > 0.1


def test_a_clock_is_named_by_its_numbers():
    clock = torch.tensor([[0.0, 0.0], [1.0, 0.1], [1.0, -0.1], [1.0, 0.2], [1.0, -0.2]])
    card = algebra(Odometer(clock, walls=False), walk(windows=64)).latents["p"]
    assert card["q"] < 1e-5  # every action does the same each time: consistency alone sees nothing
    assert card["inverse_ratio"] > 1.9
    assert card["loop_residual"] > 0.5
    assert card["k_error_8"] > 4


def test_errors_that_add_up_grow_by_1_and_a_no_op_that_moves_is_seen():
    long = MOVES * 1.2
    long[0] = torch.tensor([0.3, 0.0])
    card = algebra(Odometer(long, walls=False), walk(windows=64)).latents["p"]
    assert card["noop_ratio"] == pytest.approx(0.3 / 1.2, rel=1e-4)
    assert 0.3 < card["k_growth"] < 1.3


class Foreign(nn.Module):
    """A model from elsewhere: its own names, no pose, no idea of this package."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(SIDE * SIDE, 6)
        self.transition = nn.Linear(6 + 5, 6)

    def embed(self, pictures: Tensor) -> Tensor:
        """pictures [N,1,S,S] in [0, 1]."""
        return self.backbone(pictures.flatten(1))

    def advance(self, latent: Tensor, control: Tensor) -> Tensor:
        """One step."""
        return latent + 0.1 * self.transition(torch.cat([latent, control], -1))


class Wrapped(Dynamics):
    """Ten lines around it."""

    space, latents, goal_latents = SPACE, ("z",), ("z",)

    def __init__(self, model: Foreign) -> None:
        self.model = model

    def encode(self, frames: Tensor) -> Tensor:
        """Its embedding."""
        return self.model.embed(frames.float() / 255)

    def step(self, state: Tensor, action: Tensor) -> Tensor:
        """Its transition."""
        return self.model.advance(state, action)

    def read(self, state: Tensor, name: str) -> Tensor:
        """The only latent there is."""
        return state


def test_a_module_from_elsewhere_gets_a_card_without_a_pose():
    torch.manual_seed(0)
    fit = walk(windows=32, seed=1)
    fit = dataclasses.replace(fit, episode=fit.episode + 100)
    card = algebra(Wrapped(Foreign()), walk(windows=32), fit)
    assert set(card.latents) == {"z"}
    wanted = {"q", "inverse_ratio", "noop_ratio", "commutator", "k_error_1", "k_error_8", "k_growth", "loop_residual",
              "rank_minus_clock", "position_r2", "displacement_r2", "dead_reckoning_r2"}  # fmt: skip
    assert wanted <= set(card.latents["z"])
    assert set(card.by_action["z"]) == set(SPACE.names) - {"stay"}
    assert "| q |  |" in card_table({"foreign": card}, ["z"])


def test_without_the_true_place_what_needs_it_is_absent():
    batch = dataclasses.replace(walk(), state=None)
    card = algebra(Odometer(), batch).latents["p"]
    assert {"q", "commutator", "k_error_1"} <= set(card)
    assert not {"loop_residual", "rank_accuracy", "position_r2", "displacement_r2"} & set(card)


def test_the_table_names_the_bars_of_a_pose():
    card = algebra(Odometer(), walk())
    text = card_table({"one": card, "two": card})
    assert "| inverse_ratio | < 0.4, 0.15 | 0.000 | 0.000 |" in text
