"""The two-stage model: sizes, one interleaved pass as its twin, and what the expert can and cannot see."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from jepa_world_model.core.errors import UserError
from jepa_world_model.vla_ki.gemma import GEMMA, Gemma, rope, rotate
from jepa_world_model.vla_ki.masks import attention_mask, positions, suffix_mask, suffix_positions
from jepa_world_model.vla_ki.model import PRESETS, KIConfig, Vla, run_prefix, sizes, slice_kv, to_float

CFG = KIConfig(prompt_length=6, answer_length=4, vocab_size=64, horizon=5, action_dim=3)


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def make(cfg: KIConfig = CFG, seed: int = 0) -> Vla:
    """A model whose modulations are not zero, so that the expert really reads the prefix."""
    torch.manual_seed(seed)
    model = Vla(cfg)
    with torch.no_grad():
        for p in model.expert.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


def inputs(cfg: KIConfig = CFG, batch: int = 2) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(1)
    length = cfg.prompt_length + cfg.answer_length
    images = torch.randint(0, 256, (batch, cfg.cameras, 3, 40, 40), generator=g)
    image_mask = torch.ones(batch, cfg.cameras, dtype=torch.bool)
    ids = torch.randint(4, cfg.vocab_size, (batch, length), generator=g)
    valid = torch.ones(batch, length, dtype=torch.bool)
    valid[0, :2] = False  # a shorter prompt
    valid[1, -1] = False  # a shorter answer
    ar = (torch.arange(length) >= cfg.prompt_length).expand(batch, -1)
    return images, image_mask, ids, valid, ar


def prefix(model: Vla, images, image_mask, ids, valid, ar):
    return run_prefix(model.vlm, model.vision(to_float(images)), image_mask, ids, valid, ar)


def test_full_presets_have_the_published_parameter_counts():
    with torch.device("meta"):
        model = Vla(PRESETS["pi05_ki"])
        plain = Gemma(GEMMA["gemma_300m"])
    assert count(model.vision.tower) == 412_442_352
    assert count(model.vision) + count(model.vlm) == 2_923_335_408  # PaliGemma 3B at 224 pixels
    assert count(plain) == 311_464_960
    modulated = 37 * (3072 * 1024 + 3072 - 1024)  # 37 norms with a dense layer in the place of a weight
    heads = 2 * (1024 * 1024 + 1024) + (32 * 1024 + 1024) + (1024 * 32 + 32)
    assert count(model.expert) == 311_464_960 + modulated + heads


def test_the_tiny_model_is_small():
    assert 0.3e6 < count(Vla(PRESETS["tiny_ki"])) < 0.6e6


def test_insulation_adds_no_parameter():
    open_model = Vla(dataclasses.replace(CFG, knowledge_insulation=False))
    assert open_model.state_dict().keys() == Vla(CFG).state_dict().keys()


def interleaved(model: Vla, images, image_mask, ids, valid, ar, x_t, t):
    """One pass over prefix and suffix together: each layer's attention sees both, each stream has its own
    weights.
    """
    captured = {}
    hook = model.expert.decoder.register_forward_pre_hook(
        lambda module, args, kwargs: captured.update(x=args[0], cond=kwargs["cond"]), with_kwargs=True
    )
    _, kv, mask = prefix(model, images, image_mask, ids, valid, ar)
    model.expert(x_t, t, slice_kv(kv, CFG.visible), mask[:, : CFG.visible])
    hook.remove()
    vlm, expert, visible = model.vlm.decoder, model.expert.decoder, CFG.visible
    width = vlm.cfg.head_dim
    image_tokens = model.vision(to_float(images))
    streams = [torch.cat([image_tokens, model.vlm.embed(ids)], 1), captured["x"]]
    seen = mask[:, :visible]
    at = [positions(mask), suffix_positions(seen, *x_t.shape[1:3])]
    size, rows = mask.shape[1], streams[1].shape[1]
    allowed = torch.zeros(len(mask), size + rows, size + rows, dtype=torch.bool)
    allowed[:, :size, :size] = attention_mask(
        mask, torch.cat([torch.zeros(len(mask), CFG.image_tokens), ar], 1)
    )
    own = suffix_mask(seen, *x_t.shape[1:3])
    allowed[:, size:, :visible], allowed[:, size:, size:] = own[..., :visible], own[..., visible:]
    allowed |= ~allowed.any(-1, keepdim=True)
    for blocks in zip(vlm.layers, expert.layers, strict=True):
        normed = [
            b.input_layernorm(x, c) for b, x, c in zip(blocks, streams, (None, captured["cond"]), strict=True)
        ]
        q, k, v = [], [], []
        for block, (y, _), pos in zip(blocks, normed, at, strict=True):
            a = block.self_attn
            head = lambda z: z.unflatten(-1, (-1, width)).transpose(1, 2)
            q.append(rotate(head(a.q_proj(y)), rope(pos, width)))
            k.append(rotate(head(a.k_proj(y)), rope(pos, width)))
            v.append(head(a.v_proj(y)))
        q, k, v = (torch.cat(part, 2) for part in (q, k, v))
        scores = (q @ k.transpose(-1, -2) * width**-0.5).masked_fill(~allowed[:, None], -torch.inf)
        y = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        spread = lambda gate: (
            1 if gate is None else gate.expand(-1, -1, rows // gate.shape[1], -1).flatten(1, 2)
        )
        for i, (block, part) in enumerate(zip(blocks, y.split([size, rows], 1), strict=True)):
            gate = normed[i][1]
            x = streams[i] + block.self_attn.o_proj(part) * spread(gate)
            z, gate = block.post_attention_layernorm(x, (None, captured["cond"])[i])
            streams[i] = x + block.mlp(z) * spread(gate)
    out = expert.norm(streams[1], captured["cond"])[0]
    return vlm.norm(streams[0])[0], model.expert.action_out_proj(out).unflatten(1, x_t.shape[1:3])


@torch.no_grad()
def test_two_stages_give_the_numbers_of_one_interleaved_pass():
    model, batch = make(), inputs()
    x_t, t = torch.randn(2, 3, 5, 3), torch.rand(2, 3)
    hidden, kv, mask = prefix(model, *batch)
    velocity = model.expert(x_t, t, slice_kv(kv, CFG.visible), mask[:, : CFG.visible])
    twin_hidden, twin_velocity = interleaved(model, *batch, x_t, t)
    torch.testing.assert_close(velocity, twin_velocity, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(hidden[mask], twin_hidden[mask], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_flow_samples_do_not_see_each_other():
    model, batch = make(), inputs()
    x_t, t = torch.randn(2, 3, 5, 3), torch.rand(2, 3)
    _, kv, mask = prefix(model, *batch)
    kv, seen = slice_kv(kv, CFG.visible), mask[:, : CFG.visible]
    together = model.expert(x_t, t, kv, seen)
    other = x_t.clone()
    other[:, 1] += 1
    changed = model.expert(other, t, kv, seen)
    assert torch.equal(together[:, ::2], changed[:, ::2])
    assert not torch.equal(together[:, 1], changed[:, 1])
    alone = model.expert(x_t[:, 2:], t[:, 2:], kv, seen)
    torch.testing.assert_close(together[:, 2:], alone, atol=1e-5, rtol=1e-4)  # other kernels, other rounding


@torch.no_grad()
def test_a_missing_camera_is_not_seen():
    cfg = dataclasses.replace(CFG, cameras=2)
    model, (images, image_mask, *rest) = make(cfg), inputs(cfg)
    image_mask[:, 1] = False
    changed = images.clone()
    changed[:, 1] = 0
    first, kv, mask = prefix(model, images, image_mask, *rest)
    second, other, _ = prefix(model, changed, image_mask, *rest)
    assert torch.equal(first[mask], second[mask])
    x_t, t, seen = torch.randn(2, 1, 5, 3), torch.rand(2, 1), mask[:, : cfg.visible]
    a, b = (model.expert(x_t, t, slice_kv(c, cfg.visible), seen) for c in (kv, other))
    assert torch.equal(a, b)
    assert to_float(torch.zeros(1)).item() == -1


def test_cross_entropy_by_chunks_is_the_same_with_its_gradient():
    vlm = make().vlm
    hidden, targets = torch.randn(50, 64, requires_grad=True), torch.randint(0, 64, (50,))
    whole = vlm.token_ce(hidden, targets)
    parts = vlm.token_ce(hidden, targets, chunk=16)
    torch.testing.assert_close(whole, parts)
    grads = [torch.autograd.grad(ce.sum(), [hidden, vlm.embed_tokens.weight]) for ce in (whole, parts)]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vlm": "gemma_3b"}, "did you mean 'gemma_2b'"),
        ({"expert": "gemma_300m"}, "must share depth"),
        ({"cameras": 4}, "1 to 3"),
        ({"horizon": 0}, "at least 1"),
    ],
)
def test_impossible_models_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(CFG, **change)


@pytest.mark.parametrize("name", ["pi05", "pi05_ki", "pi05_droid_ki"])
def test_full_size_presets_have_the_published_counts(name):
    found = sizes(PRESETS[name])
    width, mlp, kv = 2048, 16384, 256
    layer = 3 * width * mlp + 2 * width * width + 2 * width * kv + 2 * width
    assert (
        found["vlm"] == 257152 * width + 18 * layer + width
    )  # 2.51 billion: Gemma 2B with PaliGemma's vocabulary
    tower = 27 * (4 * (1152 * 1152 + 1152) + 2 * 1152 * 4304 + 4304 + 1152 + 4 * 1152)
    tower += (
        3 * 14 * 14 * 1152 + 1152 + 256 * 1152 + 2 * 1152
    )  # 412 million: SigLIP So400m/14 without its head
    assert found["vision"] == tower + 1152 * 2048 + 2048
    assert (
        found["vlm"] + found["vision"] == 2_923_466_480 - 64 * width
    )  # paligemma-3b-pt-224, its 64 spare rows cut
    plain = 18 * (3 * 1024 * 4096 + 2 * 1024 * 2048 + 2 * 1024 * 256)
    assert plain == pytest.approx(311e6, rel=0.01)  # "300M"; modulated norms and time add 119 million
    assert found["expert"] == pytest.approx(
        plain + 37 * (1024 * 3072 + 3072) + 2 * 1024 * 1025 + 66e3, rel=1e-3
    )
