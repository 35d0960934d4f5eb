"""Which data a run learns from: a built-in world made on first use, or a data set on disk of any known format."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.graph import unknown
from jepa_world_model.data.collect import generate
from jepa_world_model.data.episodes import Episodes
from jepa_world_model.data.sources import FORMATS, ReadOptions, open_episodes
from jepa_world_model.data.store import open_store, write_once
from jepa_world_model.envs import GENERATORS


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The episodes, and how they are split."""

    source: str = "gridworld"  # a built-in world ("gridworld", "two_rooms"), or the path of a data set
    format: str = "auto"  # of a data set: what its files look like, or a name: store, hdf5, video, ...
    camera: str = ""  # of a data set with several: whose images are the frames
    action_kind: str = "auto"  # of a data set that does not tell: discrete, multi_binary or continuous
    size: int = 0  # px, square that the frames of a data set are resized to; 0 keeps their size
    # how a frame that is not square becomes one: "letterbox" (bars), "crop" or "squeeze"
    fit: str = "letterbox"
    episodes: int = 400  # of a built-in world
    length: int = 60  # frames an episode of a built-in world
    # of a built-in world: pattern, layout, cells, random_wall, ...
    options: dict[str, str] = field(default_factory=dict)
    seed: int = 0  # of the built-in world and of the split; the same data whatever the training seed
    val_fraction: float = 0.1  # share of episodes held out
    cache_dir: str = "datasets"  # where built-in worlds and decoded data sets are kept
    verify: bool = False  # check the checksums of the data before use

    def __post_init__(self) -> None:
        if self.episodes < 2 or self.length < 3:
            raise ValueError(
                f"data.episodes must be 2 and data.length 3 or above, got {self.episodes} and {self.length}"
            )
        if not 0 < self.val_fraction < 1:
            raise ValueError(f"data.val_fraction must lie in (0, 1), got {self.val_fraction}")
        if self.format != "auto" and self.format not in FORMATS:
            raise ValueError(unknown("data.format", self.format, ("auto", *FORMATS)))
        read = self.read_options
        if self.source in GENERATORS and read != ReadOptions():
            raise ValueError(
                f"data.format, camera, action_kind, size and fit belong to data sets on disk; data.source "
                f"{self.source!r} is a built-in world, so leave them out"
            )

    @property
    def read_options(self) -> ReadOptions:
        """How a data set on disk is read."""
        return ReadOptions(
            format=self.format, camera=self.camera, action_kind=self.action_kind, size=self.size, fit=self.fit
        )


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

    Errors: UserError for a source that is neither a built-in world nor a data set of a known format.
    """
    if cfg.source in GENERATORS:
        return _built_in(cfg)
    if not Path(cfg.source).exists():
        raise UserError(
            f"data.source: {unknown('built-in world', cfg.source, GENERATORS)}, and there is no such folder or file"
        )
    if cfg.options:
        raise UserError("data.options belong to built-in worlds; data.source is a path, so leave them out")
    return open_episodes(cfg.source, cfg.read_options, cache_dir=cfg.cache_dir, verify=cfg.verify)


def _built_in(cfg: DataConfig) -> Episodes:
    """The generated data set, from the cache when it was made before with the same recipe."""
    options: dict[str, Any] = {"episodes": cfg.episodes, "length": cfg.length, "seed": cfg.seed}
    options |= {name: option_value(text) for name, text in cfg.options.items()}
    key = hashlib.sha256(json.dumps([cfg.source, options], sort_keys=True).encode()).hexdigest()[:10]
    folder = Path(cfg.cache_dir) / f"{cfg.source}-{key}"
    write_once(folder, lambda: generate(GENERATORS[cfg.source], folder, env=cfg.source, **options))
    return open_store(folder, verify=cfg.verify)
