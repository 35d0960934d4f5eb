"""HDF5 files, in two layouts.

Columns (what we write, and what stable-worldmodel records): rows of all episodes one after another.

    pixels [N,H,W,C] or [N,C,H,W] uint8     action [N] or [N,A]; row i follows frame i
    ep_len [E]   ep_offset [E] (optional)   state [N,S] (optional)

Demonstrations (robomimic, robosuite): a group for each episode.

    data/demo_<i>/obs/<camera> [L,H,W,C] uint8      data/demo_<i>/actions [L,A]

The last action of an episode is ignored: what it led to is not among the frames.
"""

from __future__ import annotations

import contextlib
import importlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.extras import require
from jepa_world_model.data.episodes import Episodes
from jepa_world_model.data.sources.recording import (
    PIECE,
    Format,
    ReadOptions,
    Recording,
    WriteOptions,
    choose_camera,
    draft,
    episode_rows,
    natural,
    one_line,
    origin_of,
    with_origin,
)

SUFFIXES = (".h5", ".hdf5")
ORIGIN = "jepa_wm_origin"  # attribute of the file; written by `convert`, not needed
MINARI = "main_data.hdf5"  # in a folder of Minari's, which has a reader of its own
DAMAGE = (
    OSError,
    RuntimeError,
    KeyError,
    TypeError,
    AttributeError,
)  # what h5py raises, collected by mutating files
ACTION_KEYS = ("action", "actions")


def _h5py() -> Any:
    return require("h5py", "HDF5 files", "data")


