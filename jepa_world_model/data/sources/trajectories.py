"""Trajectory folders: numbered PNG frames and the actions between them, decoded once into a store.

    <folder>/traj_<name>/states/state_<i>.png    frames in numeric order, without a gap, first number 0 or 1
    <folder>/traj_<name>/actions.npz             actions[i] follows frame i

`actions.npz` holds one array, or several of which one is called "actions". For T frames it has T-1 actions,
or T of which the last one is ignored; any other count is an error. Whole numbers [n] are discrete actions,
zeros and ones [n,bits] are buttons (multi_binary), other floats [n] or [n,dims] are continuous.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from jepa_world_model.core.errors import UserError
from jepa_world_model.data.batch import KINDS, ActionSpace
from jepa_world_model.data.episodes import Episodes
from jepa_world_model.data.store import StoreWriter, open_store, write_once

CACHE_DIR = Path("datasets/cache")
_STATE_NAME = re.compile(r"state_(\d+)\.png", re.IGNORECASE)
_CACHE_VERSION = 1  # raise it when the same files would be decoded differently

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


def is_trajectory_folder(folder: str | Path) -> bool:
    """Whether the folder holds trajectory folders."""
    return any(p.is_dir() for p in Path(folder).glob("traj_*"))


def open_trajectories(
    folder: str | Path,
    *,
    cache_dir: str | Path = CACHE_DIR,
    size: int | None = None,
    kind: str = "auto",
    verify: bool = False,
) -> Episodes:
    """The episodes of trajectory folders, by way of a store under `cache_dir`.

    The store is made at the first call and found again by the names, sizes and times of all files, by `size`
    and by `kind`. `size` resizes frames to a square of that many pixels; `kind` overrides the inferred kind
    of action.
    """
    folder = Path(folder)
    if kind not in ("auto", *KINDS):
        raise UserError(f"action kind is {kind!r}; use auto, {', '.join(KINDS)}")
    if size is not None and size < 1:
        raise UserError(f"size is {size} px; it must be at least 1")
    trajectories = _scan(folder)
    cache = Path(cache_dir) / f"{folder.resolve().name}-{_key(folder, trajectories, size, kind)}"
    write_once(cache, lambda: _decode(trajectories, cache, size, kind, str(folder)))
    try:
        return open_store(cache, verify=verify)
    except UserError as error:
        raise UserError(f"{error}; this is the cache of {folder}: delete {cache} to build it again") from None


def _scan(folder: Path) -> list[_Trajectory]:
    """All trajectories in numeric order, each with its frames in numeric order."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the one that holds traj_* folders")
    folders = sorted((p for p in folder.glob("traj_*") if p.is_dir()), key=lambda p: _natural(p.name))
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


def _natural(name: str) -> list[tuple[int, int | str]]:
    parts = re.split(r"(\d+)", name)
    return [(0, int(p)) if p.isdigit() else (1, p) for p in parts]


