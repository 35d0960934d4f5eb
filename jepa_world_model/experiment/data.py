"""Which data a run learns from: a built-in world made on first use, a collected folder, or a folder of trajectories."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.graph import unknown
from jepa_world_model.data.collect import generate
from jepa_world_model.data.episodes import Episodes
from jepa_world_model.data.sources import open_episodes
from jepa_world_model.data.store import open_store, write_once
from jepa_world_model.envs import GENERATORS


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The episodes, and how they are split."""

    source: str = (
        "gridworld"  # a built-in world ("gridworld", "two_rooms"), or a folder: collected, or traj_*/states
    )
    episodes: int = 400  # of a built-in world
    length: int = 60  # frames an episode of a built-in world
    options: dict[str, str] = field(
        default_factory=dict
    )  # of a built-in world: pattern, layout, cells, random_wall, ...
    seed: int = 0  # of the built-in world and of the split; the same data whatever the training seed
    val_fraction: float = 0.1  # share of episodes held out
    cache_dir: str = "datasets"  # where built-in worlds and decoded trajectories are kept
    verify: bool = False  # check the checksums of the data before use

    def __post_init__(self) -> None:
        if self.episodes < 2 or self.length < 3:
            raise ValueError(
                f"data.episodes must be 2 and data.length 3 or above, got {self.episodes} and {self.length}"
            )
        if not 0 < self.val_fraction < 1:
            raise ValueError(f"data.val_fraction must lie in (0, 1), got {self.val_fraction}")


def option_value(text: str) -> bool | int | float | str:
    """An option given as text: true, false, the number it spells, or the text itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def open_dataset(cfg: DataConfig) -> Episodes:
    """The episodes of a configuration, made or decoded on first use.

    Errors: UserError for a source that is neither a built-in world nor a folder of a known layout.
    """
    if cfg.source in GENERATORS:
        return _built_in(cfg)
    if not Path(cfg.source).is_dir():
        raise UserError(
            f"data.source: {unknown('built-in world', cfg.source, GENERATORS)}, and there is no such folder"
        )
    if cfg.options:
        raise UserError("data.options belong to built-in worlds; data.source is a folder, so leave them out")
    return open_episodes(cfg.source, cache_dir=cfg.cache_dir, verify=cfg.verify)


def _built_in(cfg: DataConfig) -> Episodes:
    """The generated data set, from the cache when it was made before with the same recipe."""
    options = {"episodes": cfg.episodes, "length": cfg.length, "seed": cfg.seed}
    options |= {name: option_value(text) for name, text in cfg.options.items()}
    key = hashlib.sha256(json.dumps([cfg.source, options], sort_keys=True).encode()).hexdigest()[:10]
    folder = Path(cfg.cache_dir) / f"{cfg.source}-{key}"
    write_once(folder, lambda: generate(GENERATORS[cfg.source], folder, env=cfg.source, **options))
    return open_store(folder, verify=cfg.verify)
