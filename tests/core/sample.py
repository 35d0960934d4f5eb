"""A configuration with every kind of field, for the tests of flags and of TOML."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Model:
    """Sizes."""

    pose_dim: int = 2  # width of p
    schedule: tuple[int, ...] = (32, 64)
    image: tuple[int, int] = (64, 64)
    start: Literal["z_to_h", "zero"] = "z_to_h"
    detach_pose: bool = True

    def __post_init__(self) -> None:
        if self.pose_dim < 1:
            raise ValueError(f"pose_dim must be at least 1, got {self.pose_dim}")


@dataclass(frozen=True, kw_only=True)
class Weights:
    """One number a loss."""

    h2z: float = 1.0
    jepa: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Clip:
    """An optional table."""

    limit: float = 1.5
    scale: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Config:
    """A training."""

    model: Model = field(default_factory=Model)
    loss_weights: Weights = field(default_factory=Weights)
    detach_decoder: bool = False
    gates: dict[str, float] = field(default_factory=lambda: {"z->h": 0.0})
    name: str = ""
    folder: Path = Path("runs")
    seed: int = 0
    lr: float = 3e-4
    tags: tuple[str, ...] = ()
    pairs: tuple[tuple[int, float], ...] = ()
    limit: float | None = None
    label: int | str = 0
    clip: Clip | None = None
