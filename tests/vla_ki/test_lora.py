"""Adapters: the same function at the start, only adapters train, merged layers say the same."""

from __future__ import annotations

import pytest
import torch

from jepa_world_model.core.errors import UserError
from jepa_world_model.vla_ki.lora import add_lora, merge_lora
from jepa_world_model.vla_ki.model import KIConfig, Vla, run_prefix, to_float

CFG = KIConfig(prompt_length=4, answer_length=3, vocab_size=32)


def hidden(model: Vla) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 1, 3, 40, 40), generator=g)
    ids = torch.randint(0, 32, (2, 7), generator=g)
    ones = torch.ones(2, 7, dtype=torch.bool)
    return run_prefix(model.vlm, model.vision(to_float(images)), ones[:, :1], ids, ones, ~ones)[0]


def test_adapters_begin_as_the_same_function_and_alone_are_trained():
    torch.manual_seed(0)
    model = Vla(CFG)
    before, keys = hidden(model), set(model.state_dict())
    names = add_lora(model.vlm, rank=2)
    assert len(names) == 3 * 7  # layers, projections
    assert torch.equal(hidden(model), before)
    trained = [name for name, _ in model.vlm.named_parameters()]
    assert len(trained) == 2 * len(names)
    assert all(name.endswith(("lora_a", "lora_b")) for name in trained)
    assert keys <= set(model.state_dict())  # a checkpoint still holds every frozen weight


def test_a_step_moves_adapters_and_merging_keeps_the_outputs():
    torch.manual_seed(0)
    model = Vla(CFG)
    keys = set(model.state_dict())
    add_lora(model.vlm, rank=2)
    frozen = model.vlm.embed_tokens.weight.clone()
    optimizer = torch.optim.SGD(model.vlm.parameters(), lr=0.1)
    for _ in range(2):
        hidden(model).square().mean().backward()
        optimizer.step()
    after = hidden(model)
    assert torch.equal(model.vlm.embed_tokens.weight, frozen)
    merge_lora(model.vlm)
    torch.testing.assert_close(hidden(model), after, atol=1e-5, rtol=1e-5)
    assert set(model.state_dict()) == keys


def test_nothing_to_adapt_is_an_error():
    with pytest.raises(UserError, match="nothing to adapt"):
        add_lora(Vla(CFG).vlm, targets=("query",))
    with pytest.raises(UserError, match="at least 1"):
        add_lora(Vla(CFG).vlm, rank=0)
