"""A two-sided toy pipeline: a backbone with its own loss, and a reader behind a barrier."""

from __future__ import annotations

import torch
from torch import nn

from jepa_world_model.core.graph import Graph, Latent
from jepa_world_model.core.losses import Registry
from jepa_world_model.core.task import Task

TOY = Registry()


@TOY("backbone", family="toy", moves=("features",))
def backbone(view):
    """Features have a mean square of one."""
    return (view.features.square().mean() - 1).square()


@TOY("reader", family="toy", moves=("reading",))
def reader(view):
    """The reading is the sum of the input."""
    return (view.reading - view.batch.sum(-1, keepdim=True)).square().mean()


def toy_graph() -> Graph:
    return Graph(
        (
            Latent("features", lambda at: at.model.body(at.batch).tanh(), trains=("body",), shape="B D"),
            Latent(
                "reading",
                lambda at: at.model.head(at.features),
                reads=("features",),
                trains=("head",),
                shape="B 1",
            ),
        )
    )


def toy_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.ModuleDict({"body": nn.Linear(3, 4), "head": nn.Linear(4, 1)})


class Model(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        for name, part in toy_model(seed).items():
            self.add_module(name, part)


def toy_task(
    keep: float = 0.0,
    reader_weight: float = 1.0,
    registry: Registry = TOY,
    graph: Graph | None = None,
    **weights,
):
    graph = graph or toy_graph()
    weights = {"backbone": 1.0, "reader": reader_weight} | weights
    return Task(Model(), graph, registry, weights=weights, gates=graph.gates({"features->reading": keep}))


def toy_batch(step: int = 0) -> torch.Tensor:
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
