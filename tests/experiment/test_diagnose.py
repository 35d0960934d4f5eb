"""From a run folder to its dashboard."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
import torch

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.task import Task
from jepa_world_model.data.episodes import split_episodes
from jepa_world_model.data.windows import Windows
from jepa_world_model.experiment.data import open_dataset
from jepa_world_model.experiment.diagnose import diagnose_run, evaluation_batch, examine, fingerprint
from jepa_world_model.experiment.load import LoadedRun, load
from tests.experiment.test_run import numbers, run


@pytest.fixture(scope="module")
def loaded(trained) -> LoadedRun:
    return load(trained, device="cpu")


def held_out(cfg) -> Windows:
    episodes = open_dataset(cfg.data)
    return Windows(episodes, split_episodes(episodes, cfg.data.val_fraction, cfg.data.seed)[1], frames=6)


def faults(loaded: LoadedRun, task: Task) -> list[str]:
    found = examine(task, loaded.cfg, open_dataset(loaded.cfg.data), held_out(loaded.cfg), step=4)
    return [fault.name for fault in found.faults]


def test_a_finished_run_is_questioned_from_its_folder(trained, tmp_path):
    folder = tmp_path / "b"
    shutil.copytree(trained, folder)
    assert diagnose_run(folder, device="cpu") == folder / "diagnostics.html"
    one = json.loads((folder / "diagnostics.json").read_text())
    diagnose_run(folder, device="cpu", seed=1, windows=5)
    two = json.loads((folder / "diagnostics.json").read_text())
    assert one["about"]["step"] == 4
    assert one["about"]["model_hash"] == two["about"]["model_hash"]
    assert one["about"]["batch_sha256"] != two["about"]["batch_sha256"]
    assert two["about"]["windows"].startswith("5 of 6 frames")


def test_a_seed_names_the_batch(loaded):
    windows = held_out(loaded.cfg)
    one, two, other = (fingerprint(evaluation_batch(windows, 4, seed)) for seed in (0, 0, 1))
    assert one == two != other


def test_the_encoder_set_to_zero_is_told_as_a_collapse(loaded):
    model = load(loaded.folder, device="cpu").model
    for parameter in model.encoder.parameters():
        parameter.zero_()
    assert faults(loaded, loaded.task.with_model(model)) == ["z_collapsed"]


def test_a_predictor_without_its_actions_is_told_as_deaf(loaded):
    model = load(loaded.folder, device="cpu").model
    model.predictor.inner.weight[:, -loaded.cfg.model.action_dim :] = 0
    assert "ignores_actions" in faults(loaded, loaded.task.with_model(model))


def test_increments_with_nothing_but_a_bias_are_told_as_a_clock(loaded):
    model = load(loaded.folder, device="cpu").model
    model.p_action_delta_projector.outer.weight.zero_()
    model.p_action_delta_projector.outer.bias.fill_(0.4)
    assert "p_clock" in faults(loaded, loaded.task.with_model(model))


def test_asking_leaves_the_model_and_the_generators_as_they_were(loaded):
    loaded.model.train()
    before, state = torch.get_rng_state(), {k: v.clone() for k, v in loaded.model.state_dict().items()}
    faults(loaded, loaded.task)
    assert loaded.model.training
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(state[key], value) for key, value in loaded.model.state_dict().items())
    loaded.model.eval()


def test_a_model_without_dynamics_is_one_sentence(loaded):
    model = torch.nn.Module()
    model.add_module("encoder", loaded.model.encoder)
    with pytest.raises(UserError, match="planning needs the model part predictor"):
        faults(loaded, loaded.task.with_model(model))


def test_training_ends_with_diagnostics_and_the_report_tells_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("--steps", "2", "--name", "plain", "--no-report") == 0
    assert run("--steps", "2", "--name", "asked", "--diagnostics") == 0
    out = capsys.readouterr().out
    told = json.loads((tmp_path / "runs/asked/diagnostics.json").read_text())
    assert f"diagnostics: {told['summary']}" in out
    assert not (tmp_path / "runs/plain/diagnostics.json").exists()
    assert numbers(tmp_path / "runs/plain") == numbers(tmp_path / "runs/asked")
    report = (tmp_path / "runs/asked/report.html").read_text()
    assert 'href="diagnostics.html"' in report
    assert told["panels"]["spread"]["sentence"] in report


def test_a_run_of_few_parts_ends_well_without_diagnostics(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    from jepa_world_model.losses import LossWeights

    off = [
        f"--loss-weights.{f.name.replace('_', '-')}"
        for f in dataclasses.fields(LossWeights)
        if f.name != "recon"
    ]
    flags = [word for flag in off for word in (flag, "0")]
    assert (
        run(
            *flags, "--loss-weights.recon", "1", "--steps", "1", "--name", "a", "--no-report", "--diagnostics"
        )
        == 0
    )
    assert "diagnostics: none: planning needs the model part predictor" in capsys.readouterr().out
