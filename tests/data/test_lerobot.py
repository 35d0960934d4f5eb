"""LeRobot folders for the world model: lossless ones come back, foreign ones are read, what is not whole is refused."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from jepa_world_model.core.errors import UserError
from jepa_world_model.data.sources import FORMATS, ReadOptions, WriteOptions, detect, open_episodes
from tests.data.build import SPACES, assert_same, noisy_store

av = pytest.importorskip("av")
pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
pytestmark = pytest.mark.extra

LENGTHS = (4, 3, 5)
TOP, WRIST = "observation.images.top", "observation.images.wrist"


def foreign(folder):
    """A folder made with pyarrow and av alone: two video files with a gap between episodes, pictures of a second camera.

    Frame i of all is grey of level 10 i, which survives the codec within 2.
    """
    for part in ("meta/episodes/chunk-000", "data/chunk-000", f"videos/{TOP}/chunk-000"):
        (folder / part).mkdir(parents=True)
    count = sum(LENGTHS)
    level = lambda i: np.full((24, 32, 3), 10 * i, np.uint8)
    film(folder / f"videos/{TOP}/chunk-000/file-000.mp4", [level(i) for i in (0, 1, 2, 3, 20, 20, 4, 5, 6)])
    film(folder / f"videos/{TOP}/chunk-000/file-001.mp4", [level(i) for i in range(7, 12)])
    cells = []
    for i in range(count):
        out = io.BytesIO()
        Image.fromarray(level(i)[:16, :16]).save(out, "png")
        cells.append({"bytes": out.getvalue(), "path": None})
    rng = np.random.default_rng(0)
    episode = np.repeat(np.arange(3), LENGTHS)
    table = pa.table({
        "action": rng.normal(size=(count, 6)).astype(np.float32).tolist(),
        "observation.state": np.arange(2 * count, dtype=np.float32).reshape(count, 2).tolist(),
        WRIST: pa.array(cells, pa.struct({"bytes": pa.binary(), "path": pa.string()})),
        "index": np.arange(count), "episode_index": episode, "task_index": np.zeros(count, np.int64),
    })  # fmt: skip
    parquet.write_table(table.slice(7), folder / "data/chunk-000/file-001.parquet")
    parquet.write_table(table.slice(0, 7), folder / "data/chunk-000/file-000.parquet")
    episodes = {"episode_index": [0, 1, 2], "length": list(LENGTHS), "stats/action/mean": [[0.0] * 6] * 3}
    episodes |= {f"videos/{TOP}/{k}": v for k, v in {
        "chunk_index": [0, 0, 0], "file_index": [0, 0, 1], "from_timestamp": [0.0, 0.3, 0.0],
    }.items()}  # fmt: skip
    parquet.write_table(pa.table(episodes), folder / "meta/episodes/chunk-000/file-000.parquet")
    video = {"dtype": "video", "shape": [24, 32, 3], "names": ["height", "width", "channels"]}
    features = {TOP: video, WRIST: {**video, "dtype": "image"},
                "action": {"dtype": "float32", "shape": [6], "names": {"motors": list("abcdef")}},
                "observation.state": {"dtype": "float32", "shape": [2], "names": ["x", "y"]}}  # fmt: skip
    info = {"codebase_version": "v3.0", "robot_type": "so100", "fps": 20, "features": features,
            "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"}  # fmt: skip
    (folder / "meta/info.json").write_text(json.dumps(info))
    return folder


def film(path, frames):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=20)
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("states", [True, False])
def test_lossless_folders_come_back_to_the_last_pixel(tmp_path, kind, states):
    store = noisy_store(tmp_path / "store", kind=kind, states=states)
    FORMATS["lerobot"].write(store, tmp_path / "set", WriteOptions())
    assert detect(tmp_path / "set").name == "lerobot"
    assert_same(open_episodes(tmp_path / "set", cache_dir=tmp_path / "cache", verify=True), store)


def test_lossy_folders_differ_in_pixels_only_and_say_how_they_are_coded(tmp_path):
    store = noisy_store(tmp_path / "store")
    FORMATS["lerobot"].write(store, tmp_path / "set", WriteOptions(crf=20))
    found = open_episodes(tmp_path / "set", cache_dir=tmp_path / "cache")
    assert_same(found, store, pixels=60)
    assert (np.asarray(found.frames) != store.frames).any()
    info = json.loads((tmp_path / "set/meta/info.json").read_text())
    assert info["features"]["observation.images.frame"]["info"]["video.pix_fmt"] == "yuv420p"
    assert info["features"]["action"] == {"dtype": "int64", "shape": [1], "names": ["0"]}


def test_videos_are_cut_by_time_whichever_file_holds_them(tmp_path):
    episodes = open_episodes(foreign(tmp_path / "set"), ReadOptions(camera=TOP), cache_dir=tmp_path / "cache")
    levels = np.asarray(episodes.frames[:, 0, 12, 16]).astype(int)
    assert np.abs(levels - 10 * np.arange(12)).max() <= 2
    assert episodes.lengths.tolist() == list(LENGTHS)
    assert (episodes.space.kind, episodes.space.dim) == ("continuous", 6)
    assert episodes.state_names == ("x", "y")
    assert episodes.states[:, 0].tolist() == [2.0 * i for i in range(12)]
    assert (episodes.manifest["env"], episodes.manifest["camera"]) == ("so100", TOP)


def test_pictures_inside_the_table_are_exact(tmp_path):
    options = ReadOptions(camera=WRIST, size=8)
    episodes = open_episodes(foreign(tmp_path / "set"), options, cache_dir=tmp_path / "cache")
    assert episodes.frames[:, 0, 4, 4].tolist() == [10 * i for i in range(12)]


def test_of_several_cameras_one_is_chosen(tmp_path):
    with pytest.raises(UserError, match=rf"several cameras, {TOP}, {WRIST}; choose one with --data\.camera"):
        open_episodes(foreign(tmp_path / "set"), cache_dir=tmp_path / "cache")


def edit(path, **changes):
    def damage(folder):
        content = json.loads((folder / path).read_text()) | changes
        (folder / path).write_text(json.dumps({k: v for k, v in content.items() if v is not None}))

    return damage


def column(path, name, values):
    def damage(folder):
        table = parquet.read_table(folder / path)
        table = table.drop([name])
        parquet.write_table(table if values is None else table.append_column(name, values), folder / path)

    return damage


def half(path):
    return lambda folder: (folder / path).write_bytes((folder / path).read_bytes()[:300])


EPISODES, ROWS = "meta/episodes/chunk-000/file-000.parquet", "data/chunk-000/file-000.parquet"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (half(ROWS), "damaged parquet file"),
        (half(EPISODES), "damaged parquet file"),
        (half(f"videos/{TOP}/chunk-000/file-001.mp4"), r"file-001\.mp4 (cannot be decoded|holds no video)"),
        (lambda f: (f / f"videos/{TOP}/chunk-000/file-001.mp4").unlink(), r"file-001\.mp4 does not exist"),
        (lambda f: (f / EPISODES).unlink(), "a parquet folder is missing"),
        (lambda f: (f / "meta/info.json").write_text("{"), "info.json cannot be read"),
        (edit("meta/info.json", codebase_version="v2.1"), r"version v2\.1; only v3"),
        (edit("meta/info.json", fps=None), "lacks fps"),
        (edit("meta/info.json", fps=40), r"camera observation.images.top has \d frames, but episode"),
        (column(EPISODES, "length", pa.array([4, 3, 4])), "episodes have 11 rows, but its tables 12"),
        (column(EPISODES, f"videos/{TOP}/from_timestamp", None), "meta/episodes lacks"),
        (column(EPISODES, "length", None), "no column length"),
        (column(ROWS, "action", pa.array([[0.5] * 5] * 7)), "rows of action differ in length"),
        (column(ROWS, "action", pa.array([[0.5] * 5] * 7, pa.list_(pa.float32(), 5))), "tables have different columns"),
        (lambda f: [column(p, "action", None)(f) for p in (ROWS, ROWS.replace("file-000", "file-001"))],
         "has no column action; it has"),
    ],
)  # fmt: skip
def test_what_is_not_whole_gives_one_sentence(tmp_path, damage, says):
    damage(foreign(tmp_path / "set"))
    with pytest.raises(UserError, match=says) as caught:
        open_episodes(tmp_path / "set", ReadOptions(camera=TOP), cache_dir=tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("cache/*"))


def test_frames_that_are_no_rgb_are_refused(tmp_path):
    store = noisy_store(tmp_path / "store", channels=2)
    with pytest.raises(UserError, match="RGB pictures, not frames of 2 channels; use hdf5"):
        FORMATS["lerobot"].write(store, tmp_path / "set", WriteOptions())
