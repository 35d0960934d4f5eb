"""Heads: actions in the shape in which they are encoded."""

from __future__ import annotations

import pytest
import torch

from jepa_world_model.models.heads import InverseAction
from tests.models.build import small


@pytest.mark.parametrize("kind", ["", "discrete", "multi_binary", "continuous"])
def test_an_undoing_action_looks_like_an_encoded_one(kind):
    torch.manual_seed(0)
    h, a = torch.randn(4, 3, 10) * 9, torch.randn(4, 3, 5)
    undoing = InverseAction(small(action_kind=kind))(h, a)
    assert undoing.shape == a.shape
    if kind in ("", "discrete"):
        torch.testing.assert_close(undoing.sum(-1), torch.ones(4, 3))
    low = -1 if kind == "continuous" else 0
    assert low <= undoing.min() <= undoing.max() <= 1
