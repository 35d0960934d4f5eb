"""The compiled step: the values and gradients of the plain one, at every step, and a clear word where it cannot be had."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from jepa_world_model.core.compiled import Compiled, found_once, inductor
from jepa_world_model.core.distributed import World
from jepa_world_model.core.errors import ContractError, UserError
from jepa_world_model.core.graph import Graph, Latent
from jepa_world_model.core.losses import Registry, Schedule
from jepa_world_model.core.rng import Streams
from jepa_world_model.core.step import plainly
from jepa_world_model.core.task import Task
from tests.core.toy import TOY, Model, toy_batch, toy_graph, toy_task


def as_listed(listed, inputs):
    """No compiler: the list of operations as it was written down."""
    return listed


def results(differentiate, model, *calls) -> list[tuple[dict, dict]]:
    """Values and gradients of each call (batch, step, number, parts), gradients taken away in between."""
    found = []
    for call in calls:
        values = differentiate(*call)
        found.append((values, {name: p.grad for name, p in model.named_parameters()}))
        grads = [p.grad.data_ptr() for p in model.parameters() if p.grad is not None]
        assert len(set(grads)) == len(grads)  # what scales one must not scale another
        model.zero_grad(set_to_none=True)
    return found


def laid_out(x: torch.Tensor) -> list[int]:
    """The strides that mean something."""
    return [stride for size, stride in zip(x.shape, x.stride(), strict=True) if size > 1]


def assert_same(one, other, **tolerance):
    for (values, grads), (values_too, grads_too) in zip(one, other, strict=True):
        assert values.keys() == values_too.keys()
        assert grads.keys() == grads_too.keys()
        for name, value in values.items():
            torch.testing.assert_close(value, values_too[name], **tolerance)
        for name, grad in grads.items():
            assert (grad is None) == (grads_too[name] is None), name
            if grad is not None:
                torch.testing.assert_close(grad, grads_too[name], **tolerance)
                assert laid_out(grad) == laid_out(grads_too[name])


EXACT = {"rtol": 0, "atol": 0}


def plain(task):
    return lambda *call: plainly(task, *call)


@pytest.mark.parametrize("keep", [0.0, 0.3, 1.0])
def test_values_and_gradients_are_those_of_the_plain_step_through_every_kind_of_gate(keep):
    calls = [(toy_batch(step), step, 0, 1) for step in range(3)]
    one, other = toy_task(keep), toy_task(keep)
    assert_same(
        results(Compiled(one, compiler=as_listed), one.model, *calls),
        results(plain(other), other.model, *calls), **EXACT,
    )  # fmt: skip


def test_a_shut_gate_leaves_no_gradient_and_a_frozen_parameter_gets_none():
    task = toy_task(0.0, backbone=0.0)
    ((_, grads),) = results(Compiled(task, compiler=as_listed), task.model, (toy_batch(), 0, 0, 1))
    assert grads["body.weight"] is None
    assert grads["head.weight"] is not None
    task = toy_task(1.0)
    task.model.head.bias.requires_grad_(False)
    ((_, grads),) = results(Compiled(task, compiler=as_listed), task.model, (toy_batch(), 0, 0, 1))
    assert grads["head.bias"] is None
    assert grads["head.weight"] is not None


def scheduled():
    graph = toy_graph()
    return Task(
        Model(), graph, TOY, weights={"backbone": 2.0, "reader": 1.0}, gates=graph.gates(), normalize=True,
        schedules={"reader": Schedule("ramp", 0, 4)},
    )  # fmt: skip


def test_weights_that_change_and_running_sizes_go_in_as_numbers():
    calls = [(toy_batch(step), step, 0, 1) for step in range(5)]
    one, other = scheduled(), scheduled()
    compiled = Compiled(one, compiler=as_listed)
    assert_same(
        results(compiled, one.model, *calls), results(plain(other), other.model, *calls), rtol=1e-6, atol=1e-7
    )
    assert len(compiled.programs) == 1
    torch.testing.assert_close(one.sizes.state_dict(), other.sizes.state_dict(), rtol=1e-6, atol=0)


def test_gradients_of_several_batches_add_up_and_another_shape_gets_its_own_program():
    one, other = toy_task(1.0), toy_task(1.0)
    compiled, by_hand = Compiled(one, compiler=as_listed), plain(other)
    for number in range(2):
        compiled(toy_batch(number), 0, number, 2)
        by_hand(toy_batch(number), 0, number, 2)
    for p, q in zip(one.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-6, atol=1e-7)
    compiled(toy_batch()[:2], 0, 0, 2)
    assert len(compiled.programs) == 2


def noisy_task(function, body: nn.Module | None = None) -> Task:
    """A task with one loss, which may draw."""
    registry = Registry()
    registry("noisy", family="toy", moves=("features",))(function)
    model = Model()
    if body is not None:
        model.body = body
    graph = Graph((Latent("features", lambda at: at.model.body(at.batch), trains=("body",)),))
    return Task(
        model, graph, registry, weights={"noisy": 1.0}, gates={}, settings=None, streams=Streams(3)
    )  # fmt: skip


def drawing(view):
    """Each stream is drawn from anew at each step, one of them twice."""
    source, order = view.generator("scale"), view.generator("order")
    scale = torch.randn(4, generator=source) + torch.rand(4, generator=source)
    return (view.features * scale)[torch.randperm(5, generator=order)[:3]].square().mean()


def test_what_is_drawn_is_drawn_anew_at_each_step():
    calls = [(toy_batch(), step, number, 2) for step in range(2) for number in range(2)]
    one, other = noisy_task(drawing), noisy_task(drawing)
    found = results(Compiled(one, compiler=as_listed), one.model, *calls)
    assert_same(found, results(plain(other), other.model, *calls), **EXACT)
    assert len({float(values["loss/noisy"]) for values, _ in found}) == 4


def squared(view):
    """The mean square."""
    return view.features.square().mean()


def test_running_statistics_of_a_module_move_once_a_step():
    tasks = [noisy_task(squared, nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))) for _ in range(2)]
    tasks[1].model.load_state_dict(tasks[0].model.state_dict())
    calls = [(toy_batch(step), step, 0, 1) for step in range(3)]
    compiled = results(Compiled(tasks[0], compiler=as_listed), tasks[0].model, *calls)
    assert_same(compiled, results(plain(tasks[1]), tasks[1].model, *calls), **EXACT)
    torch.testing.assert_close(tasks[0].model.state_dict(), tasks[1].model.state_dict(), **EXACT)


def turning(view):
    """One of two losses, by what the data say."""
    return view.features.mean() if view.features.sum() > 0 else view.features.square().mean()


def counting(view):
    """A number that leaves the device."""
    return view.features.mean() * view.features.abs().max().item()


def picky(view):
    """Only what is positive."""
    return view.features[view.features > 0].square().mean()


def test_a_loss_that_asks_the_host_which_way_to_go_is_refused():
    with pytest.raises(ContractError, match="which way to go"):
        Compiled(noisy_task(turning), compiler=as_listed)(toy_batch(), 0)


@pytest.mark.parametrize("loss", [counting, picky])
def test_a_value_or_a_size_that_depends_on_data_is_the_one_of_each_step(loss):
    calls = [(toy_batch(step), step, 0, 1) for step in range(3)]
    one, other = noisy_task(loss), noisy_task(loss)
    found = results(Compiled(one, compiler=as_listed), one.model, *calls)
    assert_same(found, results(plain(other), other.model, *calls), **EXACT)


def test_a_program_that_moves_something_else_or_by_something_else_is_refused():
    def wrong(change):
        return lambda listed, inputs: lambda *given: change(listed(*given))

    task = toy_task(1.0)
    with pytest.raises(UserError, match="does not move what the plain one moves in body"):
        Compiled(task, compiler=wrong(lambda out: (*out[:3], None, *out[4:])))(toy_batch(), 0)
    with pytest.raises(UserError, match=r"gradient of head .* off the plain one"):
        Compiled(task, compiler=wrong(lambda out: (*out[:-1], 1.05 * out[-1])))(toy_batch(), 0)
    assert all(p.grad is None for p in task.model.parameters())


def test_several_processes_are_refused():
    task = toy_task(1.0)
    task.world = dataclasses.replace(World(), size=2)
    with pytest.raises(UserError, match="several processes"):
        Compiled(task)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler, while it is imported
def test_torch_compiles_it_to_the_same_values_and_says_so():
    said = []
    one, other = toy_task(0.0), toy_task(0.0)
    calls = [(toy_batch(step), step, 0, 1) for step in range(3)]
    found = results(Compiled(one, compiler=inductor, say=said.append), one.model, *calls)
    assert_same(found, results(plain(other), other.model, *calls), rtol=1e-5, atol=1e-6)
    assert len(said) == 1
    assert "of the plain step's" in said[0]


def test_what_is_looked_at_twice_is_found_once():
    def looks(x):
        drawn = torch.rand(3) - torch.rand(3)  # another number each time
        return (x - 1).square().sum() + 3 * (x - 1).abs().sum(), (x - 1.5).sum() + drawn

    listed = make_fx(looks)(torch.ones(3))
    before = [node.target for node in listed.graph.nodes]
    found_once(listed.graph)
    listed.recompile()
    after = [node.target for node in listed.graph.nodes]
    assert before.count(torch.ops.aten.sub.Tensor) == 4  # of 1, of 1 again, of 1.5, of draws
    assert after.count(torch.ops.aten.sub.Tensor) == 3
    assert after.count(torch.ops.aten.rand.default) == 2
    x = torch.randn(3)
    assert torch.equal(listed(x)[0], looks(x)[0])


def test_what_writes_is_never_left_out():
    def writes(x):
        y = x.clone()
        y.add_(1)
        y.add_(1)
        return y

    listed = make_fx(writes)(torch.ones(3))
    found_once(listed.graph)
    listed.recompile()
    assert torch.equal(listed(torch.zeros(3)), torch.full((3,), 2.0))


class TwoBiases(nn.Module):
    """Their gradients are equal."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Parameter(torch.ones(5, 3)), nn.Parameter(torch.ones(5, 3))

    def forward(self, x):
        return (x + self.one) + self.other


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("compiler", [as_listed, inductor])
def test_equal_gradients_are_two_tensors(compiler):
    task = noisy_task(squared, TwoBiases())
    ((_, grads),) = results(Compiled(task, compiler=compiler), task.model, (toy_batch(), 0, 0, 1))
    assert torch.equal(grads["body.one"], grads["body.other"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_without_a_compiler_it_says_so(monkeypatch):
    from torch._inductor.exc import InvalidCxxCompiler

    def fails(*_):
        raise InvalidCxxCompiler

    monkeypatch.setattr("torch._dynamo.lookup_backend", lambda name: fails)
    with pytest.raises(UserError, match=r"cannot be compiled here .*; train without --compile"):
        Compiled(toy_task())(toy_batch(), 0)
