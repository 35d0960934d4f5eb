"""Minari: what is written comes back and opens in Minari, what Minari wrote is read, damage is told in one sentence."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

from jepa_world_model.core.errors import UserError
from jepa_world_model.data.sources import FORMATS, ReadOptions, WriteOptions, detect, open_episodes
from tests.data.build import SPACES, assert_same, noisy_store

minari = pytest.importorskip("minari")
pytest.importorskip("h5py")
from minari.data_collector import EpisodeBuffer  # noqa: E402

pytestmark = pytest.mark.extra
IMAGE = spaces.Box(0, 255, (32, 40, 3), np.uint8)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A function that has Minari write a data set; gives its folder and the arrays."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))

    def make(observation_space=IMAGE, action_space=None, lengths=(4, 2), **more):
        action_space = action_space or spaces.Box(-1, 2, (3,), np.float32)
        observation_space.seed(0)
        action_space.seed(0)
        draw = lambda space, n: [space.sample() for _ in range(n)]
        buffers = []
        for n in lengths:
            seen = draw(observation_space, n + 1)
            if isinstance(observation_space, spaces.Dict):
                seen = {key: np.stack([o[key] for o in seen]) for key in observation_space.spaces}
            flags = [False] * n
            buffers.append(EpisodeBuffer(observations=seen, actions=draw(action_space, n), rewards=[0.0] * n,
                                         terminations=flags, truncations=flags))  # fmt: skip
        minari.create_dataset_from_buffers("toy/made-v0", buffers, observation_space=observation_space,
                                           action_space=action_space, algorithm_name="draw", author="a",
                                           author_email="a@b.c", code_permalink="none", **more)  # fmt: skip
        return tmp_path / "toy" / "made-v0", buffers

    return make


@pytest.mark.filterwarnings("ignore")  # Minari warns of metadata that nobody asked for
@pytest.mark.parametrize("format", ["hdf5", "arrow", "parquet"])
def test_what_minari_wrote_is_read_whichever_format_it_chose(made, tmp_path, format):
    path, buffers = made(data_format=format, jpeg_encoding=False)
    assert detect(path).name == "minari"
    episodes = open_episodes(path, cache_dir=tmp_path / "cache")
    wanted = np.concatenate([np.stack(b.observations) for b in buffers]).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(episodes.frames, wanted)
    assert episodes.lengths.tolist() == [5, 3]
    np.testing.assert_array_equal(
        episodes.actions[episodes.transitions()], np.concatenate([b.actions for b in buffers])
    )
    assert (episodes.space.low, episodes.space.high) == ((-1.0,) * 3, (2.0,) * 3)
    assert (episodes.manifest["env"], episodes.manifest["policy"]) == ("toy/made-v0", "draw")


@pytest.mark.filterwarnings("ignore")
def test_dictionaries_of_observations_and_jpeg_images_are_read(made, tmp_path):
    space = spaces.Dict(pixels=IMAGE, state=spaces.Box(-1, 1, (2,), np.float32), view=IMAGE)
    path, buffers = made(space, spaces.Discrete(3, start=1))
    with pytest.raises(UserError, match="several cameras, pixels, view"):
        open_episodes(path, cache_dir=tmp_path / "cache")
    episodes = open_episodes(path / "data", ReadOptions(camera="view", size=16), cache_dir=tmp_path / "cache")
    assert episodes.frames.shape == (8, 3, 16, 16)
    assert (episodes.space.kind, episodes.space.dim) == ("discrete", 3)
    assert episodes.actions[0] == buffers[0].actions[0] - 1
    np.testing.assert_array_equal(episodes.states[:5], buffers[0].observations["state"])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", SPACES)
def test_what_is_written_comes_back_to_the_last_pixel(tmp_path, kind, channels):
    store = noisy_store(tmp_path / "store", kind=kind, channels=channels, states=channels == 3)
    FORMATS["minari"].write(store, tmp_path / "set", WriteOptions())
    assert_same(open_episodes(tmp_path / "set", cache_dir=tmp_path / "cache", verify=True), store)


def test_what_is_written_opens_in_minari(tmp_path, monkeypatch):
    store = noisy_store(tmp_path / "store")
    monkeypatch.chdir(tmp_path)
    FORMATS["minari"].write(store, Path("set-v3"), WriteOptions())  # by a relative path, as one types it
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    loaded = minari.load_dataset("set-v3")
    assert (loaded.total_episodes, loaded.total_steps) == (3, 14)
    first = next(iter(loaded.iterate_episodes()))
    np.testing.assert_array_equal(first.observations["pixels"].transpose(0, 3, 1, 2), store.frames[:9])
    np.testing.assert_array_equal(first.actions, store.actions[:8])


def test_images_may_be_written_smaller_and_lossy(tmp_path):
    store = noisy_store(tmp_path / "store")
    FORMATS["minari"].write(store, tmp_path / "set", WriteOptions(crf=18))
    found = open_episodes(tmp_path / "set", cache_dir=tmp_path / "cache")
    assert_same(found, store, pixels=60)
    assert (np.asarray(found.frames) != store.frames).any()


def edit(**changes):
    def damage(path):
        file = path / "data" / "metadata.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return damage


def cut(path):
    file = path / "data" / "main_data.hdf5"
    file.write_bytes(file.read_bytes()[:-500])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut, "not a readable Minari data set .*truncated"),
        (lambda path: (path / "data" / "main_data.hdf5").unlink(), "not a readable Minari data set"),
        (edit(total_episodes=9), "not a readable Minari data set"),
        (edit(action_space='{"type": "Box"}'), "not a readable Minari data set"),
        (edit(jepa_wm_origin="{}"), "jepa_wm_origin cannot be read"),
        (lambda path: (path / "data" / "metadata.json").write_text("{"), "no known format"),
    ],
)
def test_damage_gives_one_sentence(tmp_path, damage, says):
    FORMATS["minari"].write(noisy_store(tmp_path / "store"), tmp_path / "set", WriteOptions())
    damage(tmp_path / "set")
    with pytest.raises(UserError, match=says) as caught:
        open_episodes(tmp_path / "set", cache_dir=tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("cache/*"))


@pytest.mark.filterwarnings("ignore")
def test_observations_without_images_and_actions_without_bounds_are_refused(made, tmp_path):
    path, _ = made(spaces.Box(-1, 1, (4,), np.float32))
    with pytest.raises(UserError, match="has no images, and a world model needs frames"):
        open_episodes(path, cache_dir=tmp_path / "cache")
    with pytest.raises(UserError, match=r"no Minari data set: it has no data/metadata\.json"):
        open_episodes(tmp_path, ReadOptions(format="minari"), cache_dir=tmp_path / "cache")


def test_mismatched_lengths_are_told(tmp_path):
    import h5py

    FORMATS["minari"].write(noisy_store(tmp_path / "store"), tmp_path / "set", WriteOptions())
    with h5py.File(tmp_path / "set/data/main_data.hdf5", "a") as file:
        del file["episode_2/actions"]
        file["episode_2/actions"] = np.zeros(3, np.int64)
    with pytest.raises(UserError, match=r"episode 2 has 6 frames and 3 actions; 5 actions are needed"):
        open_episodes(tmp_path / "set", cache_dir=tmp_path / "cache")
    with h5py.File(tmp_path / "set/data/main_data.hdf5", "a") as file:
        del file["episode_2/actions"]
        file["episode_2/actions"] = np.zeros((5, 2), np.int64)
    with pytest.raises(
        UserError, match=r"episode 2 has actions of 2 numbers; this data set has discrete ones"
    ):
        open_episodes(tmp_path / "set", cache_dir=tmp_path / "cache")


def test_without_minari_the_extra_is_named(tmp_path, monkeypatch):
    FORMATS["minari"].write(noisy_store(tmp_path / "store"), tmp_path / "set", WriteOptions())
    for name in [n for n in sys.modules if n.split(".")[0] == "minari"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r"need the package `minari`: pip install 'jepa-world-model\[data\]'"):
        open_episodes(tmp_path / "set", cache_dir=tmp_path / "cache")
