"""The model at work: seeds, caches, answers."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from jepa_world_model.vla_ki.flow import integrate
from jepa_world_model.vla_ki.masks import attention_mask
from jepa_world_model.vla_ki.model import run_prefix, slice_kv, to_float
from jepa_world_model.vla_ki.policy import generate, prefill, sample_actions
from jepa_world_model.vla_ki.proofs import Kit
from jepa_world_model.vla_ki.text import EOS
from tests.vla_ki.tiny import CFG, tiny_batch, tiny_model


@pytest.fixture(scope="module")
def kit() -> Kit:
    return Kit(cfg=CFG, model=tiny_model(), batch=tiny_batch())


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_actions_are_the_same_under_a_seed_and_differ_without(kit):
    first, again, other = (sample_actions(kit.twin, CFG, kit.batch, seeded(s)) for s in (0, 0, 1))
    assert first.shape == (3, CFG.horizon, CFG.action_dim)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_the_vlm_runs_once_however_many_steps(kit):
    calls = {"vlm": 0, "expert": 0}
    hooks = [
        part.decoder.register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
        for name, part in (("vlm", kit.twin.vlm), ("expert", kit.twin.expert))
    ]
    sample_actions(kit.twin, CFG, kit.batch, seeded(0), steps=7)
    for hook in hooks:
        hook.remove()
    assert calls == {"vlm": 1, "expert": 7}


@torch.no_grad()
def test_actions_do_not_depend_on_the_answers_in_the_batch(kit):
    batch = kit.batch
    ids = batch.ids.clone()
    ids[:, CFG.prompt_length :] = 7
    changed = dataclasses.replace(batch, ids=ids, token_mask=torch.ones_like(batch.token_mask))
    changed.token_mask[:, : CFG.prompt_length] = batch.token_mask[:, : CFG.prompt_length]
    first, second = (sample_actions(kit.twin, CFG, b, seeded(0)) for b in (batch, changed))
    assert torch.equal(first, second)


@torch.no_grad()
def test_the_cached_sampler_is_the_sampler_that_computes_everything_anew(kit):
    batch, model = kit.batch, kit.twin

    def anew(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        tokens = model.vision(to_float(batch.images))
        _, kv, valid = run_prefix(
            model.vlm, tokens, batch.image_mask, batch.ids, batch.token_mask, batch.ar_mask
        )
        return model.expert(x, t, slice_kv(kv, CFG.visible), valid[:, : CFG.visible])

    noise = torch.randn(3, 1, CFG.horizon, CFG.action_dim, generator=seeded(0))
    expected = integrate(anew, noise, 5)[:, 0]
    torch.testing.assert_close(
        sample_actions(model, CFG, batch, seeded(0), steps=5), expected, atol=1e-5, rtol=1e-4
    )


@torch.no_grad()
def test_greedy_answers_are_those_of_full_passes(kit):
    model, batch, length = kit.twin, kit.batch, 5
    made = generate(model, CFG, batch, length=length)
    width = CFG.prompt_length
    tokens = model.vision(to_float(batch.images))
    valid = torch.cat([torch.ones(3, CFG.image_tokens, dtype=torch.bool), batch.token_mask[:, :width]], 1)
    x, ar = torch.cat([tokens, model.vlm.embed(batch.ids[:, :width])], 1), torch.zeros_like(valid)
    rows: list[list[int]] = [[], [], []]
    for _ in range(length):
        at = (valid.long().cumsum(1) - 1).clamp(min=0)
        hidden, _ = model.vlm.decoder(x, at, attention_mask(valid, ar))
        token = model.vlm.logits(hidden[:, -1]).argmax(-1)
        for row, t in zip(rows, token.tolist(), strict=True):
            row.append(t)
        x = torch.cat([x, model.vlm.embed(token[:, None])], 1)
        one = torch.ones(3, 1, dtype=torch.bool)
        valid, ar = torch.cat([valid, one], 1), torch.cat([ar, one], 1)
    assert made == [row[: row.index(EOS)] if EOS in row else row for row in rows]


def test_the_cache_holds_only_the_visible_prefix(kit):
    _, kv, visible = prefill(kit.twin, CFG, kit.batch)
    assert visible.shape == (3, CFG.visible)
    assert all(k.shape[2] == v.shape[2] == CFG.visible for k, v in kv)
