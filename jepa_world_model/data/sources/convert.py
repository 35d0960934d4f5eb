"""From any format into any other, by way of episodes; what was written is read back before it is believed."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.graph import unknown
from jepa_world_model.data.episodes import Episodes, describe
from jepa_world_model.data.sources import FORMATS, detect
from jepa_world_model.data.sources.recording import Format, ReadOptions, WriteOptions, to_store
from jepa_world_model.data.sources.stored import STORE, fits
from jepa_world_model.data.store import open_store


@dataclass(frozen=True)
class Converted:
    """What came of a conversion."""

    source: str  # format that was read
    target: str  # format that was written
    summary: str  # of the episodes
    mean_error: float  # of the pixels of the first episode read back, of 255
    max_error: int

    @property
    def lossless(self) -> bool:
        """Whether every pixel came back."""
        return self.max_error == 0


def convert(source: Path, out: Path, to: str, read: ReadOptions, write: WriteOptions) -> Converted:
    """Write the data set `source` to `out` in the format `to`.

    Errors: UserError for what cannot be read, what the format cannot hold, a target that exists, or a lossless
    target that does not read back equal; nothing is left then.
    """
    if to not in FORMATS:
        raise UserError(unknown("data format", to, FORMATS))
    if out.exists():
        raise UserError(f"{out} already exists and is not overwritten; choose another name or move it away")
    found, target = detect(source, read.format), FORMATS[to]
    with _as_episodes(source, found, read, out) as episodes:
        target.write(episodes, out, write)
        mean, most = read_back(target, out, episodes)
        if most and not write.crf:
            _remove(out)
            raise UserError(
                f"{out} did not read back equal (pixels off by up to {most} of 255), though {to} should be lossless; "
                "it was removed: please report this"
            )
        return Converted(found.name, to, describe(episodes), mean, most)


@contextmanager
def _as_episodes(source: Path, format: Format, read: ReadOptions, out: Path) -> Iterator[Episodes]:
    """Open episodes; those of another format are in a store beside `out` while they are needed."""
    if format is STORE and fits(source, read):
        yield open_store(source)
        return
    spool = out.parent / f".{out.name}.{uuid.uuid4().hex[:8]}.spool"
    try:
        to_store(format.read(source, read), spool, read, origin=str(source))
        yield open_store(spool)
    finally:
        shutil.rmtree(spool, ignore_errors=True)


def read_back(format: Format, out: Path, episodes: Episodes) -> tuple[float, int]:
    """Mean and largest error of the first episode's pixels, as the format's own reader finds them.

    Errors: UserError when its actions or its length came back otherwise.
    """
    recording = format.read(out, ReadOptions())
    start, length = episodes.bounds[0]
    by_episode = iter(recording.frames())  # kept: a reader closes its file when this is dropped
    frames = np.concatenate(list(next(by_episode))).transpose(0, 3, 1, 2)
    wanted = np.asarray(episodes.frames[start : start + length])
    raw = np.asarray(episodes.actions[start : start + length - 1])
    back = np.asarray(recording.actions[0])[: length - 1].reshape(raw.shape)
    if (
        len(recording.actions) != len(episodes)
        or frames.shape != wanted.shape
        or not np.array_equal(back, raw)
    ):
        raise UserError(
            f"{out} was written but does not read back with the same frames and actions; do not use it"
        )
    error = np.abs(frames.astype(np.int16) - wanted)
    return float(error.mean()), int(error.max())


def _remove(out: Path) -> None:
    if out.is_dir():
        shutil.rmtree(out)
    else:
        out.unlink()
