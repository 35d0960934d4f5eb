"""A walk of a dot in a walled square, and a model that knows it exactly: every metric has a closed form."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jepa_world_model.core.task import Task
from jepa_world_model.data.batch import ActionSpace, Batch
from jepa_world_model.latents import Settings, world_graph
from jepa_world_model.losses import LOSSES
from jepa_world_model.model_config import ModelConfig

SIDE = 8
MOVES = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
SPACE = ActionSpace(kind="discrete", dim=5, names=("stay", "right", "left", "up", "down"), noop=0)


def walled(place: Tensor) -> Tensor:
    """Positions held inside the square."""
    return place.clamp(0, SIDE - 1)


def render(place: Tensor) -> Tensor:
    """A bright pixel at a position. Shapes: [...,2] -> [...,1,SIDE,SIDE] in [0, 1]."""
    index = place.round().long().clamp(0, SIDE - 1)
    flat = nn.functional.one_hot(index[..., 1] * SIDE + index[..., 0], SIDE * SIDE)
    return flat.float().unflatten(-1, (1, SIDE, SIDE))


def walk(windows: int = 32, frames: int = 12, seed: int = 0) -> Batch:
    """Random walks, two windows an episode."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, (windows, frames - 1), generator=generator)
    places = [torch.randint(SIDE, (windows, 2), generator=generator).float()]
    for t in range(frames - 1):
        places.append(walled(places[-1] + MOVES[ids[:, t]]))
    state = torch.stack(places, 1)
    return Batch(
        frames=render(state).mul(255).byte(), actions=nn.functional.one_hot(ids, 5).float(), action_id=ids,
        noop=ids == 0, episode=torch.arange(windows) // 2, start=torch.zeros(windows, dtype=torch.int64),
        state=state, space=SPACE,
    ).validate()  # fmt: skip


class Known(nn.Module):
    """A function as a parameter group; its one parameter does nothing."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function, self.idle = function, nn.Parameter(torch.zeros(()))

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs) + 0 * self.idle


def see(x: Tensor) -> Tensor:
    """The position of the bright pixel. Shapes: [N,1,SIDE,SIDE] -> [N,2]."""
    index = x.flatten(1).argmax(1)
    return torch.stack([index % SIDE, index // SIDE], -1).float()


ORACLE = {
    "encoder": see,
    "decoder": render,
    "predictor": lambda z, h, a: walled(h + a @ MOVES),
    "h_to_z": lambda h: h,
    "z_to_h": lambda z: z,
    "p_action_delta_projector": lambda p, h, a: walled(h + a @ MOVES) - h,
    "inverse_dynamics_h": lambda h, delta: -(delta[..., None, :] - MOVES).square().sum(-1),
}


def oracle(without: tuple[str, ...] = (), horizon: int = 8, weights: dict | None = None, **other) -> Task:
    """A task on the oracle, with some parameter groups left out or replaced by other functions."""
    model = nn.Module()
    for name, function in (ORACLE | other).items():
        if name not in without:
            model.add_module(name, Known(function))
    config = ModelConfig(in_channels=1, z_dim=2, state_dim=2, pose_dim=2, action_dim=5)
    settings = Settings(model=config, rollout_horizon=horizon)
    graph = world_graph(settings)
    return Task(
        model, graph, LOSSES, weights=weights or {"jepa": 1.0}, gates=graph.gates(), settings=settings
    )
