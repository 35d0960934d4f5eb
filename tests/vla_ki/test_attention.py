"""The products of the CPU say what torch's own attention says."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from jepa_world_model.vla_ki.attention import attend, attention_bias


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
