"""The generated pages hold what the code says."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from jepa_world_model.core.graph import Graph
from jepa_world_model.latents import NAMED_GATES
from jepa_world_model.losses import LOSSES
from jepa_world_model.losses.docs import (
    DEFAULT_GATES,
    FAMILIES,
    FLAGS,
    default_graph,
    gradients_markdown,
    latent_picture,
    losses_markdown,
    options_lines,
    reach_under,
)

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_of_losses_is_up_to_date():
    written = (DOCS / "losses.md").read_text()
    assert written == losses_markdown(), "docs/losses.md is stale; run `jepa-wm docs` and commit it"


def test_every_loss_stands_in_one_family_with_claim_formula_and_contract():
    page = losses_markdown()
    assert {loss.family for loss in LOSSES.values()} == set(FAMILIES)
    for name, loss in LOSSES.items():
        assert page.count(f"\n### {name}\n") == 1
        entry = page.split(f"\n### {name}\n")[1].split("\n### ")[0].split("\n## ")[0]
        assert loss.claim in entry
        assert "- Formula: " in entry
        assert "- Contract: " in entry
        assert (f"- Trivial optimum: {loss.trivial}." in entry) == bool(loss.trivial)
        assert ("- Options" in entry) == (loss.options is not None)


@pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if loss.options])
def test_every_option_is_explained(name):
    lines = options_lines(LOSSES[name].options)
    fields = dataclasses.fields(LOSSES[name].options)
    assert [line.split("`")[1] for line in lines] == [field.name for field in fields]
    assert [line for line in lines if ": " not in line] == []


def test_the_page_on_gradients_holds_every_latent_edge_gate_and_loss():
    page = gradients_markdown()
    for latent in default_graph():
        assert f"\n| `{latent.name}` |" in page
    for name, edges in NAMED_GATES.items():
        assert f"| `{name}` | `{FLAGS[name]}` | {DEFAULT_GATES[name]} |" in page
        assert all(f"| `{edge}` |" in page for edge in edges)
    for name in LOSSES:
        assert f"\n| {name} |" in page or f"\n| **{name}** |" in page


def test_the_default_gates_are_those_of_the_configuration():
    from jepa_world_model.experiment.config import TrainConfig

    cfg = TrainConfig()
    here = {name: getattr(cfg, name, getattr(cfg.model, name, None)) for name in DEFAULT_GATES}
    assert here == DEFAULT_GATES
    edges = cfg.edge_gates()
    for name, moved in reach_under(DEFAULT_GATES).items():
        assert cfg.graph().contract_reach(LOSSES[name].contract, edges) == moved


def test_the_picture_shows_cut_edges_dotted():
    picture = latent_picture()
    assert "z -.-> h\n" in picture + "\n"
    assert "h -.-> delta_p\n" in picture + "\n"
    assert "z --> x_hat\n" in picture + "\n"
    assert "rollout_live" not in picture
    assert isinstance(default_graph(), Graph)
