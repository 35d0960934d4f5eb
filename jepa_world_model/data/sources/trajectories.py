"""Trajectory folders: numbered PNG frames and the actions between them.

    <folder>/traj_<name>/states/state_<i>.png    frames in numeric order, without a gap, first number 0 or 1
    <folder>/traj_<name>/actions.npz             actions[i] follows frame i
    <folder>/origin.json                         what the numbers mean; written by `convert`, not needed

`actions.npz` holds one array, or several of which one is called "actions" and another may be called "states".
For T frames it has T-1 actions, or T of which the last one is ignored; any other count is an error.
"""

from __future__ import annotations

import json
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from jepa_world_model.core.errors import UserError
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

ORIGIN = "origin.json"
_STATE_NAME = re.compile(r"state_(\d+)\.png", re.IGNORECASE)

# What Pillow and numpy raise on damaged files, collected by mutating files.
_DAMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    KeyError,
    TypeError,
    IndexError,
    OverflowError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    AttributeError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


@dataclass(frozen=True)
class _Trajectory:
    folder: Path
    frames: tuple[Path, ...]  # in numeric order
    first: int  # number of the first frame

    @property
    def actions(self) -> Path:
        """The file of its actions."""
        return self.folder / "actions.npz"


def matches(path: Path) -> bool:
    """Whether this is a folder of trajectory folders."""
    return path.is_dir() and any(p.is_dir() for p in path.glob("traj_*"))


def files(path: Path) -> list[Path]:
    """Every frame and every file of actions."""
    found = [file for t in _scan(path) for file in (*t.frames, t.actions)]
    return [*found, path / ORIGIN] if (path / ORIGIN).is_file() else found


def read(path: Path, options: ReadOptions) -> Recording:
    """The trajectories of a folder; they have one camera, so `options.camera` stays empty."""
    if options.camera:
        raise UserError(
            f"{path} is a trajectory folder, which has no cameras to choose from; leave camera out"
        )
    trajectories = _scan(path)
    arrays = [_read_arrays(t) for t in trajectories]
    states = [a["states"] for a in arrays] if all("states" in a for a in arrays) else None
    recording = Recording(
        names=[str(t.folder) for t in trajectories],
        actions=[a["actions"] for a in arrays],
        lengths=[len(t.frames) for t in trajectories],
        frames=lambda: _decoded(trajectories),
        states=states,
        state_names=() if states is None else tuple(f"s{i}" for i in range(states[0].shape[1])),
    )
    origin = path / ORIGIN
    return with_origin(recording, origin.read_bytes() if origin.is_file() else None, str(origin))


def write(episodes: Episodes, out: Path, options: WriteOptions) -> None:
    """One folder an episode. Errors: UserError for frames that are no RGB pictures."""
    channels = episodes.frames.shape[1]
    if channels != 3:
        raise UserError(f"trajectory folders hold RGB pictures, not frames of {channels} channels; use hdf5")
    with draft(out) as folder, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        width = len(str(len(episodes) - 1))
        for number, (rows, length) in enumerate(episode_rows(episodes)):
            place = folder / f"traj_{number:0{width}}" / "states"
            place.mkdir(parents=True)
            frames = np.asarray(episodes.frames[rows]).transpose(0, 2, 3, 1)
            save = lambda i, place=place, frames=frames: Image.fromarray(
                np.ascontiguousarray(frames[i])
            ).save(place / f"state_{i}.png")
            list(pool.map(save, range(length)))
            arrays = {"actions": np.asarray(episodes.actions[rows])[: length - 1]}
            if episodes.states is not None:
                arrays["states"] = episodes.states[rows]
            np.savez(place.parent / "actions.npz", **arrays)
        (folder / ORIGIN).write_text(json.dumps(origin_of(episodes), indent=1))