def _key(folder: Path, trajectories: Sequence[_Trajectory], size: int | None, kind: str) -> str:
    digest = hashlib.sha256(json.dumps([_CACHE_VERSION, size, kind]).encode())
    for t in trajectories:
        for path in (*t.frames, t.actions):
            stat = os.stat(path)
            digest.update(f"{path.relative_to(folder)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _decode(trajectories: Sequence[_Trajectory], cache: Path, size: int | None, kind: str, name: str) -> None:
    actions = [_read_actions(t) for t in trajectories]
    space = infer_space(actions, kind, [str(t.actions) for t in trajectories])
    first = _read_frame(trajectories[0].frames[0])
    height, width = first.shape[:2]
    shape = (3, height, width) if size is None else (3, size, size)
    writer = StoreWriter(
        cache, frame_shape=shape, space=space, env=name, policy="recorded", about={"size": size}
    )
    with writer, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for t, raw in zip(trajectories, actions, strict=True):
            pictures = list(pool.map(lambda p: _read_frame(p, (height, width), size), t.frames))
            writer.add(np.stack(pictures).transpose(0, 3, 1, 2), _stored(raw, space))


def _read_frame(path: Path, expected: tuple[int, int] | None = None, size: int | None = None) -> np.ndarray:
    """One picture [H,W,3] uint8; `expected` is the (height, width) that all frames share."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            found = (image.height, image.width)
            if expected in (None, found):
                picture = image.convert("RGB")
                if size is not None and found != (size, size):
                    picture = picture.resize((size, size), Image.Resampling.BOX)
                return np.asarray(picture)
    except _DAMAGE as error:
        raise UserError(f"{path} is not a readable PNG ({_one_line(error)}); restore it") from None
    raise UserError(
        f"{path} is {found[0]} x {found[1]} px while the first frame is {expected[0]} x {expected[1]}; all "
        "frames of a data set have one size"
    )


def _read_actions(t: _Trajectory) -> np.ndarray:
    """The actions of a trajectory, one less than frames; the surplus last one is dropped."""
    try:
        with np.load(BytesIO(t.actions.read_bytes()), allow_pickle=False) as archive:
            names = list(archive.files)
            name = "actions" if "actions" in names else names[0] if len(names) == 1 else None
            actions = None if name is None else np.asarray(archive[name])
    except (*_DAMAGE, AttributeError) as error:
        raise UserError(
            f"{t.actions} is not a readable npz archive ({_one_line(error)}); restore it"
        ) from None
    if actions is None:
        raise UserError(f"{t.actions} holds the arrays {names}; name the one with the actions 'actions'")
    if actions.ndim not in (1, 2) or actions.dtype.kind not in "biuf":
        raise UserError(
            f"{t.actions} holds {actions.dtype} {list(actions.shape)}; actions are numbers [n] or [n, dims]"
        )
    if len(actions) not in (len(t.frames) - 1, len(t.frames)):
        raise UserError(
            f"{t.folder} has {len(t.frames)} frames and {len(actions)} actions; {len(t.frames) - 1} actions "
            f"are needed, or {len(t.frames)} of which the last is ignored"
        )
    if actions.dtype.kind == "f" and not np.isfinite(actions).all():
        raise UserError(f"{t.actions} holds values that are not finite")
    return actions[: len(t.frames) - 1]


def infer_space(actions: Sequence[np.ndarray], kind: str = "auto", names: Sequence[str] = ()) -> ActionSpace:
    """The action space that fits all arrays [n] or [n,dims]; `names` says in errors where each came from."""
    names = names or [f"array {i}" for i in range(len(actions))]
    widths = [a.shape[1:] for a in actions]
    for name, width in zip(names, widths, strict=True):
        if width != widths[0]:
            raise UserError(
                f"{name} has actions of shape {list(width)} while {names[0]} has {list(widths[0])}; all "
                "trajectories of a data set share one action space"
            )
    whole = np.concatenate([a.astype(np.float64) for a in actions])
    if whole.size == 0:
        raise UserError(
            f"no trajectory has an action (widths {list(widths[0])}); every one has a single frame"
        )
    integral = all(a.dtype.kind in "biu" for a in actions)
    binary = whole.ndim == 2 and bool(((whole == 0) | (whole == 1)).all())
    if kind == "auto":
        if integral and (whole.ndim == 1 or whole.shape[1] == 1):
            kind = "discrete"
        elif binary:
            kind = "multi_binary"
        elif integral:
            raise UserError(
                f"{names[0]} has whole-numbered actions of {whole.shape[1]} columns, not all 0 or 1, which "
                "is neither discrete nor multi_binary; set the action kind, or encode them as one index"
            )
        else:
            kind = "continuous"
    if kind == "discrete":
        if (whole.ndim == 2 and whole.shape[1] != 1) or (whole != np.floor(whole)).any() or whole.min() < 0:
            raise UserError(
                f"{names[0]}: discrete actions are whole numbers [n] from 0; got shape {widths[0]}"
            )
        if whole.max() >= 4096:
            raise UserError(
                f"discrete actions go up to {whole.max():.0f}; more than 4096 actions are not supported"
            )
        return ActionSpace(kind="discrete", dim=int(whole.max()) + 1)
    if kind == "multi_binary":
        if not binary:
            raise UserError(
                f"{names[0]}: multi_binary actions are zeros and ones [n, bits]; got other values"
            )
        return ActionSpace(kind="multi_binary", dim=whole.shape[1])
    # Symmetric, so that the zero vector stays zero when it is encoded.
    reach = np.abs(whole.reshape(len(whole), -1)).max(0)
    reach = np.where(reach > 0, reach, 1.0)
    return ActionSpace(kind="continuous", dim=len(reach), low=tuple(-reach), high=tuple(reach))


def _stored(raw: np.ndarray, space: ActionSpace) -> np.ndarray:
    return raw.reshape(len(raw), *space.raw_shape)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:120]}" if text else type(error).__name__
