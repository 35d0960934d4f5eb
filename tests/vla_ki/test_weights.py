"""Weight layouts: synthetic files made by renaming, everything that does not fit, parity with
`transformers`.
"""

from __future__ import annotations

import json
import re
import warnings

import pytest
import torch
from safetensors.torch import save_file

from jepa_world_model.core.errors import UserError
from jepa_world_model.vla_ki.gemma import GEMMA, GemmaConfig
from jepa_world_model.vla_ki.model import KIConfig, Vla, run_prefix
from jepa_world_model.vla_ki.siglip import SIGLIP, SiglipConfig
from jepa_world_model.vla_ki.weights import canonical, load_weights, read_quantiles, save_weights

SMALL = GemmaConfig(width=32, depth=2, mlp=64, heads=4, kv_heads=1, head_dim=8)
EYE = SiglipConfig(width=24, depth=2, mlp=48, heads=4, patch=8, image_size=16)
LIBRARIES = []
LAYOUTS = {
    "paligemma_old": (
        "language_model.model.",
        "vision_tower.vision_model.",
        "multi_modal_projector.linear.",
        "",
    ),
    "paligemma_new": (
        "model.language_model.",
        "model.vision_tower.",
        "model.multi_modal_projector.linear.",
        "",
    ),
    "openpi": (
        "paligemma_with_expert.paligemma.model.language_model.",
        "paligemma_with_expert.paligemma.model.vision_tower.vision_model.",
        "paligemma_with_expert.paligemma.model.multi_modal_projector.linear.",
        "paligemma_with_expert.gemma_expert.model.",
    ),
    "lerobot": (
        "model.paligemma_with_expert.paligemma.model.language_model.",
        "model.paligemma_with_expert.paligemma.model.vision_tower.vision_model.",
        "model.paligemma_with_expert.paligemma.model.multi_modal_projector.linear.",
        "model.paligemma_with_expert.gemma_expert.model.",
    ),
}


@pytest.fixture(autouse=True)
def _sizes(monkeypatch):
    monkeypatch.setitem(GEMMA, "small", SMALL)
    monkeypatch.setitem(SIGLIP, "eye", EYE)


def make(seed: int = 0) -> Vla:
    torch.manual_seed(seed)
    model = Vla(KIConfig(vision="eye", vlm="small", expert="small", vocab_size=96))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.3 * torch.randn_like(p))
    return model


def renamed(model: Vla, layout: str) -> dict[str, torch.Tensor]:
    """The model's tensors under the names of a published layout; without an expert where it has none."""
    language, tower, projector, expert = LAYOUTS[layout]
    root = "model." if layout == "lerobot" else ""
    rules = [
        (r"^vlm\.(decoder\.)?", language),
        (r"^vision\.tower\.layers\.", f"{tower}encoder.layers."),
        (r"^vision\.tower\.(patch_|position_)", rf"{tower}embeddings.\1"),
        (r"^vision\.tower\.", tower),
        (r"^vision\.projector\.", projector),
        (r"^expert\.decoder\.", expert),
        (r"^expert\.", root),
    ]
    tensors = {}
    for name, value in model.state_dict().items():
        if name.startswith("expert.") and not expert:
            continue
        pattern, target = next(rule for rule in rules if re.match(rule[0], name))
        tensors[re.sub(pattern, target, name)] = value.clone()
    return tensors


def groups_of(layout: str) -> tuple[str, ...]:
    return ("vision", "vlm", "expert") if LAYOUTS[layout][3] else ("vision", "vlm")


