"""HDF5: what is written comes back, files of other tools are read, and damage is told in one sentence."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from jepa_world_model.core.errors import UserError
from jepa_world_model.data.sources import FORMATS, ReadOptions, WriteOptions, open_episodes
from tests.data.build import SPACES, assert_same, noisy_store

h5py = pytest.importorskip("h5py")
pytestmark = pytest.mark.extra


def columns(path, *, lengths=(5, 4), pixels=None, action=None, **more):
    """A file as stable-worldmodel records it: each column by h5py, one row a frame, a stale last action."""
    total = sum(lengths)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (total, 6, 8, 3), np.uint8) if pixels is None else pixels
    if action is None:
        action = rng.normal(size=(total, 2)).astype(np.float32)
        action[np.cumsum(lengths) - 1] = np.nan
    with h5py.File(path, "w", libver="latest") as file:
        for name, column in {"pixels": pixels, "action": action, **more}.items():
            file.create_dataset(name, data=column, chunks=(1, *column.shape[1:]))
        file["ep_len"] = np.array(lengths, np.int32)
        file["ep_offset"] = np.cumsum(lengths) - np.array(lengths)
    return path


def demonstrations(path, *, lengths=(5, 4), cameras=("agentview_image",)):
    """A file as robomimic keeps it."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = '{"env_name": "Lift", "type": 1}'
        for i, length in enumerate(lengths):
            demo = data.create_group(f"demo_{i}")
            demo.attrs["num_samples"] = length
            demo["actions"] = rng.uniform(-1, 1, (length, 7))
            demo["states"] = rng.normal(size=(length, 32))
            for camera in cameras:
                demo[f"obs/{camera}"] = rng.integers(0, 256, (length, 8, 8, 3), np.uint8)
            demo["obs/robot0_eef_pos"] = rng.normal(size=(length, 3))
            demo["next_obs/agentview_image"] = rng.integers(0, 256, (length, 8, 8, 3), np.uint8)
    return path


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("kind", SPACES)
def test_what_is_written_is_read_again_to_the_last_pixel(tmp_path, kind, channels):
    store = noisy_store(tmp_path / "store", kind=kind, channels=channels, states=channels != 1)
    FORMATS["hdf5"].write(store, tmp_path / "set.h5", WriteOptions())
    assert_same(open_episodes(tmp_path / "set.h5", cache_dir=tmp_path / "cache", verify=True), store)
    assert [p.name for p in tmp_path.glob(".*")] == []


def test_columns_of_stable_worldmodel_are_read_with_the_action_of_row_t_after_frame_t(tmp_path):
    state = np.arange(27, dtype=np.float64).reshape(9, 3)
    path = columns(tmp_path / "swm.h5", state=state, reward=np.zeros(9))
    episodes = open_episodes(path, cache_dir=tmp_path / "cache")
    with h5py.File(path) as file:
        np.testing.assert_array_equal(episodes.frames, file["pixels"][:].transpose(0, 3, 1, 2))
        rows = [0, 1, 2, 3, 5, 6, 7]
        np.testing.assert_array_equal(episodes.actions[episodes.transitions()], file["action"][:][rows])
    assert episodes.bounds.tolist() == [[0, 5], [5, 4]]
    assert episodes.space.kind == "continuous"
    np.testing.assert_array_equal(episodes.states, state)


def test_channels_may_come_first_and_the_columns_be_called_otherwise(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 3, 8, 8), np.uint8)
    path = columns(tmp_path / "set.hdf5", pixels=pixels, action=np.arange(9) % 3)
    episodes = open_episodes(tmp_path, cache_dir=tmp_path / "cache")  # the folder of the one file
    np.testing.assert_array_equal(episodes.frames, pixels)
    assert (episodes.space.kind, episodes.space.dim) == ("discrete", 3)
    with h5py.File(path, "a") as file:
        file.move("pixels", "images")
        file.move("action", "actions")
    assert len(open_episodes(path, cache_dir=tmp_path / "cache")) == 2


def test_demonstrations_of_robomimic_are_read_in_numeric_order(tmp_path):
    path = demonstrations(tmp_path / "lift.hdf5", lengths=tuple(range(3, 15)))
    episodes = open_episodes(path, ReadOptions(size=4), cache_dir=tmp_path / "cache")
    assert episodes.lengths.tolist() == list(range(3, 15))
    assert (episodes.space.kind, episodes.space.dim) == ("continuous", 7)
    assert episodes.frames.shape[1:] == (3, 4, 4)
    assert episodes.manifest["env"] == "Lift"
    whole = open_episodes(path, cache_dir=tmp_path / "cache")
    with h5py.File(path) as file:
        tenth = file["data/demo_10/obs/agentview_image"][:].transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(whole.frames[whole.bounds[10, 0] :][:13], tenth)


