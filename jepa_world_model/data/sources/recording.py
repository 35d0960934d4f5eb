"""What every reader returns, whatever the format: episodes whose frames are decoded when a store is written."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from jepa_world_model.core.errors import UserError
from jepa_world_model.data.batch import KINDS, ActionSpace
from jepa_world_model.data.episodes import Episodes
from jepa_world_model.data.frames import check_fit, fit_frame
from jepa_world_model.data.sources.actions import infer_space
from jepa_world_model.data.store import StoreWriter

CACHE_VERSION = 2  # raise it when the same files would be decoded differently
PIECE = 128  # frames decoded at a time
OWN_KEYS = (  # of a manifest: about the store itself, not about where its data come from
    "format", "format_version", "action_space", "frame_shape", "state_names", "num_frames", "sha256", "created",
    "episodes", "env", "seed", "policy",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How a data set that is not a store yet is read."""

    format: str = "auto"  # a format; auto: the one whose files are there
    camera: str = ""  # which images, where there are several
    # discrete, multi_binary or continuous; auto: as the format tells, else inferred
    action_kind: str = "auto"
    size: int = 0  # px, square that frames are resized to; 0 keeps their size
    # how a frame that is not square becomes one: "letterbox" (bars), "crop" or "squeeze"
    fit: str = "letterbox"

    def __post_init__(self) -> None:
        check_fit(self.fit)
        if self.action_kind not in ("auto", *KINDS):
            raise UserError(f"action kind is {self.action_kind!r}; use auto, {', '.join(KINDS)}")
        if self.size < 0:
            raise UserError(f"size is {self.size} px; use 0 to keep the size of the frames, or 1 and above")


@dataclass(frozen=True, kw_only=True)
class WriteOptions:
    """How a data set is written in another format."""

    crf: int = 0  # of videos: 0 keeps every pixel; 12 to 28 makes smaller files and changes them

    def __post_init__(self) -> None:
        if not 0 <= self.crf <= 51:
            raise UserError(f"crf is {self.crf}; use 0 for lossless video, or 1 to 51 (18 looks the same)")


@dataclass(frozen=True, kw_only=True)
class Recording:
    """E episodes as a reader found them, frames not decoded yet."""

    names: Sequence[str]  # [E] what an error calls each of them
    actions: Sequence[np.ndarray]  # [E] arrays [L-1,...], or [L,...] of which the last is ignored
    frames: Callable[[], Iterator[Iterable[np.ndarray]]]  # episode by episode: pieces [n,H,W,C] uint8
    lengths: Sequence[int] | None = None  # [E] frames, where they are known before decoding
    states: Sequence[np.ndarray] | None = None  # [E] arrays [L,S]
    state_names: tuple[str, ...] = ()
    space: ActionSpace | None = None  # None: inferred from the actions
    about: Mapping[str, Any] = field(default_factory=dict)  # env, seed, policy and whatever else is known


@dataclass(frozen=True, kw_only=True)
class Format:
    """A layout on disk: how it is recognised, read and written."""

    name: str
    looks: str  # what a folder of this format holds, for errors and help
    matches: Callable[[Path], bool]
    files: Callable[[Path], Sequence[Path]]  # all that is read; their names, sizes and times tell a change
    read: Callable[[Path, ReadOptions], Recording]
    write: Callable[[Episodes, Path, WriteOptions], None]


def fingerprint(path: Path, format: Format, options: ReadOptions) -> str:
    """A short key that changes with the files of a data set and with how they are read."""
    asked = [CACHE_VERSION, format.name, options.camera, options.action_kind, options.size, options.fit]
    digest = hashlib.sha256(json.dumps(asked).encode())
    for file in format.files(path):
        stat = os.stat(file)
        digest.update(f"{os.path.relpath(file, path)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def to_store(recording: Recording, out: Path, options: ReadOptions, *, origin: str) -> None:
    """Decode a recording into a store; `origin` stands for the environment where none is known.

    Errors: UserError where counts, sizes or action spaces of the episodes do not go together; nothing is left.
    """
    actions = aligned_actions(recording)
    space = recording.space
    if space is None or options.action_kind not in ("auto", space.kind):
        space = infer_space(actions, options.action_kind, recording.names)
    about = {k: v for k, v in recording.about.items() if k not in OWN_KEYS}
    about |= {"size": options.size, "fit": options.fit} if options.size else {}
    first: tuple[int, ...] = ()
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(min(8, os.cpu_count() or 1)))
        for i, pieces in enumerate(recording.frames()):
            made = []
            for piece in pieces:
                first = first or piece.shape[1:]
                made.append(_squared(_checked(piece, first, recording.names[i]), options, pool))
            frames = np.concatenate(made).transpose(0, 3, 1, 2) if made else np.zeros((0, 1, 1, 1), np.uint8)
            _check_counts([recording.names[i]], [len(frames)], [len(actions[i])])
            if i == 0:
                writer = StoreWriter(
                    out, frame_shape=frames.shape[1:], space=space, state_names=recording.state_names,
                    env=str(recording.about.get("env") or origin), seed=recording.about.get("seed"),
                    policy=str(recording.about.get("policy") or "recorded"), about=about,
                )  # fmt: skip
                stack.enter_context(writer)
            states = None if recording.states is None else recording.states[i].astype(np.float32)
            if states is not None and len(states) != len(frames):
                name = recording.names[i]
                raise UserError(
                    f"{name} has {len(frames)} frames and {len(states)} states; each frame needs one"
                )
            writer.add(frames, _raw(actions[i], space, recording.names[i]), states)


