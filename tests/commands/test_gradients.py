"""`jepa-wm gradients`: the table of any configuration, as text and as data, and the proof under every gate setting."""

from __future__ import annotations

import json

import pytest

from jepa_world_model.cli import main
from jepa_world_model.commands import gradients
from jepa_world_model.core.graph import Graph, Latent
from jepa_world_model.losses import LOSSES

TINY = [
    "--model.image-size", "16", "--model.encoder-schedule", "8", "8", "--model.decoder-schedule", "8", "8",
    "--model.z-dim", "8", "--model.state-dim", "8", "--model.hidden-dim", "16", "--model.pose-dim", "2", "--seq-len", "5",
    "--rollout-horizon", "4",
]  # fmt: skip

# source_documents/world_model_loss_and_gradient_flow.md, "Gradient flow by loss (default config)"
SOURCE_TABLE = {
    "jepa": {"predictor", "h_to_z"},
    "recon_multi_box": {"encoder", "decoder"},
    "pixel_delta_multi_box": {"encoder", "decoder"},
    "h2z": {"h_to_z", "predictor"},
    "z2h": {"z_to_h"},
    "inverse_dynamics_h": {"inverse_dynamics_h", "predictor"},
    "action_delta_h": {"h_action_delta_projector", "predictor"},
    "rollout_kstep_h": {"predictor", "h_to_z"},
    "rollout_kstep_delta_h": {"predictor", "h_to_z"},
    "action_delta_dp": {"dp_action_delta_projector", "p_action_delta_projector"},
    "additivity_dp": {"p_action_delta_projector"},
    "rollout_kstep_p": {"p_action_delta_projector"},
    "scale_dp": {"p_action_delta_projector"},
    "geometry_rank_p": {"p_action_delta_projector"},
}


def test_the_default_table_is_the_source_documents(capsys):
    assert main(["gradients", "--format", "json", *TINY]) == 0
    data = json.loads(capsys.readouterr().out)
    assert set(data["losses"]) == set(SOURCE_TABLE)
    for name, groups in SOURCE_TABLE.items():
        row = data["losses"][name]
        assert set(row["derived"]) == set(row["structural"]) == groups
        assert {group for group, norm in row["numeric"].items() if norm} == groups


def test_open_gates_and_toggled_losses_show_in_the_table(capsys):
    flags = ["--no-detach-z-from-h-and-p", "--loss-weights.z2h", "0", "--gates", "h->delta_p", "0.5"]
    assert main(["gradients", "--format", "json", *TINY, *flags]) == 0
    losses = json.loads(capsys.readouterr().out)["losses"]
    assert set(losses["jepa"]["derived"]) == {"predictor", "h_to_z", "encoder"}
    assert "predictor" in losses["action_delta_dp"]["derived"]
    assert "z2h" not in losses


@pytest.mark.parametrize("form", ["text", "markdown"])
def test_the_table_reads_well(capsys, form):
    assert main(["gradients", "--format", form, *TINY]) == 0
    out = capsys.readouterr().out
    assert "rollout_kstep_delta_h" in out
    assert "z->h 0" in out.replace("`", "")


def test_an_edge_with_a_typo_is_one_sentence_and_code_2(capsys):
    assert main(["gradients", *TINY, "--gates", "z->hh", "0"]) == 2
    err = capsys.readouterr().err
    assert "did you mean 'z->h'" in err
    assert err.count("\n") == 1


def test_every_loss_under_every_gate_setting(capsys):
    assert main(["gradients", "--all-gates", "--format", "json", *TINY]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["faults"] == {}
    assert data["settings"] >= 16 + len(TINY) // 2
    assert data["pairs"] >= 16 * len(LOSSES)


def test_a_latent_that_hides_a_barrier_makes_the_proof_fail(capsys, monkeypatch):
    from jepa_world_model.core.barrier import stop
    from jepa_world_model.experiment import config

    real = config.world_graph

    def planted(settings):
        graph = real(settings)
        latents = [
            Latent(x.name, lambda at: stop(graph.table["h"].compute(at)), x.reads, x.trains, x.shape)
            if x.name == "h"
            else x
            for x in graph.latents
        ]
        return Graph(tuple(latents), graph.edges)

    monkeypatch.setattr(config, "world_graph", planted)
    assert gradients.main(TINY) == 1
    assert "declares that it moves" in capsys.readouterr().err
