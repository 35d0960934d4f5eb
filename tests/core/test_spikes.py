"""Spikes: what stands far above the steps before, whatever the level, and after a checkpoint too."""

from __future__ import annotations

import json
import math

import pytest

from jepa_world_model.core.spikes import FEWEST, MEMORY, Spikes


@pytest.mark.parametrize("level", [1e-6, 1.0, 3e8])
def test_a_spike_is_relative_to_the_median_of_the_steps_before(level: float):
    spikes = Spikes(10)
    assert not any(spikes.is_spike(level * (1 + step % 2)) for step in range(FEWEST))
    assert not spikes.is_spike(9 * level)
    assert spikes.is_spike(100 * level)
    assert spikes.count == 1


def test_nothing_is_a_spike_at_the_beginning_and_a_falling_loss_never_is():
    spikes = Spikes(10)
    assert not any(spikes.is_spike(10.0 ** (10 * (step % 2))) for step in range(FEWEST))
    spikes = Spikes(2)
    assert not any(spikes.is_spike(1e6 * math.exp(-step / 10)) for step in range(500))


def test_a_level_that_stays_high_is_told_every_time_and_what_is_not_finite_never():
    spikes = Spikes(10)
    for _ in range(FEWEST):
        spikes.is_spike(1.0)
    assert [spikes.is_spike(50.0) for _ in range(2 * MEMORY)] == [True] * 2 * MEMORY
    assert not spikes.is_spike(math.nan)
    assert not spikes.is_spike(math.inf)


def test_memory_and_count_survive_a_checkpoint():
    one, other = Spikes(5), Spikes(5)
    values = [1.0 + 0.01 * step for step in range(130)]
    for value in values:
        one.is_spike(value)
    one.is_spike(99.0)
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert [one.is_spike(v) for v in (7.0, 8.0, 9.0)] == [other.is_spike(v) for v in (7.0, 8.0, 9.0)]
    assert (one.count, one.memory) == (other.count, other.memory)
    with pytest.raises(ValueError, match="above 1"):
        Spikes(0.5)
