"""`jepa-wm ki-check` ends with 1 for every fault that such a pipeline is known to have, and with 0 without."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from jepa_world_model.core import step
from jepa_world_model.core.graph import Graph
from jepa_world_model.vla_ki import check, proofs, table
from jepa_world_model.vla_ki.proofs import PROOFS, Kit
from tests.vla_ki.tiny import CFG, tiny_batch, tiny_model


@pytest.fixture
def kit() -> Kit:
    return Kit(cfg=CFG, model=tiny_model(), batch=tiny_batch(), flow_samples=2, steps=2)


def changed(**latents) -> Graph:
    """The table with other functions for some latents."""
    rows = (replace(row, compute=latents.get(row.name, row.compute)) for row in table.GRAPH.latents)
    return Graph(tuple(rows), table.GRAPH.edges)


def barrier_on_embeddings(kit: Kit, monkeypatch) -> Kit:
    """The prefix is embedded without gradient for the expert; its keys and values are not cut."""

    def kv(at):
        b, vlm = at.batch, at.model.vlm
        embed = vlm.embed
        vlm.embed = lambda ids: embed(ids).detach()
        try:
            seen = at.model.vision(table.to_float(b.images)).detach()
            _, made, _ = table.run_prefix(vlm, seen, b.image_mask, b.ids, b.token_mask, b.ar_mask)
        finally:
            del vlm.embed
        return table.slice_kv(made, CFG.visible)

    rows = [
        replace(row, compute=kv, trains=("vision", "vlm")) if row.name == "kv" else row
        for row in table.GRAPH.latents
    ]
    monkeypatch.setattr(proofs, "GRAPH", Graph(tuple(rows), table.GRAPH.edges))
    monkeypatch.setattr(proofs, "setting_gates", lambda name, leak: table.setting_gates("joint", 1.0))
    return kit


def global_clipping(kit: Kit, monkeypatch) -> Kit:
    def clip(groups, max_norm):
        every = [p for members in groups.values() for p in members.values()]
        norm = torch.nn.utils.clip_grad_norm_(every, max_norm)
        return dict.fromkeys(groups, norm)

    monkeypatch.setattr(step, "clip_grad_groups", clip)
    return kit


def answer_visible_to_the_expert(kit: Kit, monkeypatch) -> Kit:
    width = CFG.visible + CFG.answer_length
    monkeypatch.setattr(table, "slice_kv", lambda kv, length: kv)
    everything = lambda b, cfg: torch.ones(b.B, width, dtype=torch.bool)
    monkeypatch.setattr(table, "visible_mask", everything)
    monkeypatch.setattr(proofs, "visible_mask", everything)
    return kit


def bidirectional_answer(kit: Kit, monkeypatch) -> Kit:
    block = torch.zeros_like(kit.batch.ar_mask)
    block[:, CFG.prompt_length] = True
    return replace(kit, batch=replace(kit.batch, ar_mask=block))


def loss_mask_one_too_far(kit: Kit, monkeypatch) -> Kit:
    return replace(kit, batch=replace(kit.batch, supervised=kit.batch.supervised + 1))


def loss_mask_one_too_early(kit: Kit, monkeypatch) -> Kit:
    return replace(kit, batch=replace(kit.batch, supervised=kit.batch.supervised - 1))


def targets_not_shifted(kit: Kit, monkeypatch) -> Kit:
    """Each place predicts its own token."""

    def own_token(at):
        text = at.prefix.hidden[:, CFG.image_tokens :].flatten(0, 1)
        return at.model.vlm.token_ce(text[at.batch.supervised], at.batch.ids.flatten()[at.batch.supervised])

    monkeypatch.setattr(proofs, "GRAPH", changed(token_ce=own_token))
    return kit


FAULTS = (
    barrier_on_embeddings,
    global_clipping,
    answer_visible_to_the_expert,
    bidirectional_answer,
    loss_mask_one_too_far,
    loss_mask_one_too_early,
    targets_not_shifted,
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.__name__)
def test_a_planted_fault_makes_the_check_fail(kit, fault, monkeypatch, capsys):
    assert check.report(fault(kit, monkeypatch)) == 1
    said = capsys.readouterr().out
    assert "FAILED" in said
    assert f"{len(PROOFS)} of {len(PROOFS)}" not in said


def test_without_a_fault_it_ends_well(kit, capsys):
    assert check.report(kit) == 0
    assert f"{len(PROOFS)} of {len(PROOFS)} proofs hold" in capsys.readouterr().out
