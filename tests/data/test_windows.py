from __future__ import annotations

import numpy as np
import pytest

from jepa_world_model.core.errors import UserError
from jepa_world_model.data import ActionSpace, Windows

from .build import DISCRETE, make_episodes

SPACES = [
    DISCRETE,
    ActionSpace(kind="multi_binary", dim=2),
    ActionSpace(kind="continuous", dim=2, low=(-1, -1), high=(1, 1)),
]


def slow_windows(episodes, episode_ids, frames):
    """The slow twin: every window by three nested loops."""
    out = []
    for episode in episode_ids:
        first, length = episodes.bounds[episode]
        for start in range(length - frames + 1):
            out.append((episode, start, [first + start + t for t in range(frames)]))
    return out


@pytest.mark.parametrize("space", SPACES, ids=lambda s: s.kind)
@pytest.mark.parametrize("ids", [[0, 1, 2], [2, 0], [1]])
def test_a_batch_equals_the_slow_twin(space, ids):
    episodes = make_episodes([5, 3, 8, 2], space=space)
    windows = Windows(episodes, ids, frames=3)
    expected = slow_windows(episodes, ids, 3)
    assert len(windows) == len(expected)
    batch = windows.batch(np.arange(len(windows))).validate()
    assert batch.episode.tolist() == [e for e, _, _ in expected]
    assert batch.start.tolist() == [s for _, s, _ in expected]
    rows = np.array([r for _, _, r in expected])
    assert (batch.frames[:, :, 0, 0, 0].numpy() == rows).all()
    assert (batch.state[:, :, 1].numpy() == 2 * rows).all()
    np.testing.assert_array_equal(batch.actions.numpy(), space.encode(episodes.actions[rows[:, :-1]]))
    np.testing.assert_array_equal(batch.action_id.numpy(), space.ids(episodes.actions[rows[:, :-1]]))


def test_short_episodes_are_skipped_and_windows_never_cross_an_episode():
    windows = Windows(make_episodes([5, 3, 8]), [0, 1, 2], frames=5)
    assert len(windows) == 1 + 0 + 4
    batch = windows.batch(range(5))
    assert batch.episode.tolist() == [0, 2, 2, 2, 2]


def test_no_usable_window_counts_the_episodes_by_length():
    with pytest.raises(UserError, match=r"no usable window of 9 frames.*1 of 3, 2 of 5, 1 of 8.*at most 8"):
        Windows(make_episodes([5, 3, 8, 5]), [0, 1, 2, 3], frames=9)
    with pytest.raises(UserError, match="no episode was chosen"):
        Windows(make_episodes(), [], frames=2)
    with pytest.raises(UserError, match="holds no action"):
        Windows(make_episodes(), [0], frames=1)


def test_many_lengths_are_summarised():
    with pytest.raises(UserError, match="and 2 shorter ones"):
        Windows(make_episodes(range(1, 11)), range(10), frames=20)


def test_a_batch_owns_its_memory():
    episodes = make_episodes()
    batch = Windows(episodes, [0], frames=2).batch([0])
    batch.frames.fill_(255)
    assert episodes.frames[0, 0, 0, 0] == 0


def test_window_numbers_outside_the_range_are_a_bug():
    with pytest.raises(IndexError):
        Windows(make_episodes(), [0], frames=2).batch([4])
