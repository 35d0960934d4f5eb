"""The oracle, and oracles that fail in one way each, as the panels see them."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from jepa_world_model.diagnostics.panels.evidence import Evidence
from jepa_world_model.diagnostics.panels.gather import Witness, gather
from jepa_world_model.planning.dynamics import WorldModelDynamics
from tests.diagnostics.oracle import MOVES, SIDE, SPACE, oracle, render, walk, walled

STEPS = MOVES.numpy()


class Square:
    """The walled square that the oracle's walks are in, as planners know a world."""

    def step(self, places: np.ndarray, raw: np.ndarray) -> np.ndarray:
        return np.clip(places + STEPS[raw], 0, SIDE - 1)

    def draw(self, places: np.ndarray) -> np.ndarray:
        return render(torch.from_numpy(np.asarray(places, np.float32))).mul(255).byte().numpy()

    def steps_to_go(self, places: np.ndarray, goals: np.ndarray) -> np.ndarray:
        return np.abs(places - goals).sum(-1)


def noise(z: Tensor) -> Tensor:
    """A fixed random vector for every cell: it tells cells apart, and nothing of where they are."""
    table = torch.randn(SIDE * SIDE, 2, generator=torch.Generator().manual_seed(3))
    return table[(z[..., 1] * SIDE + z[..., 0]).long()]


def see_noise(x: Tensor) -> Tensor:
    """What `noise` says of the bright pixel's place."""
    index = x.flatten(1).argmax(1)
    return noise(torch.stack([index % SIDE, index // SIDE], -1).float())


def where(z: Tensor) -> Tensor:
    """The place that `noise` gave this vector to."""
    place = (
        torch.stack(torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="xy"), -1)
        .flatten(0, 1)
        .float()
    )
    return place[torch.cdist(z, noise(place)).argmin(-1)]


def still(x: Tensor) -> Tensor:
    """The same z for every frame."""
    return torch.ones(len(x), 2)


def twist(p: Tensor, h: Tensor, a: Tensor) -> Tensor:
    """An increment whose direction depends on where it is taken."""
    angle = h.sum(-1) * 1.9
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).unflatten(-1, (2, 2))
    return (turn @ (walled(h + a @ MOVES) - h)[..., None])[..., 0]


DRIFT = torch.tensor([0.6, 0.3])
BROKEN = {  # fault -> what of the oracle is replaced
    "z_collapsed": {"encoder": still},
    "z_blind": {"encoder": see_noise, "h_to_z": noise, "z_to_h": where, "decoder": lambda z: render(where(z))},
    "h_collapsed": {"predictor": lambda z, h, a: torch.ones_like(h), "z_to_h": torch.ones_like},
    "ignores_actions": {"predictor": lambda z, h, a: z},
    "copies": {"h_to_z": lambda h: SIDE - 1 - h},
    "unstable": {"predictor": lambda z, h, a: z + a @ MOVES, "h_to_z": lambda h: (h - 3.5) * 1.1 + 3.5},
    "p_still": {"p_action_delta_projector": lambda p, h, a: 0 * p},
    "p_clock": {"p_action_delta_projector": lambda p, h, a: DRIFT.expand_as(p)},
    "p_erratic": {"p_action_delta_projector": twist},
    "p_walls": {"p_action_delta_projector": lambda p, h, a: a @ MOVES},
}  # fmt: skip


def ask(*, simulator: bool = True, seed: int = 0, batch=None, **other) -> Evidence:
    """The evidence on an oracle with some parts replaced."""
    task = oracle(**other)
    dynamics = WorldModelDynamics(
        task.model, task.settings, SPACE, pose="p_action_delta_projector" in dict(task.model.named_children())
    )
    decode = getattr(task.model, "decoder", None)
    world = Square() if simulator else None
    return gather(Witness(dynamics, world, decode=decode, horizon=6), batch or walk(), seed=seed)


@cache
def healthy() -> Evidence:
    """The evidence on the oracle itself."""
    return ask()


@cache
def broken(fault: str) -> Evidence:
    """The evidence on an oracle with this fault."""
    return ask(**BROKEN[fault])
