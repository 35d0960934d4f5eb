from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jepa_world_model.core.errors import UserError
from jepa_world_model.data.sources import ReadOptions, open_episodes


def write_trajectory(
    folder: Path, frames: int, actions: np.ndarray, *, first=0, height=4, width=6, key="actions"
):
    """A trajectory whose frame i has the grey level i in every pixel."""
    (folder / "states").mkdir(parents=True)
    for i in range(frames):
        picture = np.full((height, width, 3), i, np.uint8)
        Image.fromarray(picture).save(folder / "states" / f"state_{i + first}.png")
    np.savez(folder / "actions.npz", **{key: actions})


@pytest.fixture
def folder(tmp_path):
    """Two trajectories: 12 frames (so that numeric and text order differ) and 3 frames."""
    write_trajectory(tmp_path / "set" / "traj_2", 12, np.arange(11) % 4)
    write_trajectory(tmp_path / "set" / "traj_10", 3, np.array([3, 0, 1]))
    return tmp_path / "set"


def test_frames_come_in_numeric_order_and_actions_follow_them(folder, tmp_path):
    episodes = open_episodes(folder, cache_dir=tmp_path / "cache", verify=True)
    assert isinstance(episodes.frames, np.memmap)
    assert episodes.frames.shape == (15, 3, 4, 6)
    assert episodes.bounds.tolist() == [[0, 12], [12, 3]]
    assert episodes.frames[:, 0, 0, 0].tolist() == [*range(12), *range(3)]
    assert (episodes.space.kind, episodes.space.dim) == ("discrete", 4)
    assert episodes.actions[episodes.transitions()].tolist() == [*(np.arange(11) % 4), 3, 0]


