"""Which data a run learns from: a path of any format, read as its options say; what does not go together is refused."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import jepa_world_model_trainer as trainer
from jepa_world_model.core.errors import UserError
from jepa_world_model.data.sources import FORMATS, WriteOptions
from jepa_world_model.experiment.data import DataConfig, open_dataset
from tests.data.build import noisy_store
from tests.experiment.test_run import without_options


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.extra
@pytest.mark.parametrize("name", ["hdf5", "video"])
def test_a_run_trains_on_a_file_of_another_format_and_repeats_without_its_package(here, monkeypatch, name):
    package = {"hdf5": "h5py", "video": "av"}[name]
    pytest.importorskip(package)
    place = "set.h5" if name == "hdf5" else "set"
    FORMATS[name].write(
        noisy_store(here / "store", lengths=(14,) * 6, size=(20, 32)), here / place, WriteOptions()
    )
    flags = [
        *without_options(),
        "--data.source",
        place,
        "--data.size",
        "16",
        "--data.fit",
        "crop",
        "--no-report",
    ]
    assert trainer.main([*flags, "--steps", "2", "--name", "a"]) == 0
    monkeypatch.setitem(sys.modules, package, None)  # decoded once: the store in the cache is enough
    assert trainer.main(["--config", "runs/a/config.toml", "--name", "b"]) == 0


def test_frames_of_another_size_are_refused_with_both_ways_out(here, capsys):
    noisy_store(here / "square", lengths=(14,) * 6, size=(32, 32))
    noisy_store(here / "wide", lengths=(14,) * 6, size=(20, 32))
    assert trainer.main([*without_options(), "--data.source", "square"]) == 2
    assert "--model.image-size 32, or resize the frames with --data.size 16" in capsys.readouterr().err
    assert trainer.main([*without_options(), "--data.source", "wide"]) == 2
    assert "not square; resize them with --data.size 16 (and --data.fit)" in capsys.readouterr().err


def test_the_options_reach_the_reader(here):
    noisy_store(here / "set", size=(16, 32))
    cfg = DataConfig(source="set", size=8, fit="letterbox", cache_dir="kept")
    episodes = open_dataset(cfg)
    assert (np.asarray(episodes.frames)[:, :, :2] == 0).all()
    assert episodes.frames.filename.is_relative_to(here / "kept")
    with pytest.raises(UserError, match="no cameras to choose from"):
        open_dataset(DataConfig(source="set", camera="top"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"source": "set", "format": "hdf"}, "there is no data.format 'hdf'; did you mean 'hdf5'"),
        ({"source": "gridworld", "size": 32}, "is a built-in world, so leave them out"),
        ({"source": "set", "fit": "stretch"}, "use letterbox"),
        ({"source": "set", "action_kind": "analog"}, "use auto, discrete"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        DataConfig(**options)


def test_a_source_that_does_not_exist_is_told_with_what_was_meant(here):
    with pytest.raises(UserError, match=r"did you mean 'gridworld'.*no such folder or file"):
        open_dataset(DataConfig(source="gridwrld"))
    noisy_store(here / "set")
    with pytest.raises(UserError, match=r"data\.options belong to built-in worlds"):
        open_dataset(DataConfig(source="set", options={"cells": "5"}))
