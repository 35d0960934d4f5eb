"""The losses as numbers: closed forms, masks, the first value of a fresh model."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from jepa_world_model.core.compiled import Compiled
from jepa_world_model.core.errors import UserError
from jepa_world_model.core.step import plainly
from jepa_world_model.vla_ki.proofs import Kit
from jepa_world_model.vla_ki.table import BARRIER, GRAPH, Settings, setting_gates
from tests.vla_ki.tiny import CFG, tiny_batch, tiny_model


@pytest.fixture(scope="module")
def kit() -> Kit:
    return Kit(cfg=CFG, model=tiny_model(), batch=tiny_batch())


def test_a_fresh_head_scores_about_the_log_of_the_vocabulary(kit):
    terms = kit.task("insulated", kit.model).terms(kit.batch)
    assert float(terms["fast_ce"].detach()) == pytest.approx(math.log(CFG.vocab_size) + 0.5, abs=0.4)
    # Half above the logarithm: logits of a fresh head have a variance of 1.
    assert float(terms["flow"].detach()) == pytest.approx(1 + 1 / 3, abs=1.0)  # noise plus uniform actions


@torch.no_grad()
def test_ce_is_the_mean_over_rows_of_the_mean_over_targets_from_one_place_before(kit):
    task, b = kit.task("insulated"), kit.batch
    terms, hidden = task.terms(b), task.states(b, ("prefix",))["prefix"].hidden
    logits = kit.twin.vlm.logits(hidden[:, CFG.image_tokens :])
    rows = []
    for row in range(b.B):
        places = [int(p) % b.ids.shape[1] for p in b.supervised if p // b.ids.shape[1] == row]
        rows.append(F.cross_entropy(logits[row, [p - 1 for p in places]], b.ids[row, places]))
    torch.testing.assert_close(terms["fast_ce"], (rows[0] + rows[1]) / 2)
    torch.testing.assert_close(terms["text_ce"], rows[2])


@torch.no_grad()
def test_values_that_do_not_exist_do_not_count(kit):
    task = kit.task("insulated")
    before = task.terms(kit.batch)["flow"]
    states = task.states(kit.batch, ("velocity",))
    error = (states["velocity"] - states["flow"].u[:2]).square()
    real = torch.cat(
        [error[0, :, :4, :3].flatten(), error[1, :, :, :3].flatten()]
    )  # row 0 ends two steps early
    torch.testing.assert_close(before, real.mean())


def test_named_settings_are_one_edge():
    for setting, keep in (("insulated", 0.0), ("joint", 1.0), ("leaky", 0.25)):
        gates = setting_gates(setting, 0.25)
        assert gates.pop(BARRIER) == keep
        assert set(gates.values()) == {1.0}
    assert set(gates) | {BARRIER} == set(GRAPH.edge_names)
    with pytest.raises(UserError, match="must be one of insulated, joint, leaky"):
        setting_gates("open", 0.0)
    with pytest.raises(UserError, match=r"must lie in \[0, 1\]"):
        setting_gates("leaky", 2.0)


def test_a_leaky_barrier_passes_its_share(kit):
    grads = {}
    for setting in ("leaky", "joint"):
        task = kit.task(setting)
        term = task.terms(kit.batch)["flow"]
        grads[setting] = torch.autograd.grad(term, kit.twin.vlm.decoder.layers[0].self_attn.v_proj.weight)[0]
    torch.testing.assert_close(grads["leaky"], 0.5 * grads["joint"])


def test_flow_samples_must_be_counted_from_one():
    with pytest.raises(UserError, match="at least 1"):
        Settings(model=CFG, flow_samples=0)


def test_more_samples_are_more_draws_of_the_same_loss(kit):
    means = [
        float(
            dataclasses.replace(kit, flow_samples=k)
            .task("insulated", kit.twin)
            .terms(kit.batch)["flow"]
            .detach()
        )
        for k in (1, 64)
    ]
    assert means[0] == pytest.approx(means[1], rel=0.8)


def test_places_without_a_target_change_no_value_and_no_gradient(kit):
    def look(batch):
        task = kit.task("joint", kit.model)
        terms = task.terms(batch)
        sum(terms.values()).backward()
        grads = {name: p.grad for name, p in kit.model.named_parameters()}
        kit.model.zero_grad(set_to_none=True)
        return terms, grads

    padded = kit.batch.padded(kit.batch.ids.numel())
    assert len(padded.supervised) == kit.batch.ids.numel() > len(kit.batch.supervised)
    (terms, grads), (same, same_grads) = look(kit.batch), look(padded)
    for name, term in terms.items():
        torch.testing.assert_close(same[name], term, rtol=1e-6, atol=0)
    for name, grad in grads.items():
        torch.testing.assert_close(same_grads[name], grad, rtol=1e-4, atol=1e-7)


def test_one_program_serves_batches_with_any_number_of_targets(kit):
    """As listed, without a compiler: the numbers of the plain step on the batches as they come."""
    task, seen = kit.task("insulated", kit.model), []
    program = Compiled(task, compiler=lambda listed, inputs: seen.append(listed) or listed)
    room = kit.batch.B * CFG.answer_length
    batches = [tiny_batch(seed=seed) for seed in range(3)]
    assert len({len(batch.supervised) for batch in batches}) > 1
    for step, batch in enumerate(batches):
        found = program(batch.padded(room), step)
        grads = {name: p.grad for name, p in kit.model.named_parameters()}
        kit.model.zero_grad(set_to_none=True)
        want = plainly(task, batch, step, 0, 1)
        for name, value in want.items():
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-7)
        for name, p in kit.model.named_parameters():
            assert (p.grad is None) == (grads[name] is None)
            if p.grad is not None:
                torch.testing.assert_close(grads[name], p.grad, rtol=1e-4, atol=1e-6)
        kit.model.zero_grad(set_to_none=True)
    assert len(seen) == 1
