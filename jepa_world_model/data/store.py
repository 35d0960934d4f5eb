"""The store: a folder with memory-mapped frames, actions, states and a manifest.

    frames.npy     [N,C,H,W] uint8      memory-mapped when opened, never decoded
    actions.npy    [N,...]   raw        row i follows frame i; an episode's last row is padding, never read
    states.npy     [N,S]     float32    only where the environment tells its true state
    manifest.json  format, format_version, env, seed, policy, action_space, episodes [[start, length], ...],
                   frame_shape, state_names, num_frames, sha256 of each array, created

A store is written to a temporary folder beside it and renamed at the end: it is there whole or not at all.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from jepa_world_model.core.errors import UserError
from jepa_world_model.data.batch import ActionSpace
from jepa_world_model.data.episodes import Episodes

FORMAT = "jepa_wm_episodes"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
CHUNK_BYTES = 1 << 25  # frames are copied and hashed in pieces of 32 MiB
_HEADER_BYTES = 256  # room for the header of an array whose length is known only at the end
_NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(?P<type>[<|]?[a-z]\d+)', 'fortran_order': False, "
    rb"'shape': \((?P<shape>[\d, ]{1,99})\), \} *\n",
    re.DOTALL,
)


class _GrowingArray:
    """A .npy file that grows row by row; its header is filled in when it is closed."""

    def __init__(self, path: Path, dtype: np.dtype, row_shape: tuple[int, ...]) -> None:
        self.dtype, self.row_shape, self.rows = np.dtype(dtype), row_shape, 0
        self.hash = hashlib.sha256()
        self.file: BinaryIO = path.open("wb")
        self.file.write(b"\0" * _HEADER_BYTES)

    def append(self, rows: np.ndarray) -> None:
        """Add rows at the end."""
        data = np.ascontiguousarray(rows, self.dtype)
        self.file.write(data.data)
        self.hash.update(data.data)
        self.rows += len(data)

    def finish(self) -> str:
        """Write the header, flush to disk, and return the hash of the data."""
        shape = (self.rows, *self.row_shape)
        head = f"{{'descr': {self.dtype.str!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
        text = head.ljust(_HEADER_BYTES - 11) + "\n"
        self.file.seek(0)
        self.file.write(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode("latin1"))
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        return self.hash.hexdigest()


class StoreWriter:
    """Writes episodes one after another; the folder appears when the `with` block ends without an error."""

    def __init__(
        self,
        out: str | Path,
        *,
        frame_shape: Sequence[int],
        space: ActionSpace,
        state_names: Sequence[str] = (),
        env: str = "",
        seed: int | None = None,
        policy: str = "",
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.out = Path(out)
        if self.out.exists():
            raise UserError(
                f"{self.out} already exists and is not overwritten; choose another name or move it away"
            )
        self.space = space
        self.frame_shape = tuple(int(n) for n in frame_shape)
        self.state_names = tuple(state_names)
        self.head = {"env": env, "seed": seed, "policy": policy, **(about or {})}
        self.bounds: list[list[int]] = []
        self._folder = self.out.parent / f".{self.out.name}.{uuid.uuid4().hex[:8]}.part"

    def __enter__(self) -> StoreWriter:
        with _disk_errors(self.out):
            self._folder.mkdir(parents=True)
            self._arrays = {"frames": _GrowingArray(self._folder / "frames.npy", np.uint8, self.frame_shape)}
            self._arrays["actions"] = _GrowingArray(
                self._folder / "actions.npy", self.space.raw_dtype, self.space.raw_shape
            )
            if self.state_names:
                width = (len(self.state_names),)
                self._arrays["states"] = _GrowingArray(self._folder / "states.npy", np.float32, width)
        return self

    def add(self, frames: np.ndarray, actions: np.ndarray, states: np.ndarray | None = None) -> None:
        """One episode: frames [L,C,H,W], actions [L-1,...] or [L,...] (the last ignored), states [L,S]."""
        length, where = len(frames), f"episode {len(self.bounds)}"
        if length < 1 or tuple(frames.shape[1:]) != self.frame_shape or frames.dtype != np.uint8:
            raise ValueError(
                f"{where} has frames {frames.dtype} {tuple(frames.shape)}; this store holds uint8 "
                f"{self.frame_shape}"
            )
        if len(actions) not in (length - 1, length):
            raise UserError(
                f"{where} has {len(actions)} actions for {length} frames; give {length - 1}, or {length} of "
                "which the last is ignored"
            )
        if (states is None) != (not self.state_names):
            raise ValueError(
                f"{where}: give states exactly when the store has state names ({self.state_names})"
            )
        if states is not None and tuple(states.shape) != (length, len(self.state_names)):
            raise ValueError(f"{where} has states {states.shape}; it needs {(length, len(self.state_names))}")
        raw = np.zeros((length, *self.space.raw_shape), self.space.raw_dtype)
        raw[: length - 1] = self.space.check(actions, f"{where}: actions")[: length - 1]
        start = self._arrays["frames"].rows
        with _disk_errors(self.out):
            step = max(CHUNK_BYTES // max(int(np.prod(self.frame_shape)), 1), 1)
            for first in range(0, length, step):
                self._arrays["frames"].append(np.asarray(frames[first : first + step]))
            self._arrays["actions"].append(raw)
            if states is not None:
                self._arrays["states"].append(states)
        self.bounds.append([start, length])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                if not self.bounds:
                    raise UserError(f"{self.out}: no episode was written, so there is no data set")
                with _disk_errors(self.out):
                    self._publish()
        finally:
            for array in self._arrays.values():
                array.file.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _publish(self) -> None:
        manifest = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            **self.head,
            "action_space": self.space.to_json(),
            "frame_shape": list(self.frame_shape),
            "state_names": list(self.state_names),
            "num_frames": self._arrays["frames"].rows,
            "sha256": {name: array.finish() for name, array in self._arrays.items()},
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "episodes": self.bounds,
        }
        with (self._folder / MANIFEST).open("w") as file:
            file.write(json.dumps(manifest) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.rename(self._folder, self.out)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise UserError(
                    f"{self.out} was made by somebody else meanwhile; nothing was overwritten"
                ) from None
            raise


class _disk_errors:
    """Turns a full or unwritable disk into one sentence."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            raise UserError(
                f"{self.out} could not be written ({error.strerror or error}); nothing was left there: free "
                "some space or choose another folder"
            ) from None


