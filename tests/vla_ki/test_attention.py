"""The products of the CPU say what torch's own attention says."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from jepa_world_model.vla_ki.attention import attend, attention_bias, projections, softmax


@pytest.mark.parametrize(("heads", "shared"), [(4, 1), (4, 2), (3, 3)])
def test_attention_is_torchs_own_with_and_without_a_mask(heads, shared):
    rng = torch.Generator().manual_seed(0)
    q = torch.randn(2, heads, 5, 8, generator=rng)
    k, v = (torch.randn(2, shared, 7, 8, generator=rng) for _ in range(2))
    allowed = torch.rand(2, 5, 7, generator=rng) > 0.4
    allowed[..., 0] = True
    bias = attention_bias(allowed, heads, shared, q.dtype)
    for mask, want in ((None, None), (bias, allowed[:, None])):
        truth = F.scaled_dot_product_attention(q, k, v, attn_mask=want, enable_gqa=True)
        torch.testing.assert_close(attend(q, k, v, mask), truth, atol=1e-6, rtol=1e-5)


def test_the_mask_has_the_type_of_the_products():
    allowed = torch.ones(1, 2, 2, dtype=torch.bool)
    assert attention_bias(allowed, 2, 1, torch.float32).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert attention_bias(allowed, 2, 1, torch.float32).dtype == torch.bfloat16


@pytest.mark.parametrize("bias", [False, True])
def test_projections_by_one_product_are_those_of_each_layer(bias):
    torch.manual_seed(0)
    layers = [nn.Linear(8, width, bias=bias) for width in (16, 4)]
    x = torch.randn(3, 5, 8, requires_grad=True)
    inputs = [x, *(parameter for layer in layers for parameter in layer.parameters())]
    together, apart = projections(x, layers), [layer(x) for layer in layers]
    for a, b in zip(together, apart, strict=True):
        torch.testing.assert_close(a, b)
    found, want = (
        torch.autograd.grad(sum(y.sin().sum() for y in made), inputs) for made in (together, apart)
    )
    for a, b in zip(found, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)  # sums in another order


def test_layers_with_adapters_are_called_one_by_one():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    layers, x = [Doubled(8, 4), nn.Linear(8, 4)], torch.randn(2, 8)
    for a, layer in zip(projections(x, layers), layers, strict=True):
        assert torch.equal(a, layer(x))


@pytest.mark.parametrize("length", [25, 60, 64])
def test_softmax_in_bf16_is_the_rounded_softmax_of_fp32(length):
    torch.manual_seed(0)
    scores = torch.randn(4, 6, length).bfloat16().requires_grad_()
    plain = scores.detach().float().requires_grad_()
    weights = torch.randn(4, 6, length).bfloat16()
    shares, exact = softmax(scores), plain.softmax(-1)
    assert shares.dtype == torch.bfloat16
    torch.testing.assert_close(shares.float(), exact, rtol=2**-8, atol=0)  # half a step of bf16
    (found,) = torch.autograd.grad((shares * weights).sum(), scores)
    (want,) = torch.autograd.grad((exact * weights.float()).sum(), plain)
    torch.testing.assert_close(found.float(), want, rtol=2**-6, atol=2e-3)


def test_softmax_hides_what_the_mask_hides():
    scores = torch.zeros(1, 2, 60, dtype=torch.bfloat16)
    scores[..., 40:] = float("-inf")
    shares = softmax(scores)
    assert shares[..., 40:].eq(0).all()
    torch.testing.assert_close(shares[..., :40], torch.full((1, 2, 40), 1 / 40).bfloat16())
