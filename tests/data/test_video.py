"""Videos with action tables: lossless ones come back to the last pixel, foreign ones are read, mismatches are told."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from jepa_world_model.core.errors import UserError
from jepa_world_model.data.sources import FORMATS, ReadOptions, WriteOptions, open_episodes
from tests.data.build import SPACES, assert_same, noisy_store

av = pytest.importorskip("av")
pa = pytest.importorskip("pyarrow")
pytestmark = pytest.mark.extra


def film(path, count, *, size=(24, 32)):
    """A video made with av alone: frame i is grey of level 8 i, which survives the codec within 2."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        for i in range(count):
            picture = np.full((*size, 3), 8 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("states", [True, False])
def test_lossless_videos_come_back_to_the_last_pixel(tmp_path, kind, states):
    store = noisy_store(tmp_path / "store", kind=kind, states=states, size=(33, 32))
    FORMATS["video"].write(store, tmp_path / "set", WriteOptions())
    assert_same(open_episodes(tmp_path / "set", cache_dir=tmp_path / "cache", verify=True), store)
    assert {p.suffix for p in (tmp_path / "set").iterdir()} == {".mp4", ".csv", ".json"}


def test_lossy_videos_differ_in_pixels_only(tmp_path):
    store = noisy_store(tmp_path / "store")
    FORMATS["video"].write(store, tmp_path / "set", WriteOptions(crf=23))
    found = open_episodes(tmp_path / "set", cache_dir=tmp_path / "cache")
    assert_same(found, store, pixels=60)  # noise is the worst there is
    assert (np.asarray(found.frames) != store.frames).any()


def test_a_table_beside_each_video_is_read_whoever_wrote_it(tmp_path):
    film(tmp_path / "run_2.mp4", 5)
    film(tmp_path / "run_10.mp4", 4)
    (tmp_path / "run_2.csv").write_text(
        "frame,action_x,action_y,reward\n0,0.5,-1,0\n1,1,0,0\n2,0,0,1\n3,0.25,2,0\n"
    )
    pa.parquet = pytest.importorskip("pyarrow.parquet")
    table = pa.table({"action": [[0.5, 1.0]] * 4, "state": [[1.0, 2.0, 3.0]] * 4, "note": ["x"] * 4})
    pa.parquet.write_table(table, tmp_path / "run_10.parquet")
    episodes = open_episodes(tmp_path, cache_dir=tmp_path / "cache")
    assert episodes.lengths.tolist() == [5, 4]
    assert episodes.actions[:4].tolist() == [[0.5, -1], [1, 0], [0, 0], [0.25, 2]]
    levels = np.asarray(episodes.frames[:, 0, 12, 16]).astype(int)
    assert np.abs(levels - [0, 8, 16, 24, 32, 0, 8, 16, 24]).max() <= 2
    assert episodes.states is None  # only one of the two tells it


def test_one_table_may_serve_all_videos(tmp_path):
    for name in ("a", "b"):
        film(tmp_path / f"{name}.mp4", 3)
    (tmp_path / "actions.csv").write_text("video,action\na.mp4,0\na.mp4,1\nb,2\nb,0\nb,\n")
    episodes = open_episodes(tmp_path, ReadOptions(size=16, fit="crop"), cache_dir=tmp_path / "cache")
    assert (episodes.space.kind, episodes.space.dim) == ("discrete", 3)
    assert episodes.actions[episodes.transitions()].tolist() == [0, 1, 2, 0]
    assert episodes.frames.shape == (6, 3, 16, 16)


def test_whole_valued_floats_stay_continuous_and_parquet_nulls_are_empty_cells(tmp_path):
    film(tmp_path / "a.mp4", 3)
    (tmp_path / "a.csv").write_text("action\n1.0\n0.0\n\n")
    assert open_episodes(tmp_path, cache_dir=tmp_path / "cache").space.kind == "continuous"
    (tmp_path / "a.csv").unlink()
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({"action": pa.array([1, 0, None])}), tmp_path / "a.parquet")
    assert open_episodes(tmp_path, cache_dir=tmp_path / "cache").space.kind == "discrete"


