"""Barriers: values bitwise, gradients scaled, and reach measured two ways."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import nn

from jepa_world_model.core.barrier import clip_grad_groups, frozen, gate, grad_norms, reach, stop


class Pair(NamedTuple):
    k: torch.Tensor
    v: torch.Tensor


@dataclass(frozen=True)
class Cache:
    layers: tuple[Pair, ...]
    length: int


def leaf(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).requires_grad_()


@pytest.mark.parametrize("keep", [0, 0.25, 1])
def test_gate_keeps_values_bitwise_and_scales_the_gradient(keep):
    x = leaf(3, 2)
    y = gate(x, keep)
    assert torch.equal(x, y)
    (3 * y).sum().backward() if keep else None
    assert (x.grad is None) if keep == 0 else torch.equal(x.grad, torch.full_like(x, 3 * keep))


def test_a_closed_gate_leaves_no_path_at_all():
    assert gate(leaf(2), 0).grad_fn is None


def test_a_gate_reaches_every_tensor_of_a_nested_cache():
    x = leaf(2)
    tree = {"cache": Cache((Pair(x * 1, x * 2), Pair(x * 3, x * 4)), length=2), "list": [x * 5, None, "text"]}
    cut = stop(tree)
    assert isinstance(cut["cache"].layers[0], Pair)
    assert cut["cache"].length == 2
    tensors = [t for pair in cut["cache"].layers for t in pair] + [cut["list"][0]]
    assert not any(t.requires_grad for t in tensors)
    half = gate(tree, 0.5)
    (half["cache"].layers[1].v.sum() + half["list"][0].sum()).backward()
    assert torch.equal(x.grad, torch.full_like(x, 4.5))


def test_a_barrier_refuses_what_it_cannot_look_into():
    class Hidden:
        tensor = leaf(1)

    with pytest.raises(TypeError, match="Hidden"):
        stop({"a": Hidden()})


@pytest.mark.parametrize("keep", [-0.1, 1.1, math.nan, True, "1"])
def test_a_gate_outside_zero_to_one_is_refused(keep):
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        gate(leaf(1), keep)


def test_a_partial_gate_works_under_batched_gradients():
    x = leaf(3)
    y = torch.stack([gate(x, 0.5).sum(), (gate(x, 0.5) * 2).sum()])
    (g,) = torch.autograd.grad(y, x, torch.eye(2), is_grads_batched=True)
    assert torch.equal(g, torch.tensor([[0.5] * 3, [1.0] * 3]))


def test_frozen_moves_inputs_and_never_parameters_and_leaves_buffers_alone():
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    x = leaf(4, 2)
    live, still = module[0](x), frozen(module)(x)
    (still.square().sum() + live.sum()).backward()
    assert x.grad is not None
    assert torch.equal(module[0].bias.grad, torch.full((2,), 4.0))  # of the live call alone
    assert module[1].weight.grad is None
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def parts() -> tuple[nn.ModuleDict, dict]:
    torch.manual_seed(0)
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2), "c": nn.Linear(2, 2)})
    return model, {name: dict(part.named_parameters()) for name, part in model.items()}


def test_reach_tells_no_path_from_an_exact_zero():
    model, groups = parts()
    nn.init.zeros_(model["b"].weight)
    x = torch.ones(1, 2)
    got = reach({"loss": model["b"](model["a"](x)).sum()}, groups)["loss"]
    assert got.structural == {"a", "b"}
    assert got.moved == {"b"}
    assert got.numeric["a"] == 0.0
    assert got.numeric["c"] is None


def test_reach_names_idle_parameters_and_strangers_and_writes_no_grad():
    model, groups = parts()
    stranger = leaf(2, 5)
    loss = (torch.ones(1, 2) @ model["a"].weight @ stranger).sum()
    got = reach({"loss": loss}, groups)["loss"]
    assert got.untouched == {"a": ("bias",)}
    assert got.strangers == ((2, 5),)
    assert all(p.grad is None for p in model.parameters())


def test_clipping_one_group_leaves_the_others_bitwise():
    model, groups = parts()
    (1e3 * model["a"](torch.ones(1, 2)).sum() + 1e-3 * model["b"](torch.ones(1, 2)).sum()).backward()
    small = model["b"].weight.grad.clone()
    before = grad_norms(groups)
    norms = clip_grad_groups(groups, 1.0)
    after = grad_norms(groups)
    assert set(norms) == {"a", "b"}
    assert torch.equal(norms["a"], before["a"])
    assert after["a"].item() == pytest.approx(1.0, abs=1e-5)
    assert torch.equal(model["b"].weight.grad, small)


def test_clipping_refuses_a_norm_of_zero():
    with pytest.raises(ValueError, match="above 0"):
        clip_grad_groups({}, 0.0)
