"""Two processes as one: exchanges with exact adjoints, global gradients, one decision for all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from jepa_world_model.core.distributed import ALONE, World
from jepa_world_model.core.losses import Registry
from jepa_world_model.core.optim import OptimConfig, build_optimizer
from jepa_world_model.core.step import train_step
from jepa_world_model.core.task import Task
from tests.core.toy import Model, toy_graph
from tests.distributed.processes import needs_gloo, of_two

pytestmark = needs_gloo
SPREAD = Registry()


@SPREAD("backbone", family="toy", moves=("features",))
def backbone(view):
    """Features have a mean square of one, over the whole batch."""
    return (view.world.average(view.features.square().mean()) - 1).square()


@SPREAD("reader", family="toy", moves=("reading",))
def reader(view):
    """The reading is the sum of the input, where that is above zero."""
    wanted = view.batch.sum(-1, keepdim=True)
    error = (view.reading - wanted).square() * (wanted > 0)
    return view.world.total(error.sum()) / view.world.total((wanted > 0).sum())


def batch_of(step: int) -> torch.Tensor:
    """Rows of very different size, so that clipping by a process's own norm would not do."""
    rows = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
    return rows * torch.tensor([0.1, 0.1, 0.2, 0.2, 1.0, 2.0, 3.0, 4.0])[:, None]


def task_of(world: World, **options: Any) -> Task:
    graph = toy_graph()
    gates = graph.gates({"features->reading": 0.5})
    weights = {"backbone": 1.0, "reader": 3.0}
    return Task(Model(), graph, SPREAD, weights=weights, gates=gates, world=world, **options)


def trained(world: World, *, broken: int = -1, **options: Any) -> dict[str, torch.Tensor]:
    """Weights and the last report after five steps on one global batch each; `broken`: a step with a NaN in a row."""
    task = task_of(world, **options)
    world.align(task.model)
    optimizer = build_optimizer(task.groups, OptimConfig(lr=0.01))
    for step in range(5):
        batch = batch_of(step)
        if step == broken:
            batch[-1, 0] = torch.nan  # a row of the last process
        report = train_step(task, optimizer, world.mine(batch), step, max_grad_norm=0.05)
        if step == broken:
            break
    return {f"weight/{name}": p.detach() for name, p in task.model.named_parameters()} | report


def exchanges(world: World) -> dict[str, torch.Tensor]:
    """y = sum over processes of c[rank] * f(exchanged x): its gradient says whether the adjoint is exact."""
    whole = torch.arange(12.0).view(4, 3)
    x, c = world.mine(whole).clone().requires_grad_(), 1.0 + world.rank
    found = {"rows": world.gather(x).detach(), "flags": world.gather(world.mine(whole[:, 0] > 4))}
    for name, exchanged in {"gather": world.gather(x.sin()), "total": world.total(x.sin())}.items():
        (found[name],) = torch.autograd.grad((c * exchanged.square()).sum(), x)
    part, weight = world.split(torch.arange(10.0).view(2, 5))
    found |= {"part": part, "weight": torch.tensor(weight)}
    found["few"] = world.split(torch.zeros(2, 1))[0]
    found["said"] = world.told(f"from {world.rank}, ä")
    found["any"] = [world.any(world.rank == 1), world.any(False)]
    world.barrier()
    return found


def lonely_gradient(world: World) -> dict[str, Any]:
    """Three parameters: moved on both processes, on one, on none; one of them laid out channels last."""
    shape = (2, 3, 4, 4)
    named = {name: nn.Parameter(torch.ones(shape)) for name in ("both", "one", "none")}
    named["both"].data = named["both"].data.to(memory_format=torch.channels_last)
    grad = torch.arange(96.0).view(shape) * (1 + world.rank)
    named["both"].grad = grad.contiguous()
    if world.rank == 0:
        named["one"].grad = grad
    world.average_gradients({"a": {k: named[k] for k in ("both", "one")}, "b": {"none": named["none"]}})
    found = {name: p.grad for name, p in named.items()}
    found["strides"] = named["both"].grad.stride() == named["both"].stride()
    if world.rank == 1:
        named["none"].grad = grad
        try:
            world.average_gradients({"a": named})
        except RuntimeError as problem:
            found["late"] = str(problem)
    return found


