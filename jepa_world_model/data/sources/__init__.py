"""Readers of data sets on disk; each returns `Episodes` whose frames are memory-mapped."""

from __future__ import annotations

from pathlib import Path

from jepa_world_model.core.errors import UserError
from jepa_world_model.data.episodes import Episodes
from jepa_world_model.data.sources.trajectories import CACHE_DIR, is_trajectory_folder, open_trajectories
from jepa_world_model.data.store import is_store, open_store


def open_episodes(
    path: str | Path, *, cache_dir: str | Path = CACHE_DIR, size: int | None = None, verify: bool = False
) -> Episodes:
    """The episodes of a folder, whichever known format it has.

    A store is mapped as it is; trajectory folders are decoded once into a store under `cache_dir`, resized to
    `size` pixels where it is given. `verify` compares the hash of every array.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(
            f"{path} is not a folder; a data set is a folder with manifest.json or with traj_* folders"
        )
    if is_store(path):
        episodes = open_store(path, verify=verify)
        if size is not None and tuple(episodes.frames.shape[2:]) != (size, size):
            height, width = episodes.frames.shape[2:]
            raise UserError(
                f"{path} holds images of {height} x {width} px, not {size}; write it again at that size"
            )
        return episodes
    if is_trajectory_folder(path):
        return open_trajectories(path, cache_dir=cache_dir, size=size, verify=verify)
    raise UserError(f"{path} holds neither manifest.json nor traj_* folders, so its format is unknown")


__all__ = ["open_episodes", "open_store", "open_trajectories"]
