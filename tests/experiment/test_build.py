"""What a configuration becomes: shares of a batch, and the whole of it."""

from __future__ import annotations

import dataclasses

import torch

from jepa_world_model.core.config import load_config
from jepa_world_model.data.loader import Loader
from jepa_world_model.experiment import TrainConfig
from jepa_world_model.experiment.build import DATA, build
from tests.experiment.test_run import TINY


def test_the_shares_of_two_processes_make_up_the_whole_batches_of_a_step(here):
    exp = build(load_config(TrainConfig, [*TINY, "--accumulate", "2"], prog="x"))
    windows, streams = exp.loader.windows, exp.task.streams
    halves = [
        dataclasses.replace(exp, loader=Loader(windows, 4, streams, DATA, rank=rank, world=2))
        for rank in range(2)
    ]
    whole = exp.batches(3)
    for number, batch in enumerate(whole):
        shares = [half.batches(3)[number].frames for half in halves]
        assert torch.equal(torch.cat(shares), batch.frames)
        assert torch.equal(halves[1].whole_batches(3)[number].frames, batch.frames)
    assert torch.equal(halves[1].first_windows(3).frames, exp.batch(0).frames[:3])