def everything(world: World) -> dict[str, Any]:
    return {
        "exchanges": exchanges(world),
        "lonely": lonely_gradient(world),
        "steps": trained(World(world.rank, world.size, world.local_rank)),
        "sized": trained(World(world.rank, world.size, world.local_rank), normalize=True),
        "broken": trained(World(world.rank, world.size, world.local_rank), broken=2),
    }


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict[str, Any]]:
    return of_two(tmp_path_factory, "core")


def test_alone_nothing_is_exchanged_or_copied():
    x = torch.randn(3, 2)
    assert all(f(x) is x for f in (ALONE.gather, ALONE.total, ALONE.average, ALONE.mine))
    assert ALONE.split(x) == (x, 1.0)
    assert ALONE.told("a") == "a"
    assert (ALONE.any(True), ALONE.any(False)) == (True, False)
    with ALONE.leading():
        ALONE.barrier()
    assert not dist.is_initialized()


def test_rows_come_in_the_order_of_the_batch_and_gradients_are_exact(ranks):
    whole = torch.arange(12.0).view(4, 3)
    for rank, found in enumerate(r["exchanges"] for r in ranks):
        assert torch.equal(found["rows"], whole)
        assert found["flags"].tolist() == [False, False, True, True]
        x = whole[2 * rank : 2 * rank + 2]
        assert torch.allclose(found["gather"], 3 * 2 * x.sin() * x.cos())  # c = 1 + 2 over both processes
        total = whole[:2].sin() + whole[2:].sin()
        assert torch.allclose(found["total"], 3 * 2 * total * x.cos())


def test_columns_are_shared_out_and_weighted_so_that_means_of_means_are_the_mean(ranks):
    parts = [r["exchanges"] for r in ranks]
    assert torch.equal(torch.cat([p["part"] for p in parts], -1), torch.arange(10.0).view(2, 5))
    mean = sum(float(p["weight"]) * p["part"].mean() for p in parts) / 2
    assert mean == pytest.approx(4.5)
    assert all(p["few"].shape == (2, 1) for p in parts)


def test_all_processes_hear_and_decide_the_same(ranks):
    for found in (r["exchanges"] for r in ranks):
        assert found["said"] == "from 0, ä"
        assert found["any"] == [True, False]


def test_a_gradient_of_one_process_alone_is_everybodys_and_what_nobody_moves_is_left_out(ranks):
    base = torch.arange(96.0).view(2, 3, 4, 4)
    for found in (r["lonely"] for r in ranks):
        assert torch.equal(found["both"], base * 1.5)
        assert torch.equal(found["one"], base / 2)
        assert found["none"] is None
        assert found["strides"]
    assert "none got its first gradient after the first step, on process 1" in ranks[1]["lonely"]["late"]


@pytest.mark.parametrize("kind", ["steps", "sized"])
def test_steps_of_two_processes_are_those_of_one_with_clipping_by_the_global_norm_of_each_group(ranks, kind):
    one = trained(ALONE, normalize=kind == "sized")
    for found in (r[kind] for r in ranks):
        assert found.keys() == one.keys()
        for name, value in one.items():
            assert torch.allclose(found[name].float(), value.float(), rtol=1e-5, atol=1e-6), name
    for name in one:
        assert torch.equal(ranks[0][kind][name], ranks[1][kind][name]), f"{name} differs between processes"
    assert float(one["grad_norm/body"]) > 0.05  # clipping had something to do


def test_a_value_that_is_not_finite_on_one_process_stops_the_update_on_all(ranks):
    for found in (r["broken"] for r in ranks):
        assert not found["finite"]
        assert torch.isnan(found["loss/total"])
        assert all(torch.isfinite(value).all() for name, value in found.items() if name.startswith("weight/"))
    assert torch.equal(ranks[0]["broken"]["weight/body.weight"], ranks[1]["broken"]["weight/body.weight"])