def write_arrays(
    out: str | Path, arrays: Mapping[str, Any], *, env: str, seed: int, policy: str, **about: Any
) -> Path:
    """A store from what a generator returns: frames, actions, bounds, action_space, states and state_names.

    Frames may be any object with a shape that is indexed by slices; they are written piece by piece.
    """
    frames, states = arrays["frames"], arrays.get("states")
    needed, parent = int(np.prod(frames.shape)), Path(out).absolute().parent
    while not parent.exists():
        parent = parent.parent
    if (free := shutil.disk_usage(parent).free) < needed:
        raise UserError(
            f"{out} needs {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; ask for fewer or smaller "
            "episodes"
        )
    writer = StoreWriter(
        out,
        frame_shape=frames.shape[1:],
        space=ActionSpace.from_json(arrays["action_space"]),
        state_names=arrays.get("state_names", ()),
        env=env,
        seed=seed,
        policy=policy,
        about={**arrays.get("about", {}), **about},
    )
    with writer:
        for start, length in np.asarray(arrays["bounds"]).tolist():
            rows = slice(start, start + length)
            writer.add(frames[rows], arrays["actions"][rows], None if states is None else states[rows])
    return Path(out)


def from_arrays(arrays: Mapping[str, Any], *, name: str = "generated") -> Episodes:
    """Episodes straight from what a generator returns, without a file."""
    space = ActionSpace.from_json(arrays["action_space"])
    return Episodes(
        frames=arrays["frames"],
        actions=space.check(arrays["actions"]),
        bounds=np.asarray(arrays["bounds"], np.int64),
        space=space,
        states=arrays.get("states"),
        name=name,
        state_names=tuple(arrays.get("state_names", ())),
        manifest=dict(arrays.get("about", {})),
    ).validate()


def is_store(folder: str | Path) -> bool:
    """Whether the folder holds a store."""
    return (Path(folder) / MANIFEST).is_file()


def write_once(folder: str | Path, write: Callable[[], object]) -> None:
    """Call `write` unless the folder holds a store; of several processes the first to finish wins."""
    if is_store(folder):
        return
    try:
        write()
    except UserError:
        # Another process finished the same store meanwhile; otherwise the error stands.
        if not is_store(folder):
            raise


