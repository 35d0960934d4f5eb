"""Opening: the format is found from the files, asked for by name, and every format goes through one store."""

from __future__ import annotations

import numpy as np
import pytest

from jepa_world_model.core.errors import UserError
from jepa_world_model.data.sources import FORMATS, ReadOptions, WriteOptions, detect, open_episodes
from jepa_world_model.data.store import open_store
from tests.data.build import SPACES, assert_same, noisy_store


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("states", [True, False])
def test_trajectory_folders_come_back_to_the_last_pixel(tmp_path, kind, states):
    store = noisy_store(tmp_path / "store", kind=kind, states=states, lengths=(3,) * 11)
    FORMATS["trajectories"].write(store, tmp_path / "set", WriteOptions())
    assert_same(open_episodes(tmp_path / "set", cache_dir=tmp_path / "cache", verify=True), store)


def test_a_store_is_mapped_where_it_is_and_copied_with_all_that_is_known(tmp_path):
    store = noisy_store(tmp_path / "store")
    found = open_episodes(tmp_path / "store", cache_dir=tmp_path / "cache")
    assert found.frames.filename == tmp_path / "store" / "frames.npy"
    FORMATS["store"].write(store, tmp_path / "copy", WriteOptions())
    assert_same(open_store(tmp_path / "copy", verify=True), store)


def test_a_store_of_another_size_is_resized_into_the_cache(tmp_path):
    store = noisy_store(tmp_path / "store", size=(16, 32))
    small = open_episodes(tmp_path / "store", ReadOptions(size=8, fit="crop"), cache_dir=tmp_path / "cache")
    assert small.frames.shape == (17, 3, 8, 8)
    assert small.space == store.space
    np.testing.assert_array_equal(small.states, store.states)
    assert (small.manifest["size"], small.manifest["fit"], small.manifest["note"]) == (8, "crop", "hand-made")
    again = open_episodes(tmp_path / "store", ReadOptions(size=8, fit="crop"), cache_dir=tmp_path / "cache")
    assert again.frames.filename == small.frames.filename
    bars = open_episodes(tmp_path / "store", ReadOptions(size=8), cache_dir=tmp_path / "cache")
    assert (np.asarray(bars.frames)[:, :, :2] == 0).all()


def test_a_folder_that_could_be_two_things_asks_which(tmp_path):
    noisy_store(tmp_path / "set")
    (tmp_path / "set" / "traj_0").mkdir()
    with pytest.raises(UserError, match=r"looks like store and trajectories; say which with --data\.format"):
        detect(tmp_path / "set")
    assert detect(tmp_path / "set", "store").name == "store"


def test_what_is_no_data_set_is_refused_with_what_would_be_one(tmp_path):
    with pytest.raises(UserError, match=r"no known format; .*\(store\); .*\(trajectories\); .*\(hdf5\)"):
        detect(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        detect(tmp_path / "nowhere", "hdf5")
    with pytest.raises(UserError, match=r"there is no data format 'hdf'; did you mean 'hdf5'"):
        detect(tmp_path, "hdf")


def test_cameras_of_formats_without_any_are_refused(tmp_path):
    store = noisy_store(tmp_path / "store")
    FORMATS["trajectories"].write(store, tmp_path / "set", WriteOptions())
    for name in ("store", "set"):
        with pytest.raises(UserError, match="no cameras to choose from"):
            open_episodes(tmp_path / name, ReadOptions(camera="top"), cache_dir=tmp_path / "cache")


def test_trajectory_folders_refuse_what_no_picture_can_hold(tmp_path):
    store = noisy_store(tmp_path / "store", channels=2)
    with pytest.raises(UserError, match="RGB pictures, not frames of 2 channels"):
        FORMATS["trajectories"].write(store, tmp_path / "set", WriteOptions())
    assert not (tmp_path / "set").exists()


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    store = noisy_store(tmp_path / "store")

    def full(*args, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(UserError, match=r"No space left on device.*nothing was left"):
        FORMATS["trajectories"].write(store, tmp_path / "set", WriteOptions())
    assert [p.name for p in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize("options", [{"size": -1}, {"fit": "stretch"}, {"action_kind": "analog"}])
def test_impossible_options_are_refused(options):
    with pytest.raises(UserError):
        ReadOptions(**options)