def aligned_actions(recording: Recording) -> list[np.ndarray]:
    """The actions, L-1 an episode where lengths are known. Errors: UserError for counts and types that cannot be."""
    made = []
    if recording.lengths is not None:
        counts = [len(actions) if actions.ndim else 0 for actions in recording.actions]
        _check_counts(recording.names, recording.lengths, counts)
    for i, (name, actions) in enumerate(zip(recording.names, recording.actions, strict=True)):
        if actions.ndim not in (1, 2) or actions.dtype.kind not in "biuf":
            raise UserError(
                f"{name} holds actions {actions.dtype} {list(actions.shape)}; actions are numbers [n] or [n, dims]"
            )
        if recording.lengths is not None:
            actions = actions[: recording.lengths[i] - 1]
        if actions.dtype.kind == "f" and not np.isfinite(actions).all():
            raise UserError(f"{name} holds actions that are not finite")
        made.append(actions)
    return made


def _check_counts(names: Sequence[str], frames: Sequence[int], actions: Sequence[int]) -> None:
    """Errors: UserError for the first episode whose counts do not go together, and how many more there are."""
    bad = [i for i, (f, a) in enumerate(zip(frames, actions, strict=True)) if f < 1 or a not in (f - 1, f)]
    if not bad:
        return
    name, count, found = names[bad[0]], frames[bad[0]], actions[bad[0]]
    more = f" (and so {len(bad) - 1} more of {len(names)} episodes)" if len(bad) > 1 else ""
    if count < 1:
        raise UserError(f"{name} has no frames; remove it or record it again{more}")
    raise UserError(
        f"{name} has {count} frames and {found} actions; {count - 1} actions are needed, or {count} of which the "
        f"last is ignored{more}"
    )


def _raw(actions: np.ndarray, space: ActionSpace, name: str) -> np.ndarray:
    width = int(np.prod(actions.shape[1:]))
    if width != int(np.prod(space.raw_shape)):
        raise UserError(
            f"{name} has actions of {width} numbers; this data set has {space.kind} ones of {space.dim}"
        )
    return actions.reshape(len(actions), *space.raw_shape)


def _checked(piece: np.ndarray, first: tuple[int, ...], name: str) -> np.ndarray:
    if piece.dtype != np.uint8 or piece.ndim != 4:
        raise UserError(
            f"{name} holds frames {piece.dtype} {list(piece.shape)}; uint8 [n, H, W, C] is needed"
        )
    if piece.shape[1:] != first:
        raise UserError(
            f"{name} is {_px(piece.shape[1:])} while the first frame is {_px(first)}; all frames of a data set "
            "have one size"
        )
    return piece


def _px(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} x {shape[1]} px" + ("" if shape[2] == 3 else f" with {shape[2]} channels")


def _squared(piece: np.ndarray, options: ReadOptions, pool: ThreadPoolExecutor) -> np.ndarray:
    if not options.size or not len(piece):
        return piece
    return np.stack(list(pool.map(lambda frame: fit_frame(frame, options.size, options.fit), piece)))


def choose_camera(cameras: Sequence[str], asked: str, where: str) -> str:
    """The one camera there is, or the one asked for. Errors: UserError that lists them."""
    if asked and asked not in cameras:
        raise UserError(f"{where} has no camera {asked!r}; it has {', '.join(cameras) or 'no images'}")
    if not cameras:
        raise UserError(f"{where} has no images, and a world model needs frames")
    if not asked and len(cameras) > 1:
        raise UserError(f"{where} has several cameras, {', '.join(cameras)}; choose one with --data.camera")
    return asked or cameras[0]


# ---- what writers share ----


@contextmanager
def draft(out: Path) -> Iterator[Path]:
    """A path beside `out` to write to; it becomes `out` at the end, or vanishes with an error."""
    if out.exists():
        raise UserError(f"{out} already exists and is not overwritten; choose another name or move it away")
    out.parent.mkdir(parents=True, exist_ok=True)
    made = out.with_name(f".{out.stem}.{uuid.uuid4().hex[:8]}.part{out.suffix}")
    try:
        yield made
        os.rename(made, out)
    except OSError as error:
        raise UserError(
            f"{out} could not be written ({error.strerror or error}); nothing was left there"
        ) from None
    finally:
        shutil.rmtree(made, ignore_errors=True)
        made.unlink(missing_ok=True)


def origin_of(episodes: Episodes) -> dict[str, Any]:
    """What a file should carry beside its arrays so that reading it again gives the same store."""
    told = {k: v for k, v in episodes.manifest.items() if k not in OWN_KEYS}
    told |= {k: episodes.manifest.get(k) for k in ("env", "seed", "policy") if k in episodes.manifest}
    return {
        "action_space": episodes.space.to_json(),
        "state_names": list(episodes.state_names),
        "about": told,
    }


def with_origin(recording: Recording, text: str | bytes | None, where: str) -> Recording:
    """A recording with what `origin_of` told; unchanged without it."""
    if text is None:
        return recording
    try:
        told = json.loads(text)
        return replace(
            recording,
            space=ActionSpace.from_json(told["action_space"]),
            state_names=tuple(str(n) for n in told["state_names"]) if recording.states is not None else (),
            about=dict(told["about"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{where} cannot be read ({one_line(error)}); restore it or delete it") from None


def episode_rows(episodes: Episodes) -> Iterator[tuple[slice, int]]:
    """Rows and number of frames of each episode."""
    for start, length in episodes.bounds.tolist():
        yield slice(start, start + length), length


def natural(name: str) -> list[tuple[int, int | str]]:
    """A sort key by which episode_10 comes after episode_9."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name)]


def one_line(error: BaseException) -> str:
    """An error of a library, short and on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:120]}" if text else type(error).__name__