def test_a_single_file_is_an_episode(tmp_path):
    film(tmp_path / "a.mp4", 4)
    (tmp_path / "a.csv").write_text("action\n1\n0\n1\n")
    assert open_episodes(tmp_path / "a.mp4", cache_dir=tmp_path / "cache").lengths.tolist() == [4]


def text(name, content):
    return lambda folder: (folder / name).write_text(content)


def half(name):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:400])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (text("a.csv", "action\n1\n0\n"), "a.mp4 has 4 frames and 2 actions; 3 actions are needed, or 4"),
        (
            text("a.csv", "action,state\n1,0\n0,1\n1,2\n"),
            "a.mp4 has 4 frames and 3 states; each frame needs one",
        ),
        (text("a.csv", "speed\n1\n0\n1\n"), "no column that begins with action; its columns are speed"),
        (text("a.csv", "action\nleft\nright\nleft\n"), "column action holds text"),
        (text("a.csv", "action\n1,2\n"), "line 2: 2 cells, but the head has 1"),
        (text("a.csv", "action\n"), "has no rows"),
        (text("a.csv", ""), "has no rows"),
        (text("a.csv", "action\n0.5\n\x00\n"), "a.csv"),
        (text("a.csv", "action_x,action_y\n1,2\n0.5,1\n1,1\n"), r"shape \[\] while .*a.mp4 has \[2\]"),
        (text("a.csv", "action\n0.5\nnan\n1\n"), "not finite"),
        (text("a.csv", 'action\n1\n""\n1\n'), "empty cell in row 2"),
        (text("a.parquet", "PAR1 nonsense"), "two tables; keep one"),
        (lambda folder: (folder / "a.csv").unlink(), "a.mp4 has no table: expected a.csv"),
        (lambda folder: (folder / "a.csv").rename(folder / "actions.csv"), "needs a column video"),
        (lambda folder: (folder / "a.csv").rename(folder / "a.parquet"), "not a readable parquet table"),
        (text("actions.csv", "video,action\nb.mp4,1\n"), "b.mp4"),
        (half("a.mp4"), "a.mp4 (cannot be decoded|holds no video)"),
        (
            lambda folder: film(folder / "a.mp4", 4, size=(16, 16)),
            "24 x 32 px while the first frame is 16 x 16",
        ),
    ],
)
def test_what_does_not_fit_gives_one_sentence(tmp_path, damage, says):
    folder = tmp_path / "set"
    folder.mkdir()
    film(folder / "a.mp4", 4)
    film(folder / "b.mp4", 2)
    (folder / "a.csv").write_text("action\n1\n0\n1\n")
    (folder / "b.csv").write_text("action\n1\n")
    damage(folder)
    if "each frame" in says:
        (folder / "b.csv").write_text("action,state\n1,0\n")
    if says == "b.mp4":  # its own table wins over the common one
        assert len(open_episodes(folder, cache_dir=tmp_path / "cache")) == 2
        return
    with pytest.raises(UserError, match=says) as caught:
        open_episodes(folder, cache_dir=tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("cache/*"))


def test_a_common_table_must_name_every_video(tmp_path):
    for name in ("a", "b"):
        film(tmp_path / f"{name}.mp4", 2)
    (tmp_path / "actions.csv").write_text("video,action\nb.mp4,1\n")
    with pytest.raises(UserError, match=r"no rows whose video is a\.mp4"):
        open_episodes(tmp_path, cache_dir=tmp_path / "cache")


def test_missing_packages_and_impossible_frames_are_named(tmp_path, monkeypatch):
    film(tmp_path / "a.mp4", 3)
    (tmp_path / "a.csv").write_text("action\n1\n0\n")
    store = noisy_store(tmp_path / "store", channels=2)
    with pytest.raises(UserError, match="RGB pictures, not frames of 2 channels"):
        FORMATS["video"].write(store, tmp_path / "out", WriteOptions())
    with pytest.raises(UserError, match="use 0 for lossless"):
        WriteOptions(crf=99)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"need the package `av`: pip install 'jepa-world-model\[data\]'"):
        open_episodes(tmp_path / "a.mp4", cache_dir=tmp_path / "cache")
