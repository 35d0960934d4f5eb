from __future__ import annotations

import numpy as np
import pytest

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.rng import Streams
from jepa_world_model.data import Loader, Windows

from .build import make_episodes


def loader(seed=0, batch_size=4, **options):
    return Loader(Windows(make_episodes([6, 9]), [0, 1], frames=3), batch_size, Streams(seed), **options)


def test_every_window_comes_exactly_once_an_epoch():
    data = loader()
    assert data.steps_per_epoch == 11 / 4
    order = np.concatenate([data.indices(step) for step in range(11)])  # 44 = four epochs of 11 windows
    for epoch in order.reshape(4, 11):
        assert sorted(epoch) == list(range(11))
    assert (order[:11] != order[11:22]).any()


def test_a_step_depends_on_seed_and_step_alone():
    forward, backward = loader(), loader()
    there = [forward.indices(s).tolist() for s in range(9)]
    back = [backward.indices(s).tolist() for s in reversed(range(9))][::-1]
    assert there == back
    assert loader(seed=1).indices(0).tolist() != there[0]
    assert (loader().batch(5).start == forward.batch(5).start).all()


def test_a_batch_larger_than_the_data_spans_several_epochs():
    assert np.bincount(loader(batch_size=33).indices(2)).tolist() == [3] * 11


def test_processes_share_the_same_global_batch():
    whole = loader(batch_size=6)
    parts = [loader(batch_size=6, rank=r, world=3) for r in range(3)]
    for step in range(5):
        assert np.concatenate([p.indices(step) for p in parts]).tolist() == whole.indices(step).tolist()


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"batch_size": 3, "world": 2}])
def test_an_impossible_batch_size_is_refused(options):
    with pytest.raises(UserError, match="multiple"):
        loader(**options)


def test_a_rank_outside_the_world_is_refused():
    with pytest.raises(ValueError, match=r"0\.\.1"):
        loader(rank=2, world=2)