def _scan(folder: Path) -> list[_Trajectory]:
    """All trajectories in numeric order, each with its frames in numeric order."""
    folders = sorted((p for p in folder.glob("traj_*") if p.is_dir()), key=lambda p: natural(p.name))
    if not folders:
        raise UserError(f"{folder} holds no traj_* folders; expected traj_<name>/states/state_<i>.png")
    trajectories = [_scan_one(p) for p in folders]
    first = trajectories[0].first
    for t in trajectories:
        if t.first not in (0, 1) or t.first != first:
            also = f" while {trajectories[0].folder.name} starts at {first}" if t.first != first else ""
            raise UserError(
                f"{t.folder} starts at frame {t.first}{also}; frames are numbered from 0 (or all from 1), "
                "so that action i follows frame i"
            )
    return trajectories


def _scan_one(folder: Path) -> _Trajectory:
    states = folder / "states"
    numbered: dict[int, Path] = {}
    for path in sorted(states.glob("*")) if states.is_dir() else ():
        match = _STATE_NAME.fullmatch(path.name)
        if match is None:
            if path.suffix.lower() == ".png":
                raise UserError(f"{path} is not named state_<number>.png; rename it or move it away")
            continue
        number = int(match[1])
        if number in numbered:
            raise UserError(f"{path} and {numbered[number].name} have the same number; remove one of them")
        numbered[number] = path
    if not numbered:
        raise UserError(f"{folder} has no frames; expected {states}/state_<i>.png")
    numbers = sorted(numbered)
    if numbers[-1] - numbers[0] + 1 != len(numbers):
        gap = next(a + 1 for a, b in pairwise(numbers) if b != a + 1)
        raise UserError(
            f"{folder} lacks state_{gap}.png: its {len(numbers)} frames are numbered {numbers[0]} to "
            f"{numbers[-1]}; restore the missing frames or split the trajectory there"
        )
    if not (folder / "actions.npz").is_file():
        raise UserError(f"{folder} has no actions.npz; every trajectory needs one")
    return _Trajectory(folder, tuple(numbered[n] for n in numbers), numbers[0])


def _decoded(trajectories: Sequence[_Trajectory]) -> Iterator[Iterable[np.ndarray]]:
    shape = _read_frame(trajectories[0].frames[0]).shape[:2]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for t in trajectories:
            parts = [t.frames[i : i + PIECE] for i in range(0, len(t.frames), PIECE)]
            yield (np.stack(list(pool.map(lambda p: _read_frame(p, shape), part))) for part in parts)


def _read_frame(path: Path, expected: tuple[int, int] | None = None) -> np.ndarray:
    """One picture [H,W,3] uint8; `expected` is the (height, width) that all frames share."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            found = (image.height, image.width)
            if expected in (None, found):
                return np.asarray(image.convert("RGB"))
    except _DAMAGE as error:
        raise UserError(f"{path} is not a readable PNG ({one_line(error)}); restore it") from None
    raise UserError(
        f"{path} is {found[0]} x {found[1]} px while the first frame is {expected[0]} x {expected[1]}; all "
        "frames of a data set have one size"
    )


def _read_arrays(t: _Trajectory) -> dict[str, np.ndarray]:
    """The actions of a trajectory, and its states where they are there."""
    try:
        with np.load(BytesIO(t.actions.read_bytes()), allow_pickle=False) as archive:
            names = list(archive.files)
            name = "actions" if "actions" in names else names[0] if len(names) == 1 else None
            arrays = {} if name is None else {"actions": np.asarray(archive[name])}
            if name == "actions" and "states" in names:
                arrays["states"] = np.asarray(archive["states"])
    except _DAMAGE as error:
        raise UserError(
            f"{t.actions} is not a readable npz archive ({one_line(error)}); restore it"
        ) from None
    if name is None:
        raise UserError(f"{t.actions} holds the arrays {names}; name the one with the actions 'actions'")
    states = arrays.get("states")
    if states is not None and (
        states.ndim != 2 or len(states) != len(t.frames) or states.dtype.kind not in "biuf"
    ):
        raise UserError(
            f"{t.actions} holds states {states.dtype} {list(states.shape)}; {len(t.frames)} frames need numbers "
            f"[{len(t.frames)}, S]"
        )
    return arrays


TRAJECTORIES = Format(
    name="trajectories",
    looks="traj_* folders of PNG frames",
    matches=matches,
    files=files,
    read=read,
    write=write,
)
