"""Our own store as a format among others: mapped as it is, or decoded again at another size."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jepa_world_model.core.errors import UserError
from jepa_world_model.data.episodes import Episodes
from jepa_world_model.data.sources.recording import (
    PIECE,
    Format,
    ReadOptions,
    Recording,
    WriteOptions,
    episode_rows,
    to_store,
)
from jepa_world_model.data.store import MANIFEST, is_store, open_store


def fits(path: Path, options: ReadOptions) -> bool:
    """Whether a store can be used as it is, at the size and with the kind of action asked for."""
    if options.camera:
        raise UserError(f"{path} is a store, which has no cameras to choose from; leave camera out")
    episodes = open_store(path)
    size = tuple(episodes.frames.shape[2:])
    return options.size in (0, *set(size)) and (not options.size or size[0] == size[1]) and (
        options.action_kind in ("auto", episodes.space.kind)
    )  # fmt: skip


def recorded(episodes: Episodes) -> Recording:
    """Open episodes as a recording."""
    rows = list(episode_rows(episodes))
    pieces = lambda part: (
        np.asarray(episodes.frames[i : min(i + PIECE, part.stop)]).transpose(0, 2, 3, 1)
        for i in range(part.start, part.stop, PIECE)
    )
    return Recording(
        names=[f"{episodes.name}, episode {i}" for i in range(len(rows))],
        actions=[np.asarray(episodes.actions[part])[: length - 1] for part, length in rows],
        lengths=[length for _, length in rows],
        frames=lambda: (pieces(part) for part, _ in rows),
        states=None if episodes.states is None else [episodes.states[part] for part, _ in rows],
        state_names=episodes.state_names,
        space=episodes.space,
        about=episodes.manifest,
    )


def write(episodes: Episodes, out: Path, options: WriteOptions) -> None:
    """A copy of open episodes."""
    to_store(recorded(episodes), out, ReadOptions(), origin=episodes.name)


STORE = Format(
    name="store",
    looks="manifest.json and frames.npy",
    matches=is_store,
    files=lambda path: [path / MANIFEST, path / "frames.npy", path / "actions.npy"],
    read=lambda path, options: recorded(open_store(path)),
    write=write,
)