def open_store(folder: str | Path, *, verify: bool = False) -> Episodes:
    """The episodes of a store, frames memory-mapped; `verify` also compares the hash of every array.

    Errors: UserError with one sentence that names the file when something is missing, truncated or altered.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder / MANIFEST)
    try:
        space = ActionSpace.from_json(manifest["action_space"])
        bounds = np.array(manifest["episodes"], np.int64).reshape(-1, 2)
        frame_shape = tuple(int(n) for n in manifest["frame_shape"])
        state_names = tuple(str(n) for n in manifest["state_names"])
        count, hashes = int(manifest["num_frames"]), dict(manifest["sha256"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        what = (
            f"lacks {error}" if isinstance(error, KeyError) else f"has a field that cannot be read: {error}"
        )
        raise UserError(f"{folder / MANIFEST} {what}; write the data set again") from None
    ends = np.cumsum(bounds[:, 1])
    if (bounds[:, 1] < 1).any() or (bounds[:, 0] != ends - bounds[:, 1]).any() or ends[-1:].sum() != count:
        raise UserError(
            f"{folder / MANIFEST}: the episodes do not add up to {count} frames; write the data set again"
        )
    expected = {
        "frames": (np.dtype(np.uint8), (count, *frame_shape)),
        "actions": (space.raw_dtype, (count, *space.raw_shape)),
    }
    if state_names:
        expected["states"] = (np.dtype(np.float32), (count, len(state_names)))
    arrays = {n: _map_array(folder / f"{n}.npy", dtype, shape) for n, (dtype, shape) in expected.items()}
    if verify:
        for name, array in arrays.items():
            _verify(folder / f"{name}.npy", array, hashes.get(name))
    try:
        return Episodes(
            frames=arrays["frames"],
            actions=space.check(arrays["actions"], f"{folder / 'actions.npy'}: actions"),
            bounds=bounds,
            space=space,
            states=np.array(arrays["states"]) if "states" in arrays else None,
            name=folder.name,
            state_names=state_names,
            manifest=manifest,
        ).validate()
    except ValueError as error:
        raise UserError(f"{error}; the data set {folder} is damaged, write it again") from None


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path} does not exist; a data set is a folder that holds one") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); write the data set again") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UserError(f"{path} is not the manifest of a data set: its format must be {FORMAT!r}")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{path} has format_version {manifest.get('format_version')!r}; this program reads "
            f"{FORMAT_VERSION}: write the data set again or use the program that wrote it"
        )
    return manifest


def _map_array(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """The array of a .npy file, memory-mapped, when type, shape and file size are the expected ones."""
    size = int(np.prod([dtype.itemsize, *shape], dtype=object))
    try:
        with path.open("rb") as file:
            start = file.read(10 + 65535)
        actual = path.stat().st_size
    except FileNotFoundError:
        raise UserError(f"{path} is missing; expected {dtype} {list(shape)}, {size} bytes of data") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    offset = 10 + int.from_bytes(start[8:10], "little")
    # Matched, not evaluated: this is how numpy writes a version 1 header.
    head = _NPY_HEADER.fullmatch(start[:offset])
    if head is None:
        raise UserError(f"{path} has a damaged header; expected an array {dtype} {list(shape)}")
    found = tuple(int(n) for n in head["shape"].replace(b",", b" ").split())
    if head["type"].decode() != dtype.str or found != shape:
        raise UserError(
            f"{path} holds {head['type'].decode()} {list(found)}; the manifest says {dtype.str} {list(shape)}"
        )
    if actual != offset + size:
        raise UserError(
            f"{path} is {actual} bytes long, expected {offset + size}; copy or write the data set again"
        )
    return np.memmap(path, dtype, "r", offset, shape)


def _verify(path: Path, array: np.ndarray, expected: object) -> None:
    digest, flat = hashlib.sha256(), array.reshape(-1)
    step = CHUNK_BYTES // array.dtype.itemsize
    for first in range(0, flat.size, step):
        digest.update(np.ascontiguousarray(flat[first : first + step]).data)
    if digest.hexdigest() != expected:
        raise UserError(
            f"{path} was altered: its sha256 is not the one in the manifest; copy or write it again"
        )