def test_images_are_decoded_once(folder, tmp_path, monkeypatch):
    first = open_episodes(folder, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(Image, "open", None)
    again = open_episodes(folder, cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(first.frames, again.frames)


def test_a_changed_file_is_decoded_again(folder, tmp_path):
    open_episodes(folder, cache_dir=tmp_path / "cache")
    path = folder / "traj_2" / "states" / "state_3.png"
    Image.fromarray(np.full((4, 6, 3), 200, np.uint8)).save(path)
    os.utime(path, ns=(1, 1))
    assert open_episodes(folder, cache_dir=tmp_path / "cache").frames[3, 0, 0, 0] == 200


def test_frames_are_resized_where_asked(folder, tmp_path):
    assert open_episodes(folder, ReadOptions(size=8), cache_dir=tmp_path).frames.shape == (15, 3, 8, 8)


def test_a_damaged_cache_says_how_to_build_it_again(folder, tmp_path):
    open_episodes(folder, cache_dir=tmp_path / "cache")
    (store,) = (tmp_path / "cache").iterdir()
    (store / "frames.npy").write_bytes(b"")
    with pytest.raises(UserError, match=r"delete .* to build it again"):
        open_episodes(folder, cache_dir=tmp_path / "cache")


@pytest.mark.parametrize(
    ("actions", "kind", "dim"),
    [
        (np.array([0, 5, 2]), "discrete", 6),
        (np.array([[0], [5], [2]]), "discrete", 6),
        (np.eye(3, 8, dtype=np.uint8), "multi_binary", 8),
        (np.eye(3, 8), "multi_binary", 8),
        (np.eye(3, 8, dtype=bool), "multi_binary", 8),
        (np.array([[0.5, -2.0], [0, 1], [0, 0]]), "continuous", 2),
        (np.array([0.5, 1.0, 2.0]), "continuous", 1),
    ],
)
def test_the_kind_of_action_is_inferred(tmp_path, actions, kind, dim):
    write_trajectory(tmp_path / "set" / "traj_0", 4, actions, key="arr_0")
    space = open_episodes(tmp_path / "set", cache_dir=tmp_path / "cache").space
    assert (space.kind, space.dim) == (kind, dim)
    if kind == "continuous":
        assert space.encode(np.zeros((1, dim))).tolist() == [[0.0] * dim]


def test_the_kind_can_be_given(tmp_path):
    write_trajectory(tmp_path / "set" / "traj_0", 4, np.eye(3, 2))
    episodes = open_episodes(
        tmp_path / "set", ReadOptions(action_kind="continuous"), cache_dir=tmp_path / "cache"
    )
    assert episodes.space.kind == "continuous"
    with pytest.raises(UserError, match="discrete actions are whole numbers"):
        open_episodes(tmp_path / "set", ReadOptions(action_kind="discrete"), cache_dir=tmp_path / "cache")
    with pytest.raises(UserError, match="use auto, discrete"):
        open_episodes(tmp_path / "set", ReadOptions(action_kind="analog"), cache_dir=tmp_path / "cache")


def test_trajectories_may_all_be_numbered_from_1(tmp_path):
    for name in ("traj_a", "traj_b"):
        write_trajectory(tmp_path / "set" / name, 4, np.zeros(3, np.int64), first=1)
    assert len(open_episodes(tmp_path / "set", cache_dir=tmp_path / "cache")) == 2


def remove(path):
    return lambda root: (root / path).unlink()


def replace_actions(array, **more):
    return lambda root: np.savez(root / "traj_10" / "actions.npz", **{"actions": array, **more})


def put(path, data):
    return lambda root: (root / path).write_bytes(data)


def resize(root):
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(root / "traj_10" / "states" / "state_1.png")


def twin(root):
    shutil.copy(root / "traj_10" / "states" / "state_1.png", root / "traj_10" / "states" / "state_01.png")


def empty(root):
    shutil.rmtree(root / "traj_10" / "states")


def no_trajectories(root):
    shutil.rmtree(root / "traj_10")
    shutil.rmtree(root / "traj_2")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (remove("traj_2/states/state_5.png"), r"traj_2 lacks state_5\.png.*numbered 0 to 11"),
        (remove("traj_2/states/state_0.png"), "traj_2 starts at frame 1; frames are numbered from 0|while"),
        (
            remove("traj_10/states/state_2.png"),
            "traj_10 has 2 frames and 3 actions; 1 actions are needed, or 2",
        ),
        (remove("traj_10/actions.npz"), r"traj_10 has no actions\.npz"),
        (replace_actions(np.zeros(1, np.int64)), "traj_10 has 3 frames and 1 actions"),
        (replace_actions(np.zeros(4, np.int64)), "traj_10 has 3 frames and 4 actions"),
        (replace_actions(np.zeros((2, 3))), r"shape \[3\] while .*traj_2.* has \[\]"),
        (replace_actions(np.array(["a", "b"])), "actions are numbers"),
        (replace_actions(np.array([np.nan, 0.0])), "not finite"),
        (replace_actions(np.array([-1, 0])), "whole numbers .n. from 0"),
        (replace_actions(np.array([10**6, 0])), "more than 4096"),
        (lambda root: np.savez(root / "traj_10" / "actions.npz", a=1, b=2), "name the one with the actions"),
        (put("traj_10/actions.npz", b"PK nonsense"), "not a readable npz"),
        (
            put("traj_10/states/state_1.png", b"\x89PNG\r\n\x1a\nnonsense"),
            r"state_1\.png is not a readable PNG",
        ),
        (put("traj_10/states/state_x.png", b""), "not named state_<number>"),
        (resize, r"state_1\.png is 9 x 9 px while the first frame is 4 x 6"),
        (twin, "have the same number"),
        (empty, "traj_10 has no frames"),
        (no_trajectories, "is of no known format"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence_and_no_cache_is_left(folder, tmp_path, damage, says):
    damage(folder)
    with pytest.raises(UserError, match=says) as caught:
        open_episodes(folder, cache_dir=tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists() or not list((tmp_path / "cache").iterdir())


def test_columns_of_whole_numbers_are_ambiguous(tmp_path):
    write_trajectory(tmp_path / "set" / "traj_0", 3, np.array([[0, 2], [1, 0]]))
    with pytest.raises(UserError, match="set the action kind"):
        open_episodes(tmp_path / "set", cache_dir=tmp_path / "cache")


def test_a_path_that_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        open_episodes(tmp_path / "nowhere")


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    root = tmp_path_factory.mktemp("fuzz")
    write_trajectory(root / "set" / "traj_0", 3, np.array([1, 0]))
    return root, {p: p.read_bytes() for p in sorted((root / "set").rglob("*")) if p.is_file()}


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_mutated_trajectory_files_give_a_user_error_or_episodes(damaged, data):
    root, contents = damaged
    shutil.rmtree(root / "cache", ignore_errors=True)
    for path, original in contents.items():
        path.write_bytes(original)
    path = data.draw(st.sampled_from(list(contents)))
    original = contents[path]
    place = data.draw(st.integers(0, len(original) - 1))
    drop = data.draw(st.sampled_from([0, 1, 1, 4, 50, 10**6]))
    path.write_bytes(original[:place] + data.draw(st.binary(max_size=4)) + original[place + drop :])
    try:
        episodes = open_episodes(root / "set", cache_dir=root / "cache")
    except UserError as error:
        message = str(error)
    else:
        message = ""
        assert episodes.frames.shape == (3, 3, 4, 6)
    assert "\n" not in message
