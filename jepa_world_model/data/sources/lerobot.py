"""LeRobotDataset v3 folders: one camera as frames, the column `action`, and `observation.state` as the state."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.lerobot import Contents, is_folder, read_folder, write_folder
from jepa_world_model.data.episodes import Episodes, rows_of
from jepa_world_model.data.sources.recording import (
    PIECE,
    Format,
    ReadOptions,
    Recording,
    WriteOptions,
    choose_camera,
    draft,
    origin_of,
    with_origin,
)

STATE, ACTION, CAMERA = "observation.state", "action", "observation.images.frame"
ORIGIN = "meta/jepa_wm_origin.json"  # written by `convert`, not needed
FPS = 10.0  # of folders written: a data set has steps and no seconds


def files(path: Path) -> list[Path]:
    """Tables, videos and metadata."""
    return sorted(p for part in ("meta", "data", "videos") for p in (path / part).rglob("*") if p.is_file())


def read(path: Path, options: ReadOptions) -> Recording:
    """The episodes of a folder. Errors: UserError for another version, several cameras, or what is not whole."""
    folder = read_folder(path, "data")
    camera = choose_camera(folder.cameras, options.camera, str(path))
    actions, lengths = folder.column(ACTION), folder.lengths.tolist()
    states = folder.column(STATE) if STATE in folder.rows.column_names else None
    spans = [slice(end - n, end) for n, end in zip(lengths, np.cumsum(lengths).tolist(), strict=True)]
    states = None if states is None else states.reshape(len(states), -1)
    names = folder.names(STATE)
    if states is not None and len(names) != states.shape[1]:
        names = tuple(f"s{i}" for i in range(states.shape[1]))
    recording = Recording(
        names=[f"{path}, episode {i}" for i in range(len(spans))],
        actions=[actions[part] for part in spans],
        lengths=lengths,
        frames=lambda: _by_episode(folder.frames(camera), lengths),
        states=None if states is None else [states[part] for part in spans],
        state_names=() if states is None else names,
        about={"env": folder.info.get("robot_type"), "fps": folder.fps, "camera": camera},
    )
    origin = path / ORIGIN
    return with_origin(recording, origin.read_bytes() if origin.is_file() else None, str(origin))


def _by_episode(frames: Iterator[np.ndarray], lengths: list[int]) -> Iterator[Iterable[np.ndarray]]:
    for length in lengths:
        parts = (min(PIECE, length - i) for i in range(0, length, PIECE))
        yield (np.stack(list(islice(frames, part))) for part in parts)


def write(episodes: Episodes, out: Path, options: WriteOptions) -> None:
    """A folder that lerobot reads; lossless unless a crf is set. Errors: UserError for frames that are no RGB."""
    channels, *size = episodes.frames.shape[1:]
    if channels != 3:
        raise UserError(f"LeRobot videos hold RGB pictures, not frames of {channels} channels; use hdf5")
    rows = rows_of(episodes.bounds)
    actions = np.asarray(episodes.actions[rows])
    ends = np.cumsum(episodes.lengths)
    actions[ends - 1] = 0  # follows the last frame, and means nothing
    columns = {ACTION: actions}
    names = {ACTION: episodes.space.names} if episodes.space.raw_shape and episodes.space.names else {}
    if episodes.states is not None:
        columns[STATE], names[STATE] = episodes.states[rows], episodes.state_names
    contents = Contents(
        fps=FPS,
        bounds=np.stack([ends - episodes.lengths, episodes.lengths], 1),
        columns=columns,
        names=names,
        cameras={CAMERA: (np.asarray(episodes.frames[i]).transpose(1, 2, 0) for i in rows)},
        sizes={CAMERA: (size[0], size[1])},
        tasks=(str(episodes.manifest.get("env") or episodes.name),),
    )
    with draft(out) as folder:
        write_folder(folder, contents, robot_type="unknown", crf=options.crf, extra="data")
        (folder / ORIGIN).write_text(json.dumps(origin_of(episodes), indent=1))


LEROBOT = Format(
    name="lerobot",
    looks="meta/info.json of a LeRobotDataset",
    matches=is_folder,
    files=files,
    read=read,
    write=write,
)