def equal(a: Vla, b: Vla, groups: tuple[str, ...]) -> bool:
    other = b.state_dict()
    return all(torch.equal(v, other[k]) for k, v in a.state_dict().items() if k.split(".")[0] in groups)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_fills_the_model_exactly(layout, tmp_path):
    source, target = make(0), make(1)
    save_file(renamed(source, layout), tmp_path / "model.safetensors")
    report = load_weights(target, tmp_path, groups=groups_of(layout))
    assert report.complete
    assert equal(source, target, groups_of(layout))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_missing_a_strange_and_a_misshaped_tensor_are_named(layout, tmp_path):
    tensors = renamed(make(0), layout)
    gone = next(name for name in tensors if name.endswith("layers.1.mlp.fc1.weight"))
    del tensors[gone]
    tensors["stranger.weight"] = torch.zeros(2)
    bent = next(
        name for name in tensors if name.endswith("layers.0.self_attn.q_proj.weight") and "vision" not in name
    )
    tensors[bent] = torch.zeros(3, 3)
    save_file(tensors, tmp_path / "file.safetensors")
    with pytest.raises(UserError) as error:
        load_weights(make(1), tmp_path / "file.safetensors", groups=groups_of(layout))
    assert f"1 missing: {canonical(gone)}" in str(error.value)
    assert "1 unexpected: stranger.weight" in str(error.value)
    assert f"1 misshaped: {canonical(bent)}: file [3, 3] model" in str(error.value)
    report = load_weights(make(1), tmp_path / "file.safetensors", groups=groups_of(layout), strict=False)
    assert len(report.missing) == len(report.unexpected) == len(report.misshaped) == 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_tied_pair_may_lose_one_name_and_not_both(layout, tmp_path):
    source, tensors = make(0), renamed(make(0), layout)
    embedding = next(name for name in tensors if name.endswith("embed_tokens.weight"))
    head = {
        "paligemma_old": "language_model.lm_head.weight",
        "paligemma_new": "lm_head.weight",
        "openpi": "paligemma_with_expert.paligemma.lm_head.weight",
        "lerobot": "model.paligemma_with_expert.paligemma.lm_head.weight",
    }[layout]
    tensors[head] = tensors.pop(embedding)
    save_file(tensors, tmp_path / "head.safetensors")
    target = make(1)
    report = load_weights(target, tmp_path / "head.safetensors", groups=groups_of(layout))
    assert equal(source, target, ("vlm",))
    assert "tied" in str(report)
    del tensors[head]
    save_file(tensors, tmp_path / "none.safetensors")
    with pytest.raises(UserError, match="ignores language"):
        load_weights(make(1), tmp_path / "none.safetensors", groups=groups_of(layout), strict=False)
    tensors |= {embedding: torch.zeros(96, 32), head: torch.ones(96, 32)}
    save_file(tensors, tmp_path / "both.safetensors")
    with pytest.raises(UserError, match="head differs"):
        load_weights(make(1), tmp_path / "both.safetensors", groups=groups_of(layout))


def test_extra_embedding_rows_are_cut_and_noted(tmp_path):
    source, target, tensors = make(0), make(1), renamed(make(0), "paligemma_old")
    name = "language_model.model.embed_tokens.weight"
    tensors[name] = torch.cat([tensors[name], torch.zeros(64, 32)])
    save_file(tensors, tmp_path / "model.safetensors")
    report = load_weights(target, tmp_path, groups=("vision", "vlm"))
    assert "embedding cut from 160 to 96 rows" in str(report)
    assert equal(source, target, ("vlm",))


