"""Looking at data: the numbers are those of the arrays, every warning fires where it should and is silent elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from jepa_world_model.data.batch import ActionSpace
from jepa_world_model.data.episodes import Episodes
from jepa_world_model.data.inspection import contact_sheet, inspect
from jepa_world_model.data.store import from_arrays
from jepa_world_model.envs import GENERATORS

RIGHT_LEFT = ActionSpace(kind="discrete", dim=3, names=("rest", "left", "right"), noop=0)


def walk(lengths=(40, 30, 50), *, lag=0, seed=0, shares=(0.3, 0.35, 0.35)) -> Episodes:
    """A bright column that steps with its action; with `lag`, with the action recorded that many rows away."""
    rng = np.random.default_rng(seed)
    total = sum(lengths)
    taken = rng.choice(3, size=total, p=shares)
    place = np.cumsum(np.array([0, -1, 1])[taken]) - np.array([0, -1, 1])[taken]  # before the step of the row
    frames = np.zeros((total, 3, 16, 16), np.uint8)
    frames[np.arange(total), :, :, place % 16] = 200
    starts = np.cumsum(lengths) - np.array(lengths)
    return Episodes(
        frames=frames, actions=np.roll(taken, lag), bounds=np.stack([starts, lengths], 1), space=RIGHT_LEFT
    )


def continuous(actions: np.ndarray) -> Episodes:
    """The walk with other actions."""
    dim = actions.shape[1]
    space = ActionSpace(kind="continuous", dim=dim, low=(-1.0,) * dim, high=(1.0,) * dim)
    return replace(walk(), actions=actions.astype(np.float32), space=space)


def warned(episodes: Episodes, **more) -> str:
    return "\n".join(inspect(episodes, **more).warnings)


def test_the_numbers_are_those_of_the_arrays():
    episodes = walk()
    found = inspect(episodes)
    rows = episodes.transitions()
    assert (found.episodes, found.frames, found.shortest, found.median, found.longest) == (3, 120, 30, 40, 50)
    assert found.actions[0].counts == np.bincount(episodes.actions[rows], minlength=3).tolist()
    np.testing.assert_allclose(found.pixel_mean, [200 / 16] * 3)
    np.testing.assert_allclose(found.pixel_std, [np.std([200] + [0] * 15)] * 3)
    assert found.still_share == 0  # every move moves
    assert found.noop_share == pytest.approx((episodes.actions[rows] == 0).mean())
    assert sum(found.change.counts) == len(rows)
    assert sum(found.lengths.counts) == 3
    assert found.to_json()["lengths"]["counts"] == found.lengths.counts


@pytest.mark.parametrize("name", GENERATORS)
def test_the_built_in_worlds_give_no_warning(name):
    options = {"noop_share": 0.1} if name == "gridworld" else {}
    assert warned(from_arrays(GENERATORS[name](episodes=60, length=50, **options))) == ""


def test_a_good_recording_gives_no_warning():
    assert warned(walk()) == ""
    assert warned(continuous(np.random.default_rng(0).uniform(-1, 1, (120, 2)))) == ""


def test_constant_actions_are_told():
    assert "constant actions: always right" in warned(walk(shares=(0, 0, 1)))
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (120, 3))
    actions[:, 1] = 0.5
    assert "constant actions: 1 never change" in warned(continuous(actions))
    assert "all are the same vector" in warned(continuous(np.ones((120, 2))))
    buttons = rng.integers(0, 2, (120, 3))
    buttons[:, 0], buttons[:, 2] = 0, 1
    space = ActionSpace(kind="multi_binary", dim=3, names=("A", "B", "C"))
    said = warned(replace(walk(), actions=buttons.astype(np.uint8), space=space))
    assert "A never pressed" in said
    assert "C always pressed" in said
    assert "B" not in said


def test_duplicate_frames_are_told():
    episodes = walk()
    twice = np.repeat(episodes.frames, 3, 0)[:120]  # each picture three times
    assert "duplicate frames: 77%" in warned(replace(episodes, frames=twice))
    assert "flat frames" in warned(replace(episodes, frames=np.full_like(episodes.frames, 7)))


def test_duplicate_episodes_are_told():
    episodes = walk((40, 40, 40))
    frames, actions = episodes.frames.copy(), episodes.actions.copy()
    frames[80:], actions[80:] = frames[:40], actions[:40]
    said = warned(replace(episodes, frames=frames, actions=actions))
    assert "1 repeat another (episode 2 is episode 0)" in said


@pytest.mark.parametrize(("lag", "when"), [(1, "step after"), (-1, "step before")])
def test_actions_that_are_off_by_one_are_told(lag, when):
    said = warned(walk((200, 200), lag=lag))
    assert "misaligned actions" in said
    assert when in said


def test_tiny_episodes_are_told():
    said = warned(walk((5, 30, 8)))
    assert "tiny episodes: 2 of 3 have less than 12 frames" in said
    assert "no window fits into any episode" in warned(walk((5, 7)))
    assert "tiny" not in warned(walk((5, 30, 8)), window=5)
    assert "one episode only" in warned(walk((40,)))


def test_unbalanced_actions_are_told():
    said = warned(walk((2000, 2000), shares=(0.949, 0.05, 0.001)))
    assert "unbalanced actions: rest 9" in said
    assert "actions never taken: left" in warned(walk(shares=(0.5, 0, 0.5)))


def test_frames_that_need_a_size_are_told():
    episodes = walk()
    assert "16 x 8 px, not square: train with --data.size" in warned(
        replace(episodes, frames=episodes.frames[..., :8])
    )
    large = np.kron(episodes.frames, np.ones((1, 1, 10, 10), np.uint8))
    assert "160 x 160 px: --data.size 64" in warned(replace(episodes, frames=large))
    four = np.concatenate([episodes.frames, episodes.frames[:, :1]], 1)
    assert "set --model.in-channels 4" in warned(replace(episodes, frames=four))


def test_single_frames_without_any_action_are_no_crash():
    assert "no actions: every episode has a single frame" in warned(walk((1, 1, 1)))


def test_the_contact_sheet_shows_each_episode_from_first_frame_to_last():
    episodes = walk()
    sheet = contact_sheet(episodes, rows=2, columns=4)
    assert sheet.shape == (2, 4, 3, 16, 16)
    np.testing.assert_array_equal(sheet[0, 0], episodes.frames[0])
    np.testing.assert_array_equal(sheet[1, -1], episodes.frames[-1])
    assert contact_sheet(walk((1,))).shape[:2] == (1, 12)
