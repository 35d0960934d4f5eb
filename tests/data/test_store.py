from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jepa_world_model.core.errors import UserError
from jepa_world_model.data import ActionSpace
from jepa_world_model.data.store import StoreWriter, from_arrays, open_store, write_arrays, write_once

from .build import make_episodes

SPACES = [
    ActionSpace(kind="discrete", dim=3, names=("rest", "left", "right"), noop=0),
    ActionSpace(kind="multi_binary", dim=4),
    ActionSpace(kind="continuous", dim=2, low=(-1.0, -2.0), high=(1.0, 3.0)),
]


def arrays_of(episodes):
    return {
        "frames": episodes.frames,
        "actions": episodes.actions,
        "states": episodes.states,
        "bounds": episodes.bounds,
        "action_space": episodes.space.to_json(),
        "state_names": episodes.state_names,
    }


def write(out, **options):
    return write_arrays(out, arrays_of(make_episodes(**options)), env="hand", seed=7, policy="fixed")


@pytest.mark.parametrize("states", [True, False])
@pytest.mark.parametrize("space", SPACES, ids=lambda s: s.kind)
def test_what_is_written_is_read_again(tmp_path, space, states):
    given = make_episodes(space=space, states=states)
    read = open_store(write(tmp_path / "set", space=space, states=states), verify=True)
    assert isinstance(read.frames, np.memmap)
    np.testing.assert_array_equal(read.frames, given.frames)
    rows = given.transitions()
    np.testing.assert_array_equal(read.actions[rows], given.actions[rows])
    assert read.actions.dtype == space.raw_dtype
    np.testing.assert_array_equal(read.bounds, given.bounds)
    assert (read.space, read.state_names, read.name) == (space, given.state_names, "set")
    if states:
        np.testing.assert_array_equal(read.states, given.states)
    else:
        assert read.states is None


def test_the_manifest_tells_where_the_data_came_from(tmp_path):
    manifest = json.loads((write(tmp_path / "set") / "manifest.json").read_text())
    assert (manifest["env"], manifest["seed"], manifest["policy"]) == ("hand", 7, "fixed")
    assert manifest["episodes"] == [[0, 5], [5, 3], [8, 8]]
    assert set(manifest["sha256"]) == {"frames", "actions", "states"}
    assert manifest["frame_shape"] == [3, 4, 4]


def test_the_arrays_are_plain_npy_files(tmp_path):
    folder = write(tmp_path / "set")
    np.testing.assert_array_equal(np.load(folder / "frames.npy"), make_episodes().frames)


def test_padding_rows_are_zero_so_the_hash_depends_on_data_alone(tmp_path):
    episodes = make_episodes()
    last = episodes.bounds.sum(1) - 1
    one = write(tmp_path / "one")
    episodes.actions[last] = 2
    two = write_arrays(tmp_path / "two", arrays_of(episodes), env="", seed=0, policy="")
    hashes = [json.loads((f / "manifest.json").read_text())["sha256"] for f in (one, two)]
    assert hashes[0] == hashes[1]


def test_episodes_from_arrays_need_no_file():
    episodes = from_arrays(arrays_of(make_episodes()))
    np.testing.assert_array_equal(episodes.frames, make_episodes().frames)


def test_an_existing_folder_is_never_overwritten(tmp_path):
    folder = write(tmp_path / "set")
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(UserError, match="already exists and is not overwritten"):
        write(tmp_path / "set", lengths=(4,))
    assert (folder / "manifest.json").read_bytes() == before


