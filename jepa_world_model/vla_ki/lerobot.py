"""Demonstrations in LeRobotDataset v3 folders: written whole or not at all, read with every frame decoded once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.lerobot import Contents, Folder, read_folder, write_folder
from jepa_world_model.vla_ki.images import resize_with_pad

STATE, ACTION = "observation.state", "action"
CRF = 12  # of the videos: smaller than lossless, and hardly to be seen
PIECE = 256  # frames decoded and resized at a time


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
    taken = UserError(f"{folder} exists already; choose another folder or delete it")
    if folder.exists():
        raise taken
    draft = folder.with_name(f".draft-{folder.name}-{os.getpid()}")
    contents = Contents(
        fps=data.fps,
        bounds=data.bounds,
        columns={STATE: data.states.astype(np.float32), ACTION: data.actions.astype(np.float32)},
        cameras={
            name: (frame.transpose(1, 2, 0) for frame in frames) for name, frames in data.cameras.items()
        },
        sizes={name: frames.shape[2:] for name, frames in data.cameras.items()},
        tasks=data.tasks,
        task=data.task,
    )
    try:
        write_folder(draft, contents, robot_type=robot_type, crf=CRF, extra="vla")
        draft.rename(folder)
    except OSError:
        if folder.exists():  # written by another process meanwhile; a folder is never replaced
            raise taken from None
        raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def read_lerobot(folder: str | Path, *, image_size: int, cameras: Sequence[str] = ()) -> RobotData:
    """A data set folder with its frames as square images; `cameras` chooses and orders, empty: all by name.

    Frames are decoded and resized once, into `.frames/` inside the folder, and memory-mapped from there.
    Errors: UserError for a folder of another version, missing files, or counts that do not match.
    """
    found = read_folder(Path(folder), "vla")
    for camera in cameras:
        if camera not in found.cameras:
            raise UserError(
                f"{folder} has no camera {camera!r} (it has {', '.join(found.cameras) or 'none'})"
            )
    missing = [name for name in (STATE, ACTION) if name not in found.rows.column_names]
    if missing:
        raise UserError(f"{folder} has no column {' and no '.join(missing)}; a policy needs both")
    rows = lambda name: found.column(name).astype(np.float32).reshape(len(found.rows), -1)
    lengths = found.lengths
    return RobotData(
        name=found.path.name,
        fps=found.fps,
        tasks=found.tasks,
        bounds=np.stack([np.cumsum(lengths) - lengths, lengths], 1),
        states=rows(STATE),
        actions=rows(ACTION),
        task=found.column("task_index").astype(np.int64),
        cameras={camera: _frames(found, camera, image_size) for camera in cameras or found.cameras},
    )


def _frames(folder: Folder, camera: str, size: int) -> np.ndarray:
    """All frames of a camera [N,3,size,size], from the cache or decoded into it."""
    cache, count = folder.path / ".frames" / f"{camera}-{size}.npy", len(folder.rows)
    if cache.is_file():
        frames = np.load(cache, mmap_mode="r")
        if len(frames) == count:
            return frames
    cache.parent.mkdir(exist_ok=True)
    draft = cache.with_suffix(f".draft-{os.getpid()}")
    try:
        out = np.lib.format.open_memmap(draft, "w+", np.uint8, (count, 3, size, size))
        stream, at = folder.frames(camera), 0
        while piece := list(islice(stream, PIECE)):
            out[at : at + len(piece)] = resize_with_pad(np.stack(piece).transpose(0, 3, 1, 2), size)
            at += len(piece)
        out.flush()
        draft.replace(cache)
    finally:
        draft.unlink(missing_ok=True)
    return np.load(cache, mmap_mode="r")
