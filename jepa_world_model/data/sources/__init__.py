"""Data sets on disk in every format that is known: opened as `Episodes` whose frames are memory-mapped.

A format is one file here with a `Format` in it, and its entry in `FORMATS`. Whatever it is, it is decoded once into
a store; the training loop never decodes an image or a video.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.graph import unknown
from jepa_world_model.data.episodes import Episodes
from jepa_world_model.data.sources.hdf5 import HDF5
from jepa_world_model.data.sources.lerobot import LEROBOT
from jepa_world_model.data.sources.minari import MINARI
from jepa_world_model.data.sources.recording import Format, ReadOptions, WriteOptions, fingerprint, to_store
from jepa_world_model.data.sources.stored import STORE, fits
from jepa_world_model.data.sources.trajectories import TRAJECTORIES
from jepa_world_model.data.sources.video import VIDEO
from jepa_world_model.data.store import open_store, write_once

CACHE_DIR = Path("datasets/cache")
FORMATS: Mapping[str, Format] = {f.name: f for f in (STORE, TRAJECTORIES, HDF5, MINARI, LEROBOT, VIDEO)}


def detect(path: str | Path, format: str = "auto") -> Format:
    """The format of a data set. Errors: UserError when it has none, or when it could have several."""
    path = Path(path)
    if format != "auto":
        if format not in FORMATS:
            raise UserError(unknown("data format", format, FORMATS))
        if not path.exists():
            raise UserError(f"{path} does not exist; give a folder or a file of a data set")
        return FORMATS[format]
    if not path.exists():
        raise UserError(f"{path} does not exist; give a folder or a file of a data set")
    found = [f for f in FORMATS.values() if f.matches(path)]
    if len(found) > 1:
        names = " and ".join(f.name for f in found)
        raise UserError(f"{path} looks like {names}; say which with --data.format")
    if not found:
        known = "; ".join(f"{f.looks} ({f.name})" for f in FORMATS.values())
        raise UserError(f"{path} is of no known format; expected one of: {known}")
    return found[0]


def open_episodes(
    path: str | Path,
    options: ReadOptions | None = None,
    *,
    cache_dir: str | Path = CACHE_DIR,
    verify: bool = False,
) -> Episodes:
    """The episodes of a folder or file, whichever known format it has.

    A store is mapped as it is. Anything else is decoded once into a store under `cache_dir`, found again by the
    names, sizes and times of all its files and by the options. `verify` compares the hash of every array.
    """
    path, options = Path(path), options or ReadOptions()
    format = detect(path, options.format)
    if format is STORE and fits(path, options):
        return open_store(path, verify=verify)
    key = fingerprint(path, format, options)
    cache = Path(cache_dir) / f"{path.resolve().name}-{key}"
    write_once(cache, lambda: to_store(format.read(path, options), cache, options, origin=str(path)))
    try:
        return replace(open_store(cache, verify=verify), name=path.name)
    except UserError as error:
        raise UserError(f"{error}; this is the cache of {path}: delete {cache} to build it again") from None


__all__ = ["FORMATS", "Format", "ReadOptions", "WriteOptions", "detect", "open_episodes"]
