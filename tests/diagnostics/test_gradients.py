"""Which loss pulls which module how hard, and which pull against each other."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from jepa_world_model.core.gradient_report import gradient_report
from jepa_world_model.core.graph import Graph, Latent
from jepa_world_model.core.losses import Registry
from jepa_world_model.core.task import Task
from jepa_world_model.diagnostics.gradients import cosine_table, gradient_tables


def pulling_task() -> Task:
    """One module with three weights, and losses that are linear in them."""
    losses = Registry()
    model = nn.Module()
    model.part = nn.Linear(3, 1, bias=False)
    pulls = {"along": (1.0, 0.0, 0.0), "against": (-2.0, 0.0, 0.0), "across": (0.0, 3.0, 0.0)}
    for name, pull in pulls.items():

        def function(view, pull=pull):
            """A claim."""
            return (view.w * torch.tensor(pull)).sum()

        losses(name, family="test", moves=("w",))(function)
    graph = Graph((Latent("w", lambda at: at.model.part.weight, trains=("part",)),))
    return Task(
        model, graph, losses, weights={"along": 1.0, "against": 0.5, "across": 2.0}, gates=graph.gates()
    )


def test_norms_are_weighted_and_cosines_tell_directions():
    task = pulling_task()
    row = gradient_report(task, None, step=7)
    assert row["step"] == 7
    assert row["norms"]["part"] == pytest.approx({"along": 1.0, "against": 1.0, "across": 6.0})
    assert row["cosines"]["part"] == pytest.approx(
        {"along|against": -1.0, "along|across": 0.0, "against|across": 0.0}
    )
    assert task.model.part.weight.grad is None


def test_tables_show_every_pair():
    row = gradient_report(pulling_task(), None)
    text = gradient_tables(row)
    assert "-1.00" in text
    assert "var(--bad)" in text
    assert cosine_table({"a|b": float("nan")}).count("nan") == 1
