"""Random streams: a name, a step and a seed say everything."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from jepa_world_model.core.rng import Streams, isolated, seed_everything


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002


def test_the_same_seed_name_and_step_give_the_same_draws_and_any_other_does_not():
    def first(seed: int, name: str, step: int) -> tuple[float, float]:
        streams = Streams(seed)
        return (
            float(streams.numpy(name, step).random()),
            float(torch.rand((), generator=streams.torch(name, step), dtype=torch.float64)),
        )

    keys = [
        (0, "a", 0),
        (0, "a", 1),
        (0, "b", 0),
        (1, "a", 0),
        (0, "a/b", 0),
        (0, "ab", 0),
        (2**40, "a", 2**40),
    ]
    values = [first(*key) for key in keys]
    assert values == [first(*key) for key in keys]
    assert len({value for pair in values for value in pair}) == 2 * len(keys)


def test_order_of_asking_and_other_streams_do_not_matter():
    streams, again = Streams(3), Streams(3)
    streams.numpy("x", 5).random(100)
    assert streams.numpy("y", 5).random() == again.numpy("y", 5).random()
    assert streams.number("y", 5) == again.number("y", 5)


def test_draws_do_not_depend_on_the_process_and_its_hash_salt():
    code = "from jepa_world_model.core.rng import Streams; print(Streams(7).number('data/train', 12))"
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": salt},
            capture_output=True,
            text=True,
            check=True,
        )
        for salt in ("1", "2")
    ]
    assert [int(run.stdout) for run in runs] == [Streams(7).number("data/train", 12)] * 2
    assert Streams(7).number("data/train", 12) == 3936778529102003793  # golden: a change breaks every resume


def test_neighbouring_steps_are_uncorrelated():
    first = np.array([Streams(0).numpy("x", step).standard_normal() for step in range(2000)])
    assert abs(first.mean()) < 4 / np.sqrt(2000)  # four standard errors
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 4 / np.sqrt(2000)


def test_isolated_draws_are_the_streams_and_leave_the_global_generators_alone():
    seed_everything(0)
    expected = draws()
    seed_everything(0)
    inside = []
    for step in (4, 4, 5):
        with isolated(Streams(1), "hook/probe", step):
            inside.append(draws())
    assert draws() == expected
    assert inside[0] == inside[1] != inside[2]


def test_isolated_restores_after_an_error():
    seed_everything(0)
    expected = draws()
    seed_everything(0)
    with contextlib.suppress(KeyError), isolated(Streams(1), "x", 0):
        raise KeyError(draws())
    assert draws() == expected


@pytest.mark.parametrize("seed", [-1, 1.0, "0", True])
def test_a_seed_that_is_no_whole_number_is_refused(seed: object):
    with pytest.raises(ValueError, match="seed must be a whole number of 0 or more"):
        Streams(seed)