def _found(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(p for p in path.iterdir() if p.suffix in SUFFIXES and p.name != MINARI)
    return [path] if path.suffix in SUFFIXES else []


def matches(path: Path) -> bool:
    """Whether this is an HDF5 file, or a folder that holds some."""
    return bool(_found(path))


def files(path: Path) -> list[Path]:
    """The one file. Errors: UserError when a folder holds several."""
    found = _found(path)
    if len(found) != 1:
        names = ", ".join(p.name for p in found) or "none"
        raise UserError(f"{path} holds several HDF5 files or none ({names}); give the path of one of them")
    return found


def read(path: Path, options: ReadOptions) -> Recording:
    """The episodes of a file in either layout. Errors: UserError for what is damaged or missing."""
    (file,) = files(path)
    with _opened(file) as store:
        if "ep_len" in store:
            return _read_columns(file, store, options)
        if "data" in store and any(name.startswith("demo") for name in store["data"]):
            return _read_demonstrations(file, store, options)
        raise UserError(
            f"{file} holds {', '.join(store) or 'nothing'}; expected pixels, action and ep_len, or "
            "data/demo_<i> with obs and actions"
        )


class _opened:
    """An HDF5 file for reading; whatever h5py finds damaged becomes one sentence."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __enter__(self) -> Any:
        self.store = None
        h5py = _h5py()
        with contextlib.suppress(ImportError):  # registers the filters of compressed files where it is there
            importlib.import_module("hdf5plugin")
        try:
            self.store = h5py.File(self.file, "r")
        except (OSError, RuntimeError) as error:
            raise UserError(f"{self.file} is not a readable HDF5 file ({one_line(error)})") from None
        return self.store

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.store.close()
        if isinstance(error, DAMAGE):
            raise _unreadable(self.file, error) from None


def _unreadable(file: Path, error: BaseException) -> UserError:
    hint = "; its compression may need the package hdf5plugin" if "filter" in str(error) else ""
    return UserError(f"{file} cannot be read ({one_line(error)}){hint}")


def _read_columns(file: Path, store: Any, options: ReadOptions) -> Recording:
    cameras = [name for name, node in store.items() if _is_images(node)]
    camera = choose_camera(cameras, options.camera, str(file))
    key = next((name for name in ACTION_KEYS if name in store), None)
    if key is None:
        raise UserError(f"{file} has no column {' or '.join(ACTION_KEYS)}; it holds {', '.join(store)}")
    lengths = np.asarray(store["ep_len"][()], np.int64).reshape(-1)
    starts = np.cumsum(lengths) - lengths
    if "ep_offset" in store:
        starts = np.asarray(store["ep_offset"][()], np.int64).reshape(-1)
    total, rows = len(store[camera]), len(store[key])
    if (
        len(starts) != len(lengths)
        or (lengths < 1).any()
        or (starts < 0).any()
        or (starts + lengths > total).any()
    ):
        raise UserError(f"{file}: ep_len and ep_offset do not fit its {total} frames; write the file again")
    if rows != total:
        raise UserError(f"{file} has {total} frames and {rows} rows of {key}; each frame needs one row")
    column = np.asarray(store[key])
    spans = [slice(a, a + n) for a, n in zip(starts.tolist(), lengths.tolist(), strict=True)]
    states = None
    if "state" in store and store["state"].ndim == 2 and len(store["state"]) == total:
        states = [np.asarray(store["state"][part], np.float32) for part in spans]
    recording = Recording(
        names=[f"{file}, episode {i}" for i in range(len(spans))],
        actions=[column[part] for part in spans],
        lengths=lengths.tolist(),
        frames=lambda: _pieces(file, [(camera, part) for part in spans]),
        states=states,
        state_names=() if states is None else tuple(f"s{i}" for i in range(states[0].shape[1])),
    )
    return with_origin(recording, store.attrs.get(ORIGIN), f"{file}, attribute {ORIGIN}")


def _read_demonstrations(file: Path, store: Any, options: ReadOptions) -> Recording:
    names = sorted((n for n in store["data"] if n.startswith("demo")), key=natural)
    for name in names:
        for key in ("obs", "actions"):
            if key not in store["data"][name]:
                raise UserError(f"{file}: data/{name} has no {key}; image observations must be in the file")
    first = store["data"][names[0]]["obs"]
    camera = choose_camera([k for k, node in first.items() if _is_images(node)], options.camera, str(file))
    nodes = []
    for name in names:
        obs = store["data"][name]["obs"]
        if camera not in obs or not _is_images(obs[camera]):
            raise UserError(f"{file}: data/{name}/obs has no images {camera!r}, which other episodes have")
        nodes.append((f"data/{name}/obs/{camera}", slice(0, len(obs[camera]))))
    return Recording(
        names=[f"{file}, {name}" for name in names],
        actions=[np.asarray(store["data"][name]["actions"]) for name in names],
        lengths=[part.stop for _, part in nodes],
        frames=lambda: _pieces(file, nodes),
        about={"env": _env_name(store["data"].attrs.get("env_args"))},
    )


def _env_name(args: Any) -> str:
    """What robomimic calls the environment, where it says so."""
    try:
        return str(json.loads(args)["env_name"])
    except (TypeError, ValueError, KeyError):
        return ""


def _is_images(node: Any) -> bool:
    shape = getattr(node, "shape", ())
    return len(shape) == 4 and str(node.dtype) == "uint8" and min(shape[1], shape[3]) <= 4


def _pieces(file: Path, nodes: list[tuple[str, slice]]) -> Iterator[Iterable[np.ndarray]]:
    with _opened(file) as store:
        for name, part in nodes:
            yield _cuts(file, store[name], part)


def _cuts(file: Path, node: Any, part: slice) -> Iterator[np.ndarray]:
    last = node.shape[3] <= 4  # channels come last; else they come first
    for i in range(part.start, part.stop, PIECE):
        try:
            piece = node[i : min(i + PIECE, part.stop)]
        except DAMAGE as error:
            raise _unreadable(file, error) from None
        yield piece if last else piece.transpose(0, 2, 3, 1)


def write(episodes: Episodes, out: Path, options: WriteOptions) -> None:
    """One file of columns, which h5py and stable-worldmodel read without this package."""
    h5py = _h5py()
    if out.suffix not in SUFFIXES:
        raise UserError(f"{out} must end in .h5 or .hdf5 to be found again as an HDF5 file")
    count, channels, height, width = episodes.lengths.sum(), *episodes.frames.shape[1:]
    with draft(out) as path, h5py.File(path, "w") as store:
        shape = (count, height, width, channels)
        pixels = store.create_dataset("pixels", shape, "u1", chunks=(1, *shape[1:]), compression="lzf")
        action = store.create_dataset("action", (count, *episodes.space.raw_shape), episodes.space.raw_dtype)
        state = None
        if episodes.states is not None:
            state = store.create_dataset("state", (count, episodes.states.shape[1]), "f4")
        at = 0
        for rows, length in episode_rows(episodes):
            for i in range(0, length, PIECE):
                part = slice(rows.start + i, min(rows.start + i + PIECE, rows.stop))
                frames = np.asarray(episodes.frames[part]).transpose(0, 2, 3, 1)
                pixels[at + i : at + i + len(frames)] = frames
            action[at : at + length] = np.asarray(episodes.actions[rows])
            if state is not None:
                state[at : at + length] = episodes.states[rows]
            at += length
        store["ep_len"] = episodes.lengths.astype(np.int32)
        store["ep_offset"] = (np.cumsum(episodes.lengths) - episodes.lengths).astype(np.int64)
        store.attrs[ORIGIN] = json.dumps(origin_of(episodes))


HDF5 = Format(
    name="hdf5",
    looks="one .h5 or .hdf5 file",
    matches=matches,
    files=files,
    read=read,
    write=write,
)
