"""A tiny world for the tests of the losses: a batch with all kinds of events, a full model, a task."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from jepa_world_model.core.graph import Context, View
from jepa_world_model.core.rng import Streams
from jepa_world_model.core.task import Task
from jepa_world_model.data.batch import ActionSpace, Batch
from jepa_world_model.latents import Rollout, Settings, named_gates, world_graph
from jepa_world_model.losses import LOSSES
from jepa_world_model.model_config import ModelConfig
from jepa_world_model.models.world_model import BUILDERS, WorldModel

SIZE, B, T, A = 16, 3, 6, 4
Options = LOSSES.options_type("Options")
SPACES = {
    "discrete": ActionSpace(kind="discrete", dim=A, noop=0),
    "multi_binary": ActionSpace(kind="multi_binary", dim=A),
    "continuous": ActionSpace(kind="continuous", dim=A, low=(-2.0,) * A, high=(2.0,) * A),
}


def tiny(**changes: Any) -> ModelConfig:
    """A model of a few thousand parameters."""
    sizes = {
        "image_size": SIZE, "encoder_schedule": (6, 8), "decoder_schedule": (8, 8), "keypoints": 2,
        "action_dim": A, "z_dim": 6, "state_dim": 7, "pose_dim": 3, "hidden_dim": 12,
    }  # fmt: skip
    return ModelConfig(**(sizes | changes))


def make_batch(seed: int = 0, kind: str = "discrete", windows: int = B, frames: int = T) -> Batch:
    """Random frames; every window has a no-op in its middle and at its end, and one action twice."""
    draw = torch.Generator().manual_seed(seed)
    space = SPACES[kind]
    ids = torch.randint(1, A, (windows, frames - 1), generator=draw)
    ids[:, 0], ids[:, 1], ids[:, 2], ids[:, -1] = 1, 0, 1, 0
    actions = torch.nn.functional.one_hot(ids, A).float()
    if kind == "multi_binary":
        actions[..., 0] = 0.0  # the bit of the no-op: without it none is set
        ids = (actions.long() * (1 << torch.arange(A))).sum(-1)
    elif kind == "continuous":
        actions = torch.rand(windows, frames - 1, A, generator=draw) * 2 - 1
        actions[ids == 0] = 0.0
        ids = torch.full_like(ids, -1)
    noop = ids == 0 if kind == "discrete" else (actions == 0).all(-1)
    return Batch(
        frames=torch.randint(256, (windows, frames, 3, SIZE, SIZE), generator=draw, dtype=torch.uint8),
        actions=actions, action_id=ids, noop=noop, episode=torch.arange(windows) // 2,
        start=torch.zeros(windows, dtype=torch.int64), state=None, space=space,
    ).validate()  # fmt: skip


def make_model(cfg: ModelConfig, seed: int = 0, groups: Iterable[str] | None = None) -> WorldModel:
    """The model of every group, with jitter on each weight so that no zero passes for a barrier."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = WorldModel(cfg, BUILDERS if groups is None else list(groups))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def make_task(
    weights: dict[str, float] | None = None,
    *,
    closed: dict[str, bool] | None = None,
    gates: dict[str, float] | None = None,
    seed: int = 0,
    model: dict[str, Any] | None = None,
    groups: Iterable[str] | None = None,
    options: dict[str, Any] | None = None,
    **settings: Any,
) -> Task:
    """A task with the given losses (all, by default), named gates `closed` and single `gates`."""
    cfg = tiny(**(model or {}))
    settings = Settings(model=cfg, **({"rollout_horizon": 4} | settings))
    graph = world_graph(settings)
    defaults = {"detach_z_from_h_and_p": True, "detach_decoder": False, "pose_delta_detach_h": True}
    edges = graph.gates(named_gates(**(defaults | (closed or {}))), gates or {})
    chosen = dict.fromkeys(LOSSES, 1.0) if weights is None else weights
    return Task(
        make_model(cfg, seed, groups), graph, LOSSES, weights=chosen, gates=edges, settings=settings,
        options=dataclasses.replace(Options(), **(options or {})), streams=Streams(seed),
    )  # fmt: skip


def judge(
    name: str,
    states: dict[str, Any],
    *,
    batch: Batch | None = None,
    model: Any = None,
    options: Any = None,
    config: dict[str, Any] | None = None,
    seed: int = 0,
) -> Tensor:
    """The value of one loss on latents given by hand: the closed forms of the tests."""
    loss = LOSSES[name]
    settings = Settings(model=tiny(**(config or {})), rollout_horizon=4)
    context = Context(model, batch if batch is not None else make_batch(), settings, Streams(seed).torch)
    if options is None and loss.options is not None:
        options = loss.options()
    return loss.function(View(name, loss.contract, states, context, options))


class Calls(torch.nn.Module):
    """A module that is a given function, for heads and frozen modules of hand-made cases."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Tensor) -> Tensor:
        return self.function(*args)


def heads(**functions: Callable[..., Tensor]) -> torch.nn.Module:
    """A model whose modules are the given functions."""
    model = torch.nn.Module()
    for name, function in functions.items():
        model.add_module(name, Calls(function))
    return model


def as_imagined(z: Tensor, h: Tensor, horizon: int = 4) -> Rollout:
    """The rollout of a model that imagines exactly what comes."""
    return Rollout(*(tuple(x[:, k:] for k in range(horizon + 1)) for x in (z, h)))


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers of a seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
