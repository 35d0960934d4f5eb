"""The layout of a LeRobotDataset v3 folder: columns in parquet, cameras in video files, episodes one after another.

What a column means is the reader's own business; nothing here knows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.extras import require
from jepa_world_model.core.video import read_video, write_video

VERSION = "v3.0"
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
INFO = Path("meta/info.json")
TABLES = "LeRobot tables"
QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
COUNTERS = ("frame_index", "episode_index", "index", "task_index")


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a folder is written from: N rows in E episodes."""

    fps: float
    bounds: np.ndarray  # [E,2] first row and length
    columns: Mapping[str, np.ndarray]  # name -> [N,D] or [N]
    names: Mapping[str, Sequence[str]] = field(
        default_factory=dict
    )  # of a column's dimensions; else numbered
    cameras: Mapping[str, Iterable[np.ndarray]] = field(
        default_factory=dict
    )  # name -> N frames [H,W,3] uint8
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # name -> height, width
    tasks: Sequence[str] = ("",)
    task: np.ndarray | None = None  # [N] index into tasks; None: the first for all

    @property
    def task_of_row(self) -> np.ndarray:
        """[N] int64, the index of each row's task."""
        count = int(self.bounds[:, 1].sum())
        return np.zeros(count, np.int64) if self.task is None else np.asarray(self.task, np.int64)


# ---- writing ----


def write_folder(folder: Path, data: Contents, *, robot_type: str, crf: int, extra: str) -> None:
    """Write all files of a data set into a folder that does not exist yet."""
    for part in ("meta/episodes/chunk-000", "data/chunk-000"):
        (folder / part).mkdir(parents=True)
    _write_tables(folder, data, extra)
    for camera, frames in data.cameras.items():
        path = folder / VIDEO.format(video_key=camera, chunk_index=0, file_index=0)
        path.parent.mkdir(parents=True)
        write_video(path, frames, fps=data.fps, crf=crf, extra=extra)
    (folder / INFO).write_text(json.dumps(_info(data, robot_type, crf), indent=2))
    (folder / "meta/stats.json").write_text(json.dumps(_stats(data), indent=2))