def test_shards_are_followed_through_their_index(tmp_path):
    source, target = make(0), make(1)
    tensors = list(renamed(source, "openpi").items())
    shards = {"a.safetensors": dict(tensors[::2]), "b.safetensors": dict(tensors[1::2])}
    for file, part in shards.items():
        save_file(part, tmp_path / file)
    index = {"weight_map": {name: file for file, part in shards.items() for name in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert load_weights(target, tmp_path).complete
    assert equal(source, target, ("vision", "vlm", "expert"))
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(UserError, match=r"b.safetensors does not exist"):
        load_weights(target, tmp_path)


def test_plain_norms_are_told_by_their_tensors(tmp_path):
    tensors = {n: v for n, v in renamed(make(0), "openpi").items() if ".dense." not in n}
    for i in range(2):
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"paligemma_with_expert.gemma_expert.model.layers.{i}.{norm}.weight"] = torch.zeros(32)
    save_file(tensors, tmp_path / "pi05.safetensors")  # whatever the name says
    with pytest.raises(UserError, match=r"plain norms \(pi0\)"):
        load_weights(make(1), tmp_path / "pi05.safetensors")
    report = load_weights(make(1), tmp_path / "pi05.safetensors", groups=("vision", "vlm"))
    assert report.complete
    assert report.skipped


def test_text_parts_of_the_expert_are_left_aside_and_said(tmp_path):
    tensors = renamed(make(0), "openpi") | {
        "paligemma_with_expert.gemma_expert.lm_head.weight": torch.zeros(96, 32)
    }
    save_file(tensors, tmp_path / "model.safetensors")
    assert "1 skipped: paligemma_with_expert.gemma_expert.lm_head.weight" in str(
        load_weights(make(1), tmp_path)
    )


def test_own_files_are_bit_exact_in_any_dtype(tmp_path):
    source, target = make(0).bfloat16(), make(1).bfloat16()
    save_weights(source, tmp_path / "own.safetensors")
    assert load_weights(target, tmp_path / "own.safetensors").complete
    assert equal(source, target, ("vision", "vlm", "expert"))
    full = make(2)  # fp32 master weights from a bf16 file: exact, and still fp32
    load_weights(full, tmp_path / "own.safetensors")
    assert {p.dtype for p in full.parameters()} == {torch.float32}
    assert equal(full.bfloat16(), source, ("vision", "vlm", "expert"))
    save_weights(make(0), tmp_path / "full.safetensors")
    assert "rounded to torch.bfloat16" in str(load_weights(target, tmp_path / "full.safetensors"))


def test_truncated_and_absent_files_are_refused(tmp_path):
    save_weights(make(0), tmp_path / "own.safetensors")
    whole = (tmp_path / "own.safetensors").read_bytes()
    (tmp_path / "own.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        load_weights(make(1), tmp_path / "own.safetensors")
    with pytest.raises(UserError, match="does not exist"):
        load_weights(make(1), tmp_path / "other")


def test_quantiles_are_read_from_a_normaliser_state(tmp_path):
    save_file(
        {"action.q01": torch.zeros(3), "action.q99": torch.ones(3), "x": torch.ones(1)},
        tmp_path / "s.safetensors",
    )
    assert read_quantiles(tmp_path / "s.safetensors")["action"][1].tolist() == [1, 1, 1]
    save_file({"x": torch.ones(1)}, tmp_path / "t.safetensors")
    with pytest.raises(UserError, match="no pairs"):
        read_quantiles(tmp_path / "t.safetensors")


@pytest.fixture(scope="module")
def paligemma(tmp_path_factory):
    """`transformers`' own model with tiny random weights, and a folder it was saved to."""
    pytest.importorskip("transformers")
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # what third parties warn of while they are imported is not ours to mend
        try:
            import torchvision  # noqa: F401
        except (ImportError, RuntimeError):  # beside a CPU build of torch it needs these two schemas
            library = torch.library.Library("torchvision", "DEF")
            LIBRARIES.append(library)  # its definitions live as long as it does
            for name in ("nms", "qnms"):
                library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration

        config = PaliGemmaConfig(
            text_config={
                "model_type": "gemma", "vocab_size": 97, "hidden_size": 32, "intermediate_size": 64,
                "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 8,
                "hidden_activation": "gelu_pytorch_tanh",
            },
            vision_config={
                "model_type": "siglip_vision_model", "hidden_size": 24, "intermediate_size": 48,
                "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 16, "patch_size": 8,
                "vision_use_head": False, "projection_dim": 32,
            },
            image_token_index=96, projection_dim=32, hidden_size=32,
        )  # fmt: skip
        torch.manual_seed(0)
        model = PaliGemmaForConditionalGeneration(config).eval()
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(0.2 * torch.randn_like(p))
        folder = tmp_path_factory.mktemp("paligemma")
        model.save_pretrained(folder)
    return model, folder


@pytest.mark.extra
@torch.no_grad()
def test_logits_equal_those_of_transformers(paligemma):
    theirs, folder = paligemma
    ours = make(3)
    report = load_weights(ours, folder, groups=("vision", "vlm"))
    assert "embedding cut from 97 to 96 rows" in str(report)
    images, ids = torch.rand(2, 3, 16, 16) * 2 - 1, torch.randint(4, 90, (2, 9))
    valid = torch.ones(2, 9, dtype=torch.bool)
    valid[1, 7:] = False
    answer = (torch.arange(9) >= 5).expand(2, -1)
    hidden, _, mask = run_prefix(
        ours.vlm, ours.vision(images[:, None]), torch.ones(2, 1, dtype=torch.bool), ids, valid, answer
    )
    logits = ours.vlm.logits(hidden)
    pad = lambda row, value: torch.cat([torch.full((2, 4), value), row.long()], 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = theirs(
            input_ids=pad(ids, 96),
            pixel_values=images,
            attention_mask=pad(valid, 1),
            token_type_ids=pad(answer, 0),
            labels=pad(ids, -100),
        ).logits[..., :96]
    assert expected.std() > 0.5
    torch.testing.assert_close(logits[mask], expected[mask], atol=1e-5, rtol=1e-5)
