"""The decoder: rotary positions, modulation, caches, padding, checkpointing."""

from __future__ import annotations

import pytest
import torch

from jepa_world_model.core.errors import UserError
from jepa_world_model.vla_ki.gemma import (
    AdaRMSNorm,
    Gemma,
    GemmaConfig,
    RMSNorm,
    init_linear,
    normalise,
    rope,
    rotate,
)
from jepa_world_model.vla_ki.masks import attention_mask

CFG = GemmaConfig(width=16, depth=3, mlp=32, heads=4, kv_heads=2, head_dim=8)


def stack(cond_dim: int = 0, **options) -> Gemma:
    torch.manual_seed(0)
    return Gemma(CFG, cond_dim=cond_dim, **options).apply(init_linear)


def causal(batch: int, length: int) -> torch.Tensor:
    ones = torch.ones(batch, length, dtype=torch.bool)
    return attention_mask(ones, ones)


def test_rms_norm_of_a_known_vector():
    out, gate = RMSNorm(4)(torch.tensor([[3.0, 3.0, -3.0, 3.0]]))
    torch.testing.assert_close(out, torch.tensor([[1.0, 1.0, -1.0, 1.0]]))
    assert gate is None


def test_modulation_is_scale_shift_gate_in_this_order():
    norm = AdaRMSNorm(2, 1)
    with torch.no_grad():
        norm.dense.bias.copy_(torch.tensor([1.0, 1.0, 5.0, 5.0, 7.0, 7.0]))
    out, gate = norm(torch.tensor([[[2.0, -2.0]]]), torch.zeros(1, 1, 1))
    torch.testing.assert_close(out, torch.tensor([[[7.0, 3.0]]]))  # 1 * (1 + 1) + 5, -1 * 2 + 5
    torch.testing.assert_close(gate, torch.tensor([[[[7.0, 7.0]]]]))


def test_modulated_blocks_are_closed_at_their_start():
    decoder = stack(cond_dim=6)
    x = torch.randn(2, 5, 16)
    out, _ = decoder(x, torch.arange(5).expand(2, 5), causal(2, 5), cond=torch.randn(2, 1, 6))
    torch.testing.assert_close(out, RMSNorm(16)(x)[0])


def test_rotation_keeps_lengths_and_depends_on_distance_alone():
    x, y = torch.randn(2, 1, 1, 1, 8)
    turn = lambda v, at: rotate(v, rope(torch.tensor([[at]]), 8))
    assert turn(x, 7).norm() == pytest.approx(float(x.norm()), abs=1e-5)
    near, far = (turn(x, 3) * turn(y, 5)).sum(), (turn(x, 103) * turn(y, 105)).sum()
    assert float(near) == pytest.approx(float(far), abs=1e-4)
    assert torch.equal(turn(x, 0), x)


def test_a_cache_gives_the_numbers_of_one_pass():
    decoder, x = stack(), torch.randn(2, 6, 16)
    whole, kv = decoder(x, torch.arange(6).expand(2, 6), causal(2, 6))
    _, past = decoder(x[:, :4], torch.arange(4).expand(2, 4), causal(2, 4))
    rest, _ = decoder(x[:, 4:], torch.arange(4, 6).expand(2, 2), causal(2, 6)[:, 4:], past=past)
    torch.testing.assert_close(rest, whole[:, 4:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(past[2][0], kv[2][0][:, :, :4], atol=1e-5, rtol=1e-5)
    assert kv[0][0].shape == (2, 2, 6, 8)


def test_padded_rows_are_finite_and_change_nothing():
    decoder = stack()
    valid = torch.tensor([[True, True, False, False]])
    mask = attention_mask(valid, torch.zeros(1, 4))
    x = torch.randn(1, 4, 16)
    other = torch.cat([x[:, :2], torch.randn(1, 2, 16)], 1)
    at = torch.tensor([[0, 1, 1, 1]])
    first, second = decoder(x, at, mask)[0], decoder(other, at, mask)[0]
    assert torch.equal(first[:, :2], second[:, :2])
    assert torch.isfinite(first).all()


def test_checkpointing_is_bitwise_the_same():
    x, at = torch.randn(2, 5, 16), torch.arange(5).expand(2, 5)
    grads = []
    for checkpointing in (False, True):
        decoder = stack(checkpointing=checkpointing)
        out, kv = decoder(x, at, causal(2, 5))
        (out.sum() + kv[0][0].square().sum()).backward()
        grads.append([p.grad for p in decoder.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_impossible_sizes_are_refused():
    with pytest.raises(UserError, match="multiple of kv_heads"):
        GemmaConfig(heads=4, kv_heads=3)
    with pytest.raises(UserError, match="at least 1"):
        GemmaConfig(depth=0)


def test_the_short_backward_of_the_norm_is_the_derivative():
    x = torch.randn(2, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    given, plain = (x.float().requires_grad_() for _ in range(2))
    weight = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(1))
    (normalise(given) * weight).sum().backward()
    (plain * torch.rsqrt(plain.square().mean(-1, keepdim=True) + 1e-6) * weight).sum().backward()
    torch.testing.assert_close(given.grad, plain.grad)
