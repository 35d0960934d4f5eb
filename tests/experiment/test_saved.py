"""A run read back from its folder is the model that was trained."""

from __future__ import annotations

import pytest
import torch

import jepa_world_model_trainer as trainer
from jepa_world_model.core.errors import UserError
from jepa_world_model.experiment.build import build_task
from jepa_world_model.experiment.saved import load_run, untrained
from tests.experiment.test_run import TINY


def test_a_saved_run_comes_back_with_its_sizes_and_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert trainer.main([*TINY, "--steps", "2", "--name", "a", "--no-report"]) == 0
    cfg, model = load_run("runs/a")
    assert cfg.model.action_dim == 5
    assert not model.training
    start = untrained(cfg)
    trained = [not torch.equal(a, b) for a, b in zip(model.parameters(), start.parameters(), strict=True)]
    assert sum(trained) > len(trained) / 2
    assert set(dict(build_task(cfg).model.named_children())) == set(dict(model.named_children()))
    with pytest.raises(UserError, match="no checkpoint of step 7; there are \\[2\\]"):
        load_run("runs/a", step=7)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="is no run"):
        load_run(tmp_path)