def _write_tables(folder: Path, data: Contents, extra: str) -> None:
    pa, parquet = (require(module, TABLES, extra) for module in ("pyarrow", "pyarrow.parquet"))
    starts, lengths = data.bounds.T
    episode = np.repeat(np.arange(len(starts)), lengths)
    frame = np.arange(len(episode)) - np.repeat(starts, lengths)
    # A column of one number a row is a plain one there, not one of lists.
    rows = lambda x: (
        x.reshape(-1)
        if x[0].size == 1
        else pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), x.shape[1])
    )
    table = {name: rows(column) for name, column in data.columns.items()} | {
        "timestamp": (frame / data.fps).astype(np.float32),
        "frame_index": frame,
        "episode_index": episode,
        "index": np.arange(len(episode)),
        "task_index": data.task_of_row,
    }
    parquet.write_table(pa.table(table), folder / DATA.format(chunk_index=0, file_index=0))
    parquet.write_table(_tasks_table(pa, data.tasks), folder / "meta/tasks.parquet")
    zeros = np.zeros(len(starts), np.int64)
    task = data.task_of_row
    episodes = {
        "episode_index": np.arange(len(starts)),
        "tasks": [sorted({data.tasks[i] for i in task[a : a + n]}) for a, n in data.bounds],
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


def _tasks_table(pa: Any, tasks: Sequence[str]) -> Any:
    """The text of a task is the index of a data frame there; without this note a reader would number the rows."""
    column = {"name": None, "field_name": "__index_level_0__", "pandas_type": "unicode", "numpy_type": "object",
              "metadata": None}  # fmt: skip
    note = {"index_columns": ["__index_level_0__"], "column_indexes": [], "columns": [column]}
    table = pa.table({"task_index": np.arange(len(tasks)), "__index_level_0__": list(tasks)})
    return table.replace_schema_metadata({"pandas": json.dumps(note)})


def _info(data: Contents, robot_type: str, crf: int) -> dict[str, Any]:
    plain = lambda dtype: {"dtype": dtype, "shape": [1], "names": None}
    features: dict[str, Any] = {}
    for name, column in data.columns.items():
        width = column[0].size
        names = list(data.names.get(name, map(str, range(width))))
        features[name] = {"dtype": str(column.dtype), "shape": [width], "names": names}
    for camera in data.cameras:
        height, width = data.sizes[camera]
        pix_fmt = "yuv420p" if crf else "gbrp"
        features[camera] = {
            "dtype": "video",
            "shape": [height, width, 3],
            "names": ["height", "width", "channels"],
            "info": {"video.fps": data.fps, "video.height": height, "video.width": width, "video.channels": 3,
                     "video.codec": "h264", "video.pix_fmt": pix_fmt, "has_audio": False},
        }  # fmt: skip
    features["timestamp"] = plain("float32")
    features |= {name: plain("int64") for name in COUNTERS}
    return {
        "codebase_version": VERSION,
        "robot_type": robot_type,
        "total_episodes": len(data.bounds),
        "total_frames": int(data.bounds[:, 1].sum()),
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


def _stats(data: Contents) -> dict[str, Any]:
    made = {}
    for name, column in data.columns.items():
        x = column.reshape(len(column), -1)
        made[name] = {
            "min": x.min(0).tolist(),
            "max": x.max(0).tolist(),
            "mean": x.mean(0, dtype=np.float64).tolist(),
            "std": x.std(0, dtype=np.float64).tolist(),
            "count": [len(x)],
            **{key: np.quantile(x, q, axis=0).tolist() for key, q in QUANTILES.items()},
        }
    return made


# ---- reading ----


@dataclass(frozen=True)
class Folder:
    """A data set folder with its tables read and its frames not."""

    path: Path
    info: Mapping[str, Any]
    rows: Any  # pyarrow table, in the order of `index`
    episodes: Any  # pyarrow table, in the order of `episode_index`
    extra: str  # that a missing package is named with

    @property
    def cameras(self) -> list[str]:
        """Names of all image features, sorted."""
        return sorted(k for k, f in self.info["features"].items() if f["dtype"] in ("video", "image"))

    @property
    def lengths(self) -> np.ndarray:
        """[E] rows of each episode."""
        return np.asarray(self.episodes["length"].to_numpy(), np.int64)

    @property
    def fps(self) -> float:
        """Rows a second."""
        return float(self.info["fps"])

    def column(self, name: str) -> np.ndarray:
        """A column, [N] or [N,D]. Errors: UserError when it is missing, or its lists differ in length."""
        if name not in self.rows.column_names:
            raise UserError(f"{self.path} has no column {name}; it has {', '.join(self.rows.column_names)}")
        if self.rows[name].null_count:
            raise UserError(
                f"{self.path}: {name} is empty in {self.rows[name].null_count} rows; restore the data set"
            )
        values = self.rows[name].to_numpy(zero_copy_only=False)
        if values.dtype != object:
            return values
        if len({np.shape(v) for v in values}) > 1:
            raise UserError(f"{self.path}: the rows of {name} differ in length; a column has one width")
        return np.stack(values)

    def names(self, column: str) -> tuple[str, ...]:
        """What the dimensions of a column are called; empty where the folder does not tell."""
        told = self.info["features"].get(column, {}).get("names")
        if isinstance(told, Mapping):  # older folders group them: {"motors": [...]}
            told = [name for group in told.values() for name in group]
        return tuple(map(str, told or ()))

    @property
    def tasks(self) -> tuple[str, ...]:
        """The text of each task, by its index."""
        table = _concat([self.path / "meta/tasks.parquet"], self.path, self.extra)
        text = next((name for name in table.column_names if name != "task_index"), "")
        if not text or "task_index" not in table.column_names or table["task_index"].null_count:
            raise UserError(
                f"{self.path}: meta/tasks.parquet must hold an index and a text for each task; restore it"
            )
        pairs = sorted(zip(table["task_index"].to_pylist(), map(str, table[text].to_pylist()), strict=True))
        return tuple(text for _, text in pairs)

    def frames(self, camera: str) -> Iterator[np.ndarray]:
        """All N frames of a camera in order, [H,W,3] uint8; each video file is decoded once, frame by frame."""
        video = self.info["features"][camera]["dtype"] == "video"
        return self._video_frames(camera) if video else self._image_frames(camera)

    def _video_frames(self, camera: str) -> Iterator[np.ndarray]:
        column = lambda name: self.episodes[f"videos/{camera}/{name}"].to_pylist()
        try:
            where = list(zip(*map(column, ("chunk_index", "file_index", "from_timestamp")), strict=True))
        except KeyError as error:
            raise UserError(
                f"{self.path}: meta/episodes lacks {error.args[0]}; the data set is not whole"
            ) from None
        open_path, stream, at = None, iter(()), 0
        for number, ((chunk, file, start_s), length) in enumerate(
            zip(where, self.lengths.tolist(), strict=True)
        ):
            names = {"video_key": camera, "chunk_index": chunk, "file_index": file}
            try:
                path = self.path / self.info.get("video_path", VIDEO).format(**names)
                start = round(start_s * self.fps)
            except (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError) as error:
                raise UserError(
                    f"{self.path}: meta does not say where episode {number} of camera {camera} is ({error}); restore it"
                ) from None
            if path != open_path or start < at:
                open_path, stream, at = path, read_video(path, self.extra), 0
            found = 0
            for frame in islice(stream, start - at, start - at + length):
                found += 1
                yield frame
            at = start + found
            if found != length:
                raise UserError(
                    f"{self.path}: camera {camera} has {found} frames, but episode {number} has {length} rows"
                )

    def _image_frames(self, camera: str) -> Iterator[np.ndarray]:
        from PIL import Image

        for cell in self.rows[camera].to_pylist():
            try:
                source = BytesIO(cell["bytes"]) if cell["bytes"] else self.path / cell["path"]
                with Image.open(source) as picture:
                    yield np.asarray(picture.convert("RGB"))
            except (OSError, TypeError, KeyError) as error:
                raise UserError(f"{self.path}: a picture of {camera} cannot be read ({error})") from None


def is_folder(path: Path) -> bool:
    """Whether this looks like a LeRobotDataset folder of any version."""
    return (path / INFO).is_file()


def read_folder(path: Path, extra: str) -> Folder:
    """The tables of a folder. Errors: UserError for another version, missing or damaged files, or counts that differ."""
    info = _read_info(path)
    rows = _concat(sorted((path / "data").rglob("*.parquet")), path, extra)
    episodes = _concat(sorted((path / "meta/episodes").rglob("*.parquet")), path, extra)
    for table, key in ((rows, "index"), (episodes, "episode_index"), (episodes, "length")):
        if key not in table.column_names:
            raise UserError(f"{path} has no column {key}; the data set is not whole")
        if table[key].null_count or table[key].type not in _whole_numbers():
            raise UserError(f"{path}: its column {key} must hold a whole number in every row; restore it")
    in_order = lambda table, key: table.take(np.argsort(table[key].to_numpy(), kind="stable"))
    folder = Folder(path, info, in_order(rows, "index"), in_order(episodes, "episode_index"), extra)
    if (total := int(folder.lengths.sum())) != len(rows):
        raise UserError(
            f"{path}: its episodes have {total} rows, but its tables {len(rows)}; the data set is not whole"
        )
    return folder


def _whole_numbers() -> tuple[Any, ...]:
    import pyarrow as pa

    return pa.int64(), pa.int32(), pa.int16(), pa.int8(), pa.uint64(), pa.uint32(), pa.uint16(), pa.uint8()


def _read_info(path: Path) -> dict[str, Any]:
    file = path / INFO
    if not file.is_file():
        raise UserError(f"{path} is no LeRobotDataset: {file} does not exist")
    try:
        info = json.loads(file.read_text())
        version = str(info.get("codebase_version", ""))
    except (ValueError, AttributeError) as error:
        raise UserError(f"{file} cannot be read ({error}); restore it") from None
    if not version.startswith("v3."):
        raise UserError(
            f"{path} is a LeRobotDataset of version {version or 'unknown'}; only v3 folders are read, so convert it "
            "with lerobot's own script first"
        )
    if missing := {"features", "fps"} - set(info):
        raise UserError(f"{file} lacks {', '.join(sorted(missing))}; restore it")
    try:
        kinds = [str(feature["dtype"]) for feature in info["features"].values()]
        is_sound = float(info["fps"]) > 0 and all(kinds)
    except (TypeError, KeyError, ValueError, AttributeError):
        is_sound = False
    if not is_sound:
        raise UserError(f"{file} does not tell the dtype of every feature and an fps above 0; restore it")
    return info


def _concat(files: Sequence[Path], folder: Path, extra: str) -> Any:
    pa, parquet = (require(module, TABLES, extra) for module in ("pyarrow", "pyarrow.parquet"))
    if not files or not all(file.is_file() for file in files):
        raise UserError(f"{folder} is not whole: {files[0] if files else 'a parquet folder'} is missing")
    try:
        tables = [parquet.read_table(file) for file in files]
        [table.column_names for table in tables]  # names are decoded when they are asked for
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{folder} holds a damaged parquet file: {' '.join(str(error).split())}") from None
    try:
        return pa.concat_tables(tables, promote_options="default")
    except pa.ArrowException as error:
        raise UserError(
            f"{folder}: its tables have different columns ({' '.join(str(error).split())}); a data set has one width each"
        ) from None
