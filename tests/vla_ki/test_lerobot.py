"""LeRobot folders: what is written is read, foreign layouts are read, and what is not whole is refused."""

from __future__ import annotations

import dataclasses
import io
import json

import numpy as np
import pytest

from jepa_world_model.core.errors import UserError

pytest.importorskip("pyarrow")
pytest.importorskip("av")

import pyarrow as pa
import pyarrow.parquet as parquet

from jepa_world_model.vla_ki import arm, lerobot
from jepa_world_model.vla_ki.build import make_arm_data
from jepa_world_model.vla_ki.config import KIDataConfig
from jepa_world_model.vla_ki.lerobot import RobotData, read_lerobot, write_lerobot

pytestmark = pytest.mark.extra
CAMERA = "observation.images.top"


def demonstrations(lengths: tuple[int, ...] = (7, 12, 5)) -> RobotData:
    rng = np.random.default_rng(0)
    n = sum(lengths)
    scenes = arm.sample_scenes(rng, n)
    starts = np.cumsum(lengths) - lengths
    return RobotData(
        name="toy",
        fps=10.0,
        tasks=("reach the red target", "reach the blue target"),
        bounds=np.stack([starts, lengths], 1),
        states=rng.normal(size=(n, 3)).astype(np.float32),
        actions=rng.normal(size=(n, 2)).astype(np.float32),
        task=np.repeat([0, 1, 0], lengths),
        cameras={CAMERA: arm.render(scenes)},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_lerobot(tmp_path_factory.mktemp("lerobot") / "toy", demonstrations())


def test_what_is_written_is_read(folder):
    data, read = demonstrations(), read_lerobot(folder, image_size=arm.SIZE)
    for name in ("states", "actions", "task", "bounds"):
        np.testing.assert_array_equal(getattr(read, name), getattr(data, name))
    assert (read.tasks, read.fps, list(read.cameras)) == (data.tasks, data.fps, [CAMERA])
    error = np.abs(read.cameras[CAMERA].astype(int) - data.cameras[CAMERA])
    assert error.mean() < 3  # video is lossy, and colour is stored at half the resolution
    again = read_lerobot(folder, image_size=arm.SIZE)
    assert isinstance(again.cameras[CAMERA], np.memmap)  # decoded once
    np.testing.assert_array_equal(again.cameras[CAMERA], read.cameras[CAMERA])


def test_frames_are_resized_when_they_are_decoded(folder):
    assert read_lerobot(folder, image_size=32).cameras[CAMERA].shape == (24, 3, 32, 32)


def test_the_folder_has_the_layout_of_version_3(folder):
    info = json.loads((folder / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (3, 24, 2)
    assert info["features"][CAMERA]["dtype"] == "video"
    table = parquet.read_table(folder / "data/chunk-000/file-000.parquet")
    assert table["frame_index"].to_pylist()[5:9] == [5, 6, 0, 1]
    assert table["timestamp"].to_pylist()[1] == pytest.approx(0.1)
    episodes = parquet.read_table(folder / "meta/episodes/chunk-000/file-000.parquet")
    assert episodes["tasks"].to_pylist() == [
        ["reach the red target"],
        ["reach the blue target"],
        ["reach the red target"],
    ]
    assert episodes[f"videos/{CAMERA}/from_timestamp"].to_pylist() == pytest.approx([0.0, 0.7, 1.9])
    stats = json.loads((folder / "meta/stats.json").read_text())
    np.testing.assert_allclose(stats["action"]["q99"], np.quantile(demonstrations().actions, 0.99, axis=0))
    assert b"index_columns" in parquet.read_schema(folder / "meta/tasks.parquet").metadata[b"pandas"]


def test_images_inside_the_table_and_several_files_are_read(folder, tmp_path):
    from PIL import Image

    data = demonstrations()
    copy = write_lerobot(tmp_path / "images", dataclasses.replace(data, cameras={}))
    table = parquet.read_table(copy / "data/chunk-000/file-000.parquet")
    cells = []
    for frame in data.cameras[CAMERA]:
        out = io.BytesIO()
        Image.fromarray(frame.transpose(1, 2, 0)).save(out, "png")
        cells.append({"bytes": out.getvalue(), "path": None})
    table = table.append_column(
        CAMERA, pa.array(cells, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    )
    parquet.write_table(table.slice(0, 19), copy / "data/chunk-000/file-000.parquet")
    parquet.write_table(table.slice(19), copy / "data/chunk-000/file-001.parquet")
    info = json.loads((copy / "meta/info.json").read_text())
    info["features"][CAMERA] = {"dtype": "image", "shape": [arm.SIZE, arm.SIZE, 3], "names": None}
    (copy / "meta/info.json").write_text(json.dumps(info))
    read = read_lerobot(copy, image_size=arm.SIZE)
    np.testing.assert_array_equal(read.cameras[CAMERA], data.cameras[CAMERA])
    np.testing.assert_array_equal(read.states, data.states)


def test_folders_that_are_not_whole_are_refused(tmp_path):
    data = demonstrations()
    with pytest.raises(UserError, match=r"info.json does not exist"):
        read_lerobot(tmp_path, image_size=arm.SIZE)
    folder = write_lerobot(tmp_path / "toy", data)
    with pytest.raises(UserError, match="exists already"):
        write_lerobot(folder, data)
    with pytest.raises(UserError, match="has no camera 'wrist'"):
        read_lerobot(folder, image_size=arm.SIZE, cameras=("wrist",))
    video = next(folder.rglob("*.mp4"))
    whole = video.read_bytes()
    video.write_bytes(whole[: len(whole) // 3])
    with pytest.raises(UserError, match=r"cannot be decoded|frames, but"):
        read_lerobot(folder, image_size=arm.SIZE)
    video.unlink()
    with pytest.raises(UserError, match=r"mp4 does not exist"):
        read_lerobot(folder, image_size=arm.SIZE)
    info = json.loads((folder / "meta/info.json").read_text())
    (folder / "meta/info.json").write_text(json.dumps(info | {"codebase_version": "v2.1"}))
    with pytest.raises(UserError, match=r"version v2.1; only v3"):
        read_lerobot(folder, image_size=arm.SIZE)


def test_counts_that_do_not_match_are_refused():
    data = demonstrations()
    with pytest.raises(UserError, match="23 rows of actions, but 24 states"):
        dataclasses.replace(data, actions=data.actions[:-1])
    with pytest.raises(UserError, match="do not cover"):
        dataclasses.replace(data, bounds=data.bounds[:-1])


def test_two_processes_that_make_the_embedded_data_at_once_end_with_one_folder(tmp_path, monkeypatch):
    cfg, write_folder = KIDataConfig(cache=str(tmp_path), episodes=2), lerobot.write_folder

    def overtaken(draft, contents, **how):
        monkeypatch.setattr(lerobot, "write_folder", write_folder)
        assert make_arm_data(cfg).is_dir()  # the other process, which is faster
        write_folder(draft, contents, **how)

    monkeypatch.setattr(lerobot, "write_folder", overtaken)
    made = make_arm_data(cfg)
    assert [path.name for path in tmp_path.iterdir()] == [made.name]
    assert len(read_lerobot(made, image_size=arm.SIZE).bounds) == 2
