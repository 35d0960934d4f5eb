"""Converting: every pair of formats comes back equal, losses are measured and said, errors leave nothing."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from jepa_world_model.core.errors import UserError
from jepa_world_model.data.sources import FORMATS, ReadOptions, WriteOptions, open_episodes
from jepa_world_model.data.sources import convert as module
from jepa_world_model.data.sources.convert import convert
from tests.data.build import assert_same, noisy_store

for package in ("h5py", "minari", "pyarrow", "av"):
    pytest.importorskip(package)
pytestmark = pytest.mark.extra
NAMES = {name: f"set-{name}" + (".h5" if name == "hdf5" else "") for name in FORMATS}
PLAIN = (ReadOptions(), WriteOptions())


@pytest.mark.parametrize("to", [n for n in FORMATS if n != "store"])
def test_there_and_back_again_is_equal(tmp_path, to):
    store = noisy_store(tmp_path / "store")
    there = convert(tmp_path / "store", tmp_path / NAMES[to], to, *PLAIN)
    assert (there.source, there.target, there.lossless) == ("store", to, True)
    convert(tmp_path / NAMES[to], tmp_path / "back", "store", *PLAIN)
    assert_same(open_episodes(tmp_path / "back", verify=True), store)
    assert not list(tmp_path.glob(".*"))


def test_one_round_through_all_formats_is_equal(tmp_path):
    store = noisy_store(tmp_path / "set-store", kind="continuous")
    for one, two in itertools.pairwise(FORMATS):
        convert(tmp_path / NAMES[one], tmp_path / NAMES[two], two, *PLAIN)
    last = NAMES[list(FORMATS)[-1]]
    assert_same(open_episodes(tmp_path / last, cache_dir=tmp_path / "cache"), store)


def test_resizing_on_the_way_is_the_resizing_of_training(tmp_path):
    noisy_store(tmp_path / "store", size=(16, 32))
    read = ReadOptions(size=12, fit="crop")
    convert(tmp_path / "store", tmp_path / "small.h5", "hdf5", read, WriteOptions())
    wanted = open_episodes(tmp_path / "store", read, cache_dir=tmp_path / "cache")
    assert_same(open_episodes(tmp_path / "small.h5", cache_dir=tmp_path / "cache"), wanted)


@pytest.mark.parametrize("to", ["video", "lerobot", "minari"])
def test_losses_are_measured(tmp_path, to):
    noisy_store(tmp_path / "store")
    made = convert(tmp_path / "store", tmp_path / "set", to, ReadOptions(), WriteOptions(crf=23))
    assert not made.lossless
    assert 0 < made.mean_error < made.max_error


def test_a_format_that_loses_pixels_unasked_is_caught(tmp_path, monkeypatch):
    noisy_store(tmp_path / "store")
    monkeypatch.setattr(module, "read_back", lambda *args: (0.5, 3))
    with pytest.raises(UserError, match="did not read back equal"):
        convert(tmp_path / "store", tmp_path / "set.h5", "hdf5", *PLAIN)
    assert not (tmp_path / "set.h5").exists()


def test_actions_that_come_back_otherwise_are_caught(tmp_path):
    store = noisy_store(tmp_path / "store")
    FORMATS["hdf5"].write(store, tmp_path / "set.h5", WriteOptions())
    import h5py

    with h5py.File(tmp_path / "set.h5", "a") as file:
        file["action"][0] = 2 - file["action"][0]
        file["action"][1] = (file["action"][1] + 1) % 3
    with pytest.raises(UserError, match="does not read back with the same frames and actions"):
        module.read_back(FORMATS["hdf5"], tmp_path / "set.h5", store)


def test_what_cannot_be_converted_leaves_nothing(tmp_path):
    noisy_store(tmp_path / "store", channels=2)
    for to in ("trajectories", "video", "lerobot"):
        with pytest.raises(UserError, match="RGB pictures"):
            convert(tmp_path / "store", tmp_path / "set", to, *PLAIN)
    (tmp_path / "bad.h5").write_bytes(b"nothing")
    with pytest.raises(UserError, match="not a readable HDF5 file"):
        convert(tmp_path / "bad.h5", tmp_path / "set", "video", *PLAIN)
    with pytest.raises(UserError, match="not overwritten"):
        convert(tmp_path / "store", tmp_path / "bad.h5", "hdf5", *PLAIN)
    with pytest.raises(UserError, match="there is no data format 'zarr'"):
        convert(tmp_path / "store", tmp_path / "set", "zarr", *PLAIN)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.h5", "store"]


def test_every_episode_of_wrong_length_is_counted(tmp_path):
    store = noisy_store(tmp_path / "store")
    FORMATS["trajectories"].write(store, tmp_path / "set", WriteOptions())
    for name in ("traj_0", "traj_2"):
        np.savez(tmp_path / "set" / name / "actions.npz", actions=np.zeros(3, np.int64))
    with pytest.raises(
        UserError, match=r"traj_0 has 9 frames and 3 actions; .* \(and so 1 more of 3 episodes\)"
    ):
        convert(tmp_path / "set", tmp_path / "x.h5", "hdf5", *PLAIN)
