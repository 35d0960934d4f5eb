"""Layers that are called many times: the gradient of their weights in one product."""

import gc
import sys
import weakref

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrize import register_parametrization

from jepa_world_model.core.barrier import frozen
from jepa_world_model.models.layers import Mlp, SpectralNorm
from jepa_world_model.models.repeated import Linear, repeated


@pytest.fixture(autouse=True)
def in_fp32_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """fp32 shows to the last digits that gradients are equal; trainings in fp32 call layers one by one."""
    monkeypatch.setattr(sys.modules[repeated.__module__], "_pays", lambda weight: True)


def cell(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(Linear(6, 16), nn.SiLU(), Linear(16, 6, bias=False))


def path(module: nn.Module, x: torch.Tensor, steps: int = 4) -> torch.Tensor:
    """The sum of self-fed states, of ever fewer rows."""
    total = 0.0
    for k in range(steps):
        x = x[k:] + module(x[k:])
        total = total + x.square().mean()
    return total


def gradients(module: nn.Module, x: torch.Tensor, *, shared: bool, bf16: bool = False) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        if shared:
            with repeated(module):
                total = path(module, x)
        else:
            total = path(module, x)
    return [total, *torch.autograd.grad(total, [x, *module.parameters()])]


@pytest.mark.parametrize("shape", [(12, 6), (9, 3, 6)])
def test_a_recurrence_has_the_gradients_that_autograd_finds(shape):
    module, x = cell(), torch.randn(shape)
    for a, b in zip(gradients(module, x, shared=True), gradients(module, x, shared=False), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)  # sums in another order


def test_under_autocast_the_gradient_is_nearer_to_that_in_fp32():
    module, x = cell(), torch.randn(64, 6)
    exact, one_product, one_a_call = (
        gradients(module, x, shared=shared, bf16=bf16)
        for shared, bf16 in ((False, False), (True, True), (False, True))
    )
    assert torch.equal(one_product[0], one_a_call[0])  # the value is the same, bit for bit
    far = lambda found: sum((a - b).norm() / b.norm() for a, b in zip(found[2:], exact[2:], strict=True))
    assert far(one_product) < 1.05 * far(one_a_call) < 0.1
    assert all(g.dtype == torch.float32 for g in one_product)


def test_each_of_several_losses_finds_its_own_gradient():
    """Backward passes on one graph, some of which end at the input, do not mix."""
    module, x = cell(), torch.randn(5, 6, requires_grad=True)
    weight = module[0].weight
    with repeated(module):
        first = module(x)
        second = module(first)
    plain = module(x)
    want = [torch.autograd.grad(y.sum(), weight, retain_graph=True)[0] for y in (plain, module(plain))]
    torch.autograd.grad(second.sum(), x, retain_graph=True)
    for y, expected in zip((first, second, first), (*want, want[0]), strict=True):
        (found,) = torch.autograd.grad(y.sum(), weight, retain_graph=True)
        torch.testing.assert_close(found, expected)


def test_a_call_that_no_loss_uses_adds_nothing():
    module, x = cell(), torch.randn(5, 6)
    with repeated(module):
        used = module(x)
        module(x)
    (found,) = torch.autograd.grad(used.sum(), module[0].weight)
    torch.testing.assert_close(found, torch.autograd.grad(module(x).sum(), module[0].weight)[0])


def test_what_is_frozen_or_needs_no_gradient_stays_plain():
    module, x = Mlp(6, 8, 6), torch.randn(5, 6, requires_grad=True)
    with torch.no_grad(), repeated(module):
        assert module.inner.shared is None
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    with repeated(module):
        assert module.inner.shared is None
    module = Mlp(6, 8, 6)
    frozen(module)(x).sum().backward()
    assert module.inner.weight.grad is None


def test_outside_nothing_is_shared_any_more_whatever_happened_inside():
    module = cell()
    with pytest.raises(RuntimeError, match="shapes"), repeated(module):
        module(torch.randn(2, 5))
    assert module[0].shared is None


def test_a_parametrized_weight_gets_its_gradient():
    module = cell()
    register_parametrization(module[0], "weight", SpectralNorm(module[0].weight))
    module.eval()  # no power iteration between the two
    x = torch.randn(7, 6)
    for a, b in zip(gradients(module, x, shared=True), gradients(module, x, shared=False), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_a_step_leaves_no_memory_behind():
    module, x = cell(), torch.randn(5, 6)
    gc.disable()
    try:
        with repeated(module):
            total = path(module, x)
            kept = weakref.ref(module[0].shared.weight)
        total.backward()
        del total
        assert kept() is None
    finally:
        gc.enable()


def test_only_weights_that_autocast_converts_are_shared(monkeypatch):
    monkeypatch.undo()
    module = cell()
    with repeated(module):
        assert module[0].shared is None
    with torch.autocast("cpu", torch.bfloat16), repeated(module):
        assert module[0].shared is not None
