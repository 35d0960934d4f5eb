"""`jepa-wm diff`: routing in sentences, settings, and metrics at the last common step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jepa_world_model.cli import main
from jepa_world_model.core.config import to_toml
from jepa_world_model.core.log import JsonlSink
from jepa_world_model.experiment.compare import routing, routing_sentences, settings_difference
from jepa_world_model.experiment.config import TrainConfig
from jepa_world_model.losses import LossWeights
from jepa_world_model.model_config import ModelConfig


def test_a_configuration_does_not_differ_from_itself():
    assert routing_sentences(TrainConfig(), TrainConfig()) == []
    assert settings_difference(TrainConfig(), TrainConfig(name="other", output_dir="elsewhere")) == {}


def test_an_opened_edge_is_named_with_what_it_lets_the_loss_reach():
    found = routing_sentences(TrainConfig(), TrainConfig(gates={"h->delta_p": 0.5}))
    assert found == [
        "with B, action_delta_dp, scale_dp, geometry_rank_p also reach predictor (h->delta_p opened to 0.5)"
    ]
    back = routing_sentences(TrainConfig(gates={"h->delta_p": 1.0}), TrainConfig())
    assert back == [
        "with B, action_delta_dp, scale_dp, geometry_rank_p no longer reach predictor (h->delta_p cut)"
    ]


def test_a_named_gate_shows_only_the_edges_that_matter_to_the_loss():
    found = routing_sentences(TrainConfig(), TrainConfig(detach_z_from_h_and_p=False))
    (jepa,) = [words for words in found if " jepa" in words]
    assert jepa.startswith("with B, jepa, h2z, ")
    assert jepa.endswith(" also reach encoder (z->h opened)")
    assert not any("recon_multi_box" in words for words in found)


def test_a_loss_alone_has_a_sentence_in_the_singular():
    weights = LossWeights(action_delta_dp=0, geometry_rank_p=0)
    found = routing_sentences(
        TrainConfig(loss_weights=weights), TrainConfig(loss_weights=weights, gates={"h->delta_p": 1.0})
    )
    assert found == ["with B, scale_dp also reaches predictor (h->delta_p opened)"]


def test_losses_that_come_and_go_are_told_and_what_nobody_moves_any_more():
    found = routing_sentences(TrainConfig(), TrainConfig(loss_weights=LossWeights(z2h=0, sigreg=0.5)))
    assert "B adds sigreg (weight 0.5): it moves encoder" in found
    assert "B leaves out z2h, which moves z_to_h" in found
    assert "with B, no loss moves z_to_h any more" in found


def test_a_share_that_changes_without_cutting_is_told_once():
    found = routing_sentences(TrainConfig(gates={"z->x_hat": 0.5}), TrainConfig())
    assert found == ["z->x_hat passes 1 of the gradient in B, 0.5 in A"]


def test_the_derived_routing_is_that_of_the_built_task():
    from jepa_world_model.commands.gradients import with_actions
    from jepa_world_model.experiment.build import build_task

    cfg = with_actions(TrainConfig(gates={"h->delta_p": 1.0}))
    assert routing(cfg).reach == build_task(cfg).derived()


def test_a_size_left_to_the_data_is_no_difference():
    resolved = TrainConfig(model=ModelConfig(action_dim=5, action_kind="discrete"))
    assert settings_difference(TrainConfig(), resolved) == {}
    other = TrainConfig(model=ModelConfig(action_dim=8, action_kind="discrete"))
    assert settings_difference(resolved, other) == {"model.action_dim": (5, 8)}


def run_folder(folder: Path, cfg: TrainConfig, rows: dict[int, dict[str, float]]) -> Path:
    folder.mkdir()
    (folder / "config.toml").write_text(to_toml(cfg))
    sink = JsonlSink(folder / "metrics.jsonl")
    for step, values in rows.items():
        sink.write(step, values)
    sink.close()
    return folder


def test_metrics_are_compared_at_the_last_step_both_have(tmp_path, capsys):
    a = run_folder(
        tmp_path / "a", TrainConfig(), {10: {"loss/jepa": 2.0, "eval/r2": 0.5}, 20: {"loss/jepa": 1.0}}
    )
    b = run_folder(
        tmp_path / "b", TrainConfig(seed=1), {10: {"loss/jepa": 2.5, "eval/r2": 0.75}, 30: {"loss/jepa": 0.0}}
    )
    assert main(["diff", str(a), str(b), "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["metrics"]["loss/jepa"] == {"step": 10, "a": 2.0, "b": 2.5, "difference": 0.5}
    assert data["metrics"]["eval/r2"]["difference"] == 0.25
    assert data["settings"] == {"seed": {"a": 0, "b": 1}}
    assert data["routing"] == []


def test_the_text_reads_well_for_a_run_and_a_file(tmp_path, capsys):
    a = run_folder(tmp_path / "a", TrainConfig(), {10: {"loss/jepa": 2.0}})
    b = tmp_path / "b.toml"
    b.write_text('gates = {"h->delta_p" = 1.0}\n')
    assert main(["diff", str(a), str(b)]) == 0
    out = capsys.readouterr().out
    assert (
        "with B, action_delta_dp, scale_dp, geometry_rank_p also reach predictor (h->delta_p opened)" in out
    )
    assert '{} -> {"h->delta_p": 1.0}' in out
    assert "last common step" not in out


@pytest.mark.parametrize("missing", ["nowhere", "empty"])
def test_what_is_no_configuration_is_one_sentence_and_code_2(tmp_path, capsys, missing):
    (tmp_path / "empty").mkdir()
    good = tmp_path / "good.toml"
    good.write_text("")
    assert main(["diff", str(good), str(tmp_path / missing)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
