"""The ten proofs hold for a tiny model, and each of them fails where it should."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from jepa_world_model.vla_ki import proofs, table
from jepa_world_model.vla_ki.flow import masked_mse
from jepa_world_model.vla_ki.proofs import PROOFS, Kit, ProofError
from tests.vla_ki.tiny import CFG, tiny_batch, tiny_model


@pytest.fixture(scope="module")
def kit() -> Kit:
    return Kit(cfg=CFG, model=tiny_model(), batch=tiny_batch(), flow_samples=3)


@pytest.mark.parametrize("proof", PROOFS, ids=lambda p: p.__name__)
def test_proof_holds(kit, proof):
    assert proof(kit)


def test_training_and_inference_agree_to_a_millionth(kit):
    assert proofs.training_is_inference(kit, tolerance=1e-6)


def test_detached_embeddings_leave_30_of_38_tensors_with_a_gradient(kit):
    assert "30 of 38" in proofs.detached_embeddings_are_no_barrier(kit)


@pytest.mark.parametrize(
    "proof",
    [
        proofs.flow_stays_in_the_expert,
        proofs.gradients_are_those_of_the_parts,
        proofs.flow_weight_leaves_the_vlm_alone,
    ],
)
def test_an_open_barrier_is_found(kit, proof, monkeypatch):
    monkeypatch.setattr(proofs, "setting_gates", lambda name, leak: table.setting_gates("leaky", 0.1))
    with pytest.raises(ProofError):
        proof(dataclasses.replace(kit, steps=2))


def test_a_barrier_that_never_opens_is_found(kit, monkeypatch):
    monkeypatch.setattr(proofs, "setting_gates", lambda name, leak: table.setting_gates("insulated", 0.0))
    with pytest.raises(ProofError, match="though the barrier is open"):
        proofs.open_barrier_reaches_every_layer(kit)


def test_at_its_zero_start_the_expert_hides_every_leak(kit):
    untouched = Kit(cfg=CFG, model=kit.model, batch=kit.batch)
    vars(untouched)["twin"] = kit.model
    with pytest.raises(ProofError, match="no action gradient"):
        proofs.open_barrier_reaches_every_layer(untouched)


def test_an_expert_that_sees_the_answer_is_found(kit, monkeypatch):
    everything = CFG.image_tokens + CFG.prompt_length + CFG.answer_length
    monkeypatch.setattr(table, "slice_kv", lambda kv, length: kv)
    monkeypatch.setattr(table, "visible_mask", lambda b, cfg: torch.ones(b.B, everything, dtype=torch.bool))
    with pytest.raises(ProofError, match="reads its own answer"):
        proofs.answers_are_not_seen(kit)
    with pytest.raises(ProofError, match="training and inference differ"):
        proofs.training_is_inference(kit)


def test_a_bidirectional_answer_is_found(kit):
    seen_by_all = torch.zeros_like(kit.batch.ar_mask)
    one_block = seen_by_all.clone()
    one_block[:, CFG.prompt_length] = True  # hidden from the prompt, but bidirectional: a copy task
    for ar_mask, claim in ((seen_by_all, "reads its own answer"), (one_block, "helps to predict itself")):
        batch = dataclasses.replace(kit.batch, ar_mask=ar_mask)
        with pytest.raises(ProofError, match=claim):
            proofs.answers_are_not_seen(Kit(cfg=CFG, model=kit.model, batch=batch))


def test_a_flow_loss_without_its_mask_is_found(kit, monkeypatch):
    monkeypatch.setattr(table, "masked_mse", lambda v, u, mask, *_: masked_mse(v, u, torch.ones_like(mask)))
    with pytest.raises(ProofError, match="flow loss of rows without actions"):
        proofs.text_rows_have_no_flow(kit)
