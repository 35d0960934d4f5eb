"""Which data a run learns from: a built-in world made on first use, a collected folder, or a folder of trajectories."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.graph import unknown
from jepa_world_model.data.episodes import Episodes
from jepa_world_model.data.store import is_store, open_store, write_arrays
from jepa_world_model.envs import GENERATORS


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The episodes, and how they are split."""

    source: str = "gridworld"  # a built-in world ("gridworld", "two_rooms"), or a folder: collected, or traj_*/states
    episodes: int = 400  # of a built-in world
    length: int = 60  # frames an episode of a built-in world
    pattern: str = "random"  # movement pattern of a built-in world; "loop" and "random_corner_loops" in the gridworld
    seed: int = 0  # of the built-in world and of the split; the same data whatever the training seed
    val_fraction: float = 0.1  # share of episodes held out
    cache_dir: str = "datasets"  # where built-in worlds and decoded trajectories are kept
    verify: bool = False  # check the checksums of a collected data set before use

    def __post_init__(self) -> None:
        if self.episodes < 2 or self.length < 3:
            raise ValueError(f"episodes must be 2 and length 3 or above, got {self.episodes} and {self.length}")
        if not 0 < self.val_fraction < 1:
            raise ValueError(f"val_fraction must lie in (0, 1), got {self.val_fraction}")


def open_dataset(cfg: DataConfig) -> Episodes:
    """The episodes of a configuration, made or decoded on first use.

    Errors: UserError for a source that is neither a built-in world nor a folder of a known layout.
    """
    if cfg.source in GENERATORS:
        return _built_in(cfg)
    folder = Path(cfg.source)
    if not folder.is_dir():
        raise UserError(
            f"data.source: {unknown('built-in world', cfg.source, GENERATORS)}, and there is no such folder"
        )
    if is_store(folder):
        return open_store(folder, verify=cfg.verify)
    from jepa_world_model.data.sources.trajectories import is_trajectory_folder, open_trajectories

    if is_trajectory_folder(folder):
        return open_trajectories(folder, cache_dir=Path(cfg.cache_dir))
    raise UserError(
        f"{folder} is no data set: a collected one holds manifest.json (see `jepa-wm collect`), "
        "a folder of trajectories holds traj_*/states/state_0.png and traj_*/actions.npz"
    )


def _built_in(cfg: DataConfig) -> Episodes:
    """The generated data set, from the cache when it was made before with the same recipe."""
    recipe = {name: getattr(cfg, name) for name in ("episodes", "length", "pattern", "seed")}
    key = hashlib.sha256(json.dumps([cfg.source, recipe], sort_keys=True).encode()).hexdigest()[:10]
    folder = Path(cfg.cache_dir) / f"{cfg.source}-{key}"
    if not is_store(folder):
        arrays = GENERATORS[cfg.source](**recipe)
        write_arrays(folder, arrays, env=cfg.source, seed=cfg.seed, policy=cfg.pattern)
    return open_store(folder, verify=cfg.verify)


def recipe(cfg: DataConfig) -> dict:
    """The data settings as plain values, for manifests."""
    return dataclasses.asdict(cfg)
