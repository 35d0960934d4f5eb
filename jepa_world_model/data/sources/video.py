"""Video files with a table of actions.

    <folder>/<name>.mp4 and <folder>/<name>.csv or .parquet    an episode each, or
    <folder>/*.mp4 and <folder>/actions.csv or .parquet         one table for all, whose column "video" names the file

A table has one row a frame (the last one may be missing, or its action empty): columns whose name begins with
"action" are the action that follows the frame, columns that begin with "state" its true state. In a parquet table a
column may also hold lists.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.extras import require
from jepa_world_model.core.video import read_video, write_video
from jepa_world_model.data.episodes import Episodes
from jepa_world_model.data.sources.recording import (
    PIECE,
    Format,
    ReadOptions,
    Recording,
    WriteOptions,
    draft,
    episode_rows,
    natural,
    one_line,
    origin_of,
    with_origin,
)

VIDEOS = (".mp4", ".mkv", ".avi", ".mov", ".webm")
TABLES = (".csv", ".parquet")
ORIGIN = "origin.json"
FPS = 10.0  # of files written: a rate to look at, since a data set has steps and no seconds


@dataclass(frozen=True)
class _Table:
    """Columns of numbers, read from a file."""

    path: Path
    columns: dict[str, np.ma.MaskedArray]  # name -> [n] or [n,k], empty cells masked; text stays text

    def numbers(self, prefix: str, rows: np.ndarray) -> np.ma.MaskedArray | None:
        """The columns of a prefix side by side, [n] where it is one of single numbers; None without any."""
        chosen = {name: c[rows] for name, c in self.columns.items() if name.lower().startswith(prefix)}
        for name, column in chosen.items():
            if column.dtype.kind not in "biuf":
                raise UserError(f"{self.path}: column {name} holds text; {prefix} columns are numbers")
        if len(chosen) == 1:
            return next(iter(chosen.values()))
        return np.ma.column_stack(list(chosen.values())) if chosen else None


def _folder_files(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return sorted((p for p in path.iterdir() if p.suffix.lower() in suffixes), key=lambda p: natural(p.name))


def matches(path: Path) -> bool:
    """Whether this is a video file, or a folder that holds some."""
    return path.suffix.lower() in VIDEOS if path.is_file() else bool(_folder_files(path, VIDEOS))


def files(path: Path) -> list[Path]:
    """Videos, tables, and what is told about them."""
    pairs = _pairs(path)
    origin = (path if path.is_dir() else path.parent) / ORIGIN
    found = dict.fromkeys(file for pair in pairs for file in pair)
    return [*found, origin] if origin.is_file() and path.is_dir() else [*found]


def _pairs(path: Path) -> list[tuple[Path, Path]]:
    """Each video with its table."""
    videos = [path] if path.is_file() else _folder_files(path, VIDEOS)
    folder = path.parent if path.is_file() else path
    if not videos:
        raise UserError(f"{path} holds no videos ({', '.join(VIDEOS)})")
    common = [t for suffix in TABLES if (t := folder / f"actions{suffix}").is_file()]
    pairs = []
    for video in videos:
        own = [t for suffix in TABLES if (t := video.with_suffix(suffix)).is_file()] or common
        if len(own) != 1:
            what = (
                "two tables"
                if own
                else f"no table: expected {video.stem}.csv, {video.stem}.parquet or actions.csv"
            )
            raise UserError(f"{video} has {what}" + ("; keep one" if own else ""))
        pairs.append((video, own[0]))
    return pairs


def read(path: Path, options: ReadOptions) -> Recording:
    """The videos of a folder, each an episode. Errors: UserError for tables that are missing or do not fit."""
    if options.camera:
        raise UserError(f"{path} holds one video an episode and no cameras to choose from; leave camera out")
    pairs = _pairs(path)
    tables = {table: _read_table(table) for _, table in pairs}
    actions, states = [], []
    for video, name in pairs:
        table = tables[name]
        rows = _rows_of(table, video, shared=name.stem == "actions" and video.stem != "actions")
        action = table.numbers("action", rows)
        if action is None:
            known = ", ".join(table.columns)
            raise UserError(f"{name} has no column that begins with action; its columns are {known}")
        actions.append(_full(action, f"{name} (action)", empty_end=True))
        state = table.numbers("state", rows)
        states.append(None if state is None else _full(state, f"{name} (state)"))
    told = all(s is not None for s in states)
    states = [s.reshape(len(s), -1) for s in states] if told else None
    recording = Recording(
        names=[str(video) for video, _ in pairs],
        actions=actions,
        frames=lambda: (_pieces(read_video(video)) for video, _ in pairs),
        states=states,
        state_names=tuple(f"s{i}" for i in range(states[0].shape[1])) if states else (),
    )
    origin = path / ORIGIN
    return with_origin(recording, origin.read_bytes() if origin.is_file() else None, str(origin))


def _pieces(frames: Iterator[np.ndarray]) -> Iterable[np.ndarray]:
    while piece := list(islice(frames, PIECE)):
        yield np.stack(piece)


def _rows_of(table: _Table, video: Path, shared: bool) -> np.ndarray:
    """The rows of a table that belong to a video: all, or in a common table those that name it."""
    count = len(next(iter(table.columns.values()), ()))
    if not shared:
        return np.arange(count)
    if "video" not in table.columns:
        raise UserError(f"{table.path} serves several videos and needs a column video with their file names")
    rows = np.flatnonzero(np.isin(table.columns["video"].astype(str), [video.name, video.stem]))
    if not len(rows):
        raise UserError(f"{table.path} has no rows whose video is {video.name}")
    return rows


def _full(column: np.ma.MaskedArray, where: str, *, empty_end: bool = False) -> np.ndarray:
    """A column without empty cells; its last row is left out where that may be empty and is."""
    empty = np.ma.getmaskarray(column).reshape(len(column), -1).any(1)
    if empty_end and len(empty) and empty[-1]:
        column, empty = column[:-1], empty[:-1]
    if empty.any():
        raise UserError(
            f"{where} has an empty cell in row {int(empty.argmax()) + 1}; only the last action may be"
        )
    return np.asarray(column)


def _read_table(path: Path) -> _Table:
    table = _read_csv(path) if path.suffix == ".csv" else _read_parquet(path)
    if not table.columns or not len(next(iter(table.columns.values()))):
        raise UserError(f"{path} has no rows; it needs a row of actions for each frame")
    return table


def _read_csv(path: Path) -> _Table:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            head, *rows = list(csv.reader(file)) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a readable CSV table ({one_line(error)})") from None
    rows = [row for row in rows if row]
    for number, row in enumerate(rows, 2):
        if len(row) != len(head):
            raise UserError(f"{path}, line {number}: {len(row)} cells, but the head has {len(head)}")
    return _Table(
        path, {name.strip(): _column([row[i].strip() for row in rows]) for i, name in enumerate(head)}
    )


def _column(cells: list[str]) -> np.ma.MaskedArray:
    """Whole numbers where all cells are, else numbers, else text; empty cells are masked."""
    empty = [not cell for cell in cells]
    for kind in (np.int64, np.float64):
        try:
            return np.ma.array(np.array([cell or "0" for cell in cells]).astype(kind), mask=empty)
        except ValueError:
            continue
    return np.ma.array(cells)


def _read_parquet(path: Path) -> _Table:
    pa, parquet = (require(m, "parquet tables", "data") for m in ("pyarrow", "pyarrow.parquet"))
    try:
        table = parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a readable parquet table ({one_line(error)})") from None
    return _Table(path, {name: _parquet_column(path, name, table[name]) for name in table.column_names})


def _parquet_column(path: Path, name: str, column: Any) -> np.ma.MaskedArray:
    empty = column.is_null().to_numpy()
    if str(column.type) in ("bool", "float", "double", "halffloat") or str(column.type).lstrip(
        "u"
    ).startswith("int"):
        return np.ma.array(
            column.fill_null(False if str(column.type) == "bool" else 0).to_numpy(), mask=empty
        )
    values = column.to_pylist()
    if all(isinstance(v, list) for v in values):
        if len({len(v) for v in values}) > 1:
            raise UserError(f"{path}: the lists in column {name} differ in length; actions have one width")
        return np.ma.array(np.array(values))
    return np.ma.array([str(v) for v in values])


def write(episodes: Episodes, out: Path, options: WriteOptions) -> None:
    """One video and one CSV table an episode. Errors: UserError for frames that are no RGB pictures."""
    channels = episodes.frames.shape[1]
    if channels != 3:
        raise UserError(f"videos hold RGB pictures, not frames of {channels} channels; use hdf5")
    names = episodes.space.names or tuple(str(i) for i in range(episodes.space.dim))
    actions = ["action"] if not episodes.space.raw_shape else [f"action_{n}" for n in names]
    states = [f"state_{name}" for name in episodes.state_names]
    with draft(out) as folder:
        folder.mkdir()
        width = len(str(len(episodes) - 1))
        for number, (rows, length) in enumerate(episode_rows(episodes)):
            place = folder / f"episode_{number:0{width}}.mp4"
            frames = (np.asarray(episodes.frames[i]).transpose(1, 2, 0) for i in range(rows.start, rows.stop))
            write_video(place, frames, fps=FPS, crf=options.crf)
            raw = np.asarray(episodes.actions[rows]).reshape(length, -1).tolist()
            raw[-1] = [""] * len(actions)  # no action follows the last frame
            told = [[]] * length if episodes.states is None else episodes.states[rows].tolist()
            with place.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
                table = csv.writer(file)
                table.writerow([*actions, *states])
                table.writerows([*a, *s] for a, s in zip(raw, told, strict=True))
        (folder / ORIGIN).write_text(json.dumps(origin_of(episodes), indent=1))


VIDEO = Format(
    name="video",
    looks="videos with a .csv or .parquet table of actions",
    matches=matches,
    files=files,
    read=read,
    write=write,
)