def test_an_interrupted_writer_leaves_nothing(tmp_path):
    writer = StoreWriter(tmp_path / "set", frame_shape=(3, 4, 4), space=SPACES[0])
    with pytest.raises(ZeroDivisionError), writer:
        writer.add(np.zeros((3 // 0, 3, 4, 4), np.uint8), np.zeros(2, np.int64))
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_lost_the_race_leaves_the_winner_alone(tmp_path):
    writer = StoreWriter(tmp_path / "set", frame_shape=(3, 4, 4), space=SPACES[0])
    writer.__enter__()
    writer.add(np.zeros((3, 3, 4, 4), np.uint8), np.zeros(2, np.int64))
    write(tmp_path / "set")
    with pytest.raises(UserError, match="made by somebody else meanwhile"):
        writer.__exit__(None, None, None)
    assert len(open_store(tmp_path / "set", verify=True)) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_of_two_processes_that_make_the_same_store_the_first_wins(tmp_path):
    calls = []

    def other_process_is_faster():
        calls.append(1)
        write(tmp_path / "set")
        write(tmp_path / "set", lengths=(4,))

    write_once(tmp_path / "set", other_process_is_faster)
    write_once(tmp_path / "set", other_process_is_faster)
    assert calls == [1]
    assert len(open_store(tmp_path / "set")) == 3
    (tmp_path / "taken").mkdir()
    with pytest.raises(UserError, match="already exists"):
        write_once(tmp_path / "taken", lambda: write(tmp_path / "taken"))


def test_a_full_disk_is_said_before_and_while_writing(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 5))
        with pytest.raises(UserError, match=r"needs 0\.0 GB"):
            write(tmp_path / "set")

    def no_space(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(UserError, match="No space left on device"):
        write(tmp_path / "set")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("frames", "actions", "says"),
    [
        (np.zeros((4, 3, 4, 4), np.uint8), np.zeros(2, np.int64), "2 actions for 4 frames; give 3, or 4"),
        (np.zeros((4, 3, 4, 4), np.uint8), np.zeros(5, np.int64), "5 actions for 4 frames"),
        (np.zeros((4, 3, 4, 4), np.uint8), np.full(3, 9), "value 9"),
        (np.zeros((4, 3, 8, 8), np.uint8), np.zeros(3, np.int64), "this store holds"),
    ],
)
def test_an_episode_that_does_not_fit_is_refused(tmp_path, frames, actions, says):
    with (
        pytest.raises(ValueError, match=says),
        StoreWriter(tmp_path / "set", frame_shape=(3, 4, 4), space=SPACES[0]) as writer,
    ):
        writer.add(frames, actions)
    assert list(tmp_path.iterdir()) == []


def test_a_writer_without_episodes_makes_no_data_set(tmp_path):
    with (
        pytest.raises(UserError, match="no episode was written"),
        StoreWriter(tmp_path / "set", frame_shape=(3, 4, 4), space=SPACES[0]),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_file_names_itself_and_the_expected_size(tmp_path):
    folder = write(tmp_path / "set")
    data = (folder / "frames.npy").read_bytes()
    (folder / "frames.npy").write_bytes(data[:-1])
    with pytest.raises(UserError, match=rf"frames.npy is {len(data) - 1} bytes long, expected {len(data)}"):
        open_store(folder)


def test_an_altered_byte_is_found_when_asked_for(tmp_path):
    folder = write(tmp_path / "set")
    data = bytearray((folder / "frames.npy").read_bytes())
    data[-1] ^= 1
    (folder / "frames.npy").write_bytes(data)
    open_store(folder)
    with pytest.raises(UserError, match=r"frames\.npy was altered"):
        open_store(folder, verify=True)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": "other"}, "not the manifest of a data set"),
        ({"format_version": 99}, "this program reads 1"),
        ({"episodes": [[0, 5]]}, "do not add up"),
        ({"episodes": "many"}, "cannot be read"),
        ({"action_space": {"kind": "discrete"}}, "lacks"),
        ({"frame_shape": [3, 4, 5]}, r"the manifest says \|u1 \[16, 3, 4, 5\]"),
        ({"num_frames": None}, "cannot be read"),
    ],
)
def test_a_wrong_manifest_is_said(tmp_path, changes, says):
    path = write(tmp_path / "set") / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(UserError, match=says):
        open_store(path.parent)


@pytest.mark.parametrize("name", ["frames.npy", "actions.npy", "states.npy", "manifest.json"])
def test_a_missing_file_is_named(tmp_path, name):
    folder = write(tmp_path / "set")
    (folder / name).unlink()
    with pytest.raises(UserError, match=name):
        open_store(folder)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = write(tmp_path_factory.mktemp("fuzz") / "set")
    return folder, {p.name: p.read_bytes() for p in folder.iterdir()}


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(["frames.npy", "actions.npy", "states.npy", "manifest.json"]),
    place=st.one_of(st.integers(0, 300), st.integers(0, 5000)),
    new=st.binary(min_size=0, max_size=4),
    drop=st.integers(0, 40),
)
def test_a_mutated_file_gives_a_user_error_or_the_same_frames(stored, name, place, new, drop):
    folder, contents = stored
    for file, data in contents.items():
        (folder / file).write_bytes(data)
    data = contents[name]
    place %= len(data)
    Path(folder / name).write_bytes(data[:place] + new + data[place + drop :])
    try:
        read = open_store(folder, verify=True)
    except UserError as error:
        message = str(error)
    else:
        message = ""
        np.testing.assert_array_equal(read.frames, make_episodes().frames)
        np.testing.assert_array_equal(read.states, make_episodes().states)
    assert "\n" not in message
