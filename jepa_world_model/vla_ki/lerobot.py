"""LeRobotDataset v3 folders: written whole or not at all, read with every frame decoded once."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from jepa_world_model.core.errors import UserError
from jepa_world_model.vla_ki.extras import require
from jepa_world_model.vla_ki.images import resize_with_pad

VERSION = "v3.0"
STATE, ACTION = "observation.state", "action"
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
TABLES = "LeRobot tables"
QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}


@dataclass(frozen=True)
class RobotData:
    """Demonstrations: N frames in E episodes, one after another."""

    name: str
    fps: float
    tasks: tuple[str, ...]  # instructions
    bounds: np.ndarray  # [E,2] first frame and length
    states: np.ndarray  # [N,S] float32
    actions: np.ndarray  # [N,D] float32; row i follows frame i
    task: np.ndarray  # [N] index into tasks
    cameras: Mapping[str, np.ndarray]  # name -> [N,3,H,W] uint8

    def __post_init__(self) -> None:
        n = len(self.states)
        sizes = {"actions": len(self.actions), "task": len(self.task)} | {
            k: len(v) for k, v in self.cameras.items()
        }
        for name, size in sizes.items():
            if size != n:
                raise UserError(
                    f"{self.name}: {size} rows of {name}, but {n} states; the data set is not whole"
                )
        ends = self.bounds.sum(1)
        if not len(self.bounds) or ends[-1] != n or (self.bounds[1:, 0] != ends[:-1]).any():
            raise UserError(f"{self.name}: the episodes do not cover its {n} frames one after another")


def write_lerobot(folder: str | Path, data: RobotData, *, robot_type: str = "arm") -> Path:
    """Write a data set folder; an interrupted write leaves nothing at `folder`.

    Errors: UserError when the folder exists.
    """
    folder = Path(folder)
    if folder.exists():
        raise UserError(f"{folder} exists already; choose another folder or delete it")
    draft = folder.with_name(f".draft-{folder.name}-{os.getpid()}")
    try:
        for part in ("meta/episodes/chunk-000", "data/chunk-000"):
            (draft / part).mkdir(parents=True)
        _write_tables(draft, data)
        for camera, frames in data.cameras.items():
            path = draft / VIDEO.format(video_key=camera, chunk_index=0, file_index=0)
            path.parent.mkdir(parents=True)
            _write_video(path, frames, data.fps)
        (draft / "meta/info.json").write_text(json.dumps(_info(data, robot_type), indent=2))
        (draft / "meta/stats.json").write_text(json.dumps(_stats(data), indent=2))
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def _write_tables(folder: Path, data: RobotData) -> None:
    pa, parquet = require("pyarrow", TABLES), require("pyarrow.parquet", TABLES)
    starts, lengths = data.bounds.T
    episode = np.repeat(np.arange(len(starts)), lengths)
    frame = np.arange(len(episode)) - np.repeat(starts, lengths)
    rows = lambda x: pa.FixedSizeListArray.from_arrays(pa.array(x.astype(np.float32).ravel()), x.shape[1])
    table = {
        STATE: rows(data.states),
        ACTION: rows(data.actions),
        "timestamp": (frame / data.fps).astype(np.float32),
        "frame_index": frame,
        "episode_index": episode,
        "index": np.arange(len(episode)),
        "task_index": data.task.astype(np.int64),
    }
    parquet.write_table(pa.table(table), folder / DATA.format(chunk_index=0, file_index=0))
    # The text of a task is the index of a data frame there; without this note a reader would number the rows.
    note = {
        "index_columns": ["__index_level_0__"],
        "column_indexes": [],
        "columns": [
            {
                "name": None,
                "field_name": "__index_level_0__",
                "pandas_type": "unicode",
                "numpy_type": "object",
                "metadata": None,
            }
        ],
    }
    tasks = pa.table({"task_index": np.arange(len(data.tasks)), "__index_level_0__": list(data.tasks)})
    tasks = tasks.replace_schema_metadata({"pandas": json.dumps(note)})
    parquet.write_table(tasks, folder / "meta/tasks.parquet")
    zeros = np.zeros(len(starts), np.int64)
    episodes = {
        "episode_index": np.arange(len(starts)),
        "tasks": [sorted({data.tasks[i] for i in data.task[a : a + n]}) for a, n in data.bounds],
        "length": lengths,
        "dataset_from_index": starts,
        "dataset_to_index": starts + lengths,
        "data/chunk_index": zeros,
        "data/file_index": zeros,
        "meta/episodes/chunk_index": zeros,
        "meta/episodes/file_index": zeros,
    }
    for camera in data.cameras:
        episodes |= {
            f"videos/{camera}/chunk_index": zeros,
            f"videos/{camera}/file_index": zeros,
            f"videos/{camera}/from_timestamp": starts / data.fps,
            f"videos/{camera}/to_timestamp": (starts + lengths) / data.fps,
        }
    parquet.write_table(pa.table(episodes), folder / "meta/episodes/chunk-000/file-000.parquet")


def _info(data: RobotData, robot_type: str) -> dict:
    plain = lambda dtype: {"dtype": dtype, "shape": [1], "names": None}
    features = {
        name: {"dtype": "float32", "shape": [x.shape[1]], "names": [f"{i}" for i in range(x.shape[1])]}
        for name, x in ((STATE, data.states), (ACTION, data.actions))
    }
    for camera, frames in data.cameras.items():
        height, width = frames.shape[2:]
        features[camera] = {
            "dtype": "video",
            "shape": [height, width, 3],
            "names": ["height", "width", "channels"],
            "info": {"video.fps": data.fps, "video.height": height, "video.width": width, "video.channels": 3,
                     "video.codec": "h264", "video.pix_fmt": "yuv420p", "has_audio": False},
        }  # fmt: skip
    features["timestamp"] = plain("float32")
    features |= {name: plain("int64") for name in ("frame_index", "episode_index", "index", "task_index")}
    return {
        "codebase_version": VERSION,
        "robot_type": robot_type,
        "total_episodes": len(data.bounds),
        "total_frames": len(data.states),
        "total_tasks": len(data.tasks),
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 500,
        "fps": data.fps,
        "splits": {"train": f"0:{len(data.bounds)}"},
        "data_path": DATA,
        "video_path": VIDEO,
        "features": features,
    }


def _stats(data: RobotData) -> dict:
    return {
        name: {
            "min": x.min(0).tolist(),
            "max": x.max(0).tolist(),
            "mean": x.mean(0, dtype=np.float64).tolist(),
            "std": x.std(0, dtype=np.float64).tolist(),
            "count": [len(x)],
            **{key: np.quantile(x, q, axis=0).tolist() for key, q in QUANTILES.items()},
        }
        for name, x in ((STATE, data.states), (ACTION, data.actions))
    }


def _write_video(path: Path, frames: np.ndarray, fps: float) -> None:
    av = require("av", "LeRobot videos")
    from fractions import Fraction

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.height, stream.width = frames.shape[2:]
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "12", "g": "20", "threads": "1"}
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(frame.transpose(1, 2, 0)), format="rgb24"
            )
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def read_lerobot(folder: str | Path, *, image_size: int, cameras: Sequence[str] = ()) -> RobotData:
    """A data set folder with its frames as square images; `cameras` chooses and orders, empty: all by name.

    Frames are decoded and resized once, into `.frames/` inside the folder, and memory-mapped from there.
    Errors: UserError for a folder of another version, missing files, or counts that do not match.
    """
    folder = Path(folder)
    info = _info_of(folder)
    known = [k for k, f in info["features"].items() if f["dtype"] in ("video", "image")]
    for camera in cameras:
        if camera not in known:
            raise UserError(f"{folder} has no camera {camera!r} (it has {', '.join(known) or 'none'})")
    table = _concat(sorted((folder / "data").rglob("*.parquet")), folder)
    episodes = _concat(sorted((folder / "meta/episodes").rglob("*.parquet")), folder)
    order = np.argsort(table["index"].to_numpy(), kind="stable")
    missing = [name for name in (STATE, ACTION) if name not in table.column_names]
    if missing:
        raise UserError(f"{folder} has no column {' and no '.join(missing)}; a policy needs both")
    rows = lambda name: np.stack(table[name].to_numpy(zero_copy_only=False))[order].astype(np.float32)
    lengths = np.asarray(episodes["length"].to_numpy(), np.int64)
    chosen = list(cameras) or sorted(known)
    return RobotData(
        name=folder.name,
        fps=float(info["fps"]),
        tasks=_tasks(folder),
        bounds=np.stack([np.cumsum(lengths) - lengths, lengths], 1),
        states=rows(STATE),
        actions=rows(ACTION),
        task=table["task_index"].to_numpy()[order].astype(np.int64),
        cameras={
            camera: _frames(folder, info, camera, image_size, table.take(order), episodes)
            for camera in chosen
        },
    )


def _info_of(folder: Path) -> dict:
    path = folder / "meta/info.json"
    if not path.is_file():
        raise UserError(f"{folder} is no LeRobotDataset: {path} does not exist")
    info = json.loads(path.read_text())
    if not str(info.get("codebase_version", "")).startswith("v3."):
        raise UserError(
            f"{folder} is a LeRobotDataset of version {info.get('codebase_version')}; only v3 folders are "
            "read, so convert it with lerobot's own script first"
        )
    return info


def _tasks(folder: Path) -> tuple[str, ...]:
    table = _concat([folder / "meta/tasks.parquet"], folder)
    text = next(name for name in table.column_names if name != "task_index")
    pairs = sorted(zip(table["task_index"].to_pylist(), table[text].to_pylist(), strict=True))
    return tuple(text for _, text in pairs)


def _concat(files: Sequence[Path], folder: Path):
    pa, parquet = require("pyarrow", TABLES), require("pyarrow.parquet", TABLES)
    if not files or not all(file.is_file() for file in files):
        raise UserError(f"{folder} is not whole: {files[0] if files else 'a parquet folder'} is missing")
    try:
        return pa.concat_tables([parquet.read_table(file) for file in files])
    except pa.ArrowInvalid as error:
        raise UserError(f"{folder} holds a damaged parquet file: {error}") from None


def _frames(folder: Path, info: dict, camera: str, size: int, table, episodes) -> np.ndarray:
    """All frames of a camera [N,3,size,size], from the cache or decoded into it."""
    cache = folder / ".frames" / f"{camera}-{size}.npy"
    if cache.is_file():
        frames = np.load(cache, mmap_mode="r")
        if len(frames) == len(table):
            return frames
    video = info["features"][camera]["dtype"] == "video"
    parts = _video_frames(folder, info, camera, episodes) if video else _image_frames(table[camera])
    cache.parent.mkdir(exist_ok=True)
    draft = cache.with_suffix(f".draft-{os.getpid()}")
    out = np.lib.format.open_memmap(draft, "w+", np.uint8, (len(table), 3, size, size))
    at = 0
    for part in parts:
        out[at : at + len(part)] = resize_with_pad(part, size)[: len(table) - at]
        at += len(part)
    if at != len(table):
        draft.unlink()
        raise UserError(f"{folder}: camera {camera} has {at} frames, but the data set {len(table)} rows")
    out.flush()
    draft.replace(cache)
    return np.load(cache, mmap_mode="r")


def _video_frames(folder: Path, info: dict, camera: str, episodes) -> Iterator[np.ndarray]:
    """The frames of each episode, cut from its video file by time; each file is decoded once."""
    column = lambda name: episodes[f"videos/{camera}/{name}"].to_pylist()
    open_path, frames = None, np.zeros((0, 3, 1, 1), np.uint8)
    where = zip(
        column("chunk_index"),
        column("file_index"),
        column("from_timestamp"),
        episodes["length"].to_pylist(),
        strict=True,
    )
    for chunk, file, start_s, length in where:
        path = folder / info["video_path"].format(video_key=camera, chunk_index=chunk, file_index=file)
        if path != open_path:
            open_path, frames = path, _decode(path)
        start = round(start_s * info["fps"])
        yield frames[start : start + length]


def _decode(path: Path) -> np.ndarray:
    av = require("av", "LeRobot videos")
    if not path.is_file():
        raise UserError(f"the video {path} does not exist")
    try:
        with av.open(str(path)) as container:
            pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    except av.FFmpegError as error:
        raise UserError(f"the video {path} cannot be decoded: {error}") from None
    return np.stack(pictures).transpose(0, 3, 1, 2)


def _image_frames(column) -> Iterator[np.ndarray]:
    from PIL import Image

    for cell in column.to_pylist():
        with Image.open(BytesIO(cell["bytes"])) as picture:
            yield np.asarray(picture.convert("RGB")).transpose(2, 0, 1)[None]