def test_of_several_cameras_one_is_chosen(tmp_path):
    path = demonstrations(tmp_path / "lift.hdf5", cameras=("agentview_image", "wrist"))
    with pytest.raises(UserError, match=r"several cameras, agentview_image, wrist; choose one"):
        open_episodes(path, cache_dir=tmp_path / "cache")
    with pytest.raises(UserError, match=r"no camera 'top'; it has agentview_image, wrist"):
        open_episodes(path, ReadOptions(camera="top"), cache_dir=tmp_path / "cache")
    assert len(open_episodes(path, ReadOptions(camera="wrist"), cache_dir=tmp_path / "cache")) == 2


def change(key, value=None):
    """A damage: a column of the file replaced, or taken out."""

    def damage(path):
        with h5py.File(path, "a") as file:
            del file[key]
            if value is not None:
                file[key] = value

    return damage


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut, "not a readable HDF5 file .*truncated"),
        (lambda path: path.write_bytes(b"nothing"), "not a readable HDF5 file"),
        (change("action"), "has no column action or actions; it holds ep_len"),
        (change("ep_len"), "expected pixels, action and ep_len"),
        (change("pixels"), "has no images"),
        (change("action", np.zeros((8, 2))), "9 frames and 8 rows of action"),
        (change("ep_len", [5, 5]), "do not fit its 9 frames"),
        (change("ep_len", [9, 0]), "do not fit"),
        (change("ep_offset", [0]), "do not fit"),
        (change("action", np.full((9, 2), np.nan)), "not finite"),
        (change("action", np.array([b"a"] * 9)), "actions are numbers"),
    ],
)
def test_a_damaged_file_of_columns_gives_one_sentence(tmp_path, damage, says):
    path = columns(tmp_path / "set.h5")
    damage(path)
    with pytest.raises(UserError, match=says) as caught:
        open_episodes(path, cache_dir=tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("cache/*"))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (change("data/demo_1/actions"), "data/demo_1 has no actions"),
        (change("data/demo_0/obs"), "data/demo_0 has no obs"),
        (change("data/demo_1/obs/agentview_image"), "no images 'agentview_image'"),
        (change("data/demo_1/actions", np.zeros((2, 7))), "demo_1 has 4 frames and 2 actions"),
        (change("data/demo_1/actions", np.zeros((4, 6))), r"shape \[6\] while .* has \[7\]"),
        (
            change("data/demo_1/obs/agentview_image", np.zeros((4, 9, 8, 3), np.uint8)),
            "9 x 8 px while the first",
        ),
        (change("data"), "expected pixels, action and ep_len, or data/demo_"),
    ],
)
def test_damaged_demonstrations_give_one_sentence(tmp_path, damage, says):
    path = demonstrations(tmp_path / "set.hdf5")
    damage(path)
    with pytest.raises(UserError, match=says):
        open_episodes(path, cache_dir=tmp_path / "cache")
    assert not list(tmp_path.glob("cache/*"))


def test_several_files_in_a_folder_are_not_guessed_among(tmp_path):
    columns(tmp_path / "a.h5")
    columns(tmp_path / "b.h5")
    with pytest.raises(UserError, match=r"a.h5, b.h5\); give the path of one"):
        open_episodes(tmp_path, cache_dir=tmp_path / "cache")


def test_without_h5py_the_extra_is_named(tmp_path, monkeypatch):
    path = columns(tmp_path / "set.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match=r"need the package `h5py`: pip install 'jepa-world-model\[data\]'"):
        open_episodes(path, cache_dir=tmp_path / "cache")


def test_an_existing_file_is_not_overwritten_and_the_name_must_tell_the_format(tmp_path):
    store = noisy_store(tmp_path / "store")
    (tmp_path / "set.h5").write_bytes(b"mine")
    with pytest.raises(UserError, match="not overwritten"):
        FORMATS["hdf5"].write(store, tmp_path / "set.h5", WriteOptions())
    assert (tmp_path / "set.h5").read_bytes() == b"mine"
    with pytest.raises(UserError, match=r"must end in \.h5"):
        FORMATS["hdf5"].write(store, tmp_path / "set", WriteOptions())
