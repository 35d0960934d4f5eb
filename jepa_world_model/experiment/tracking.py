"""What a run shows to its trackers besides numbers, under which names, and where the same lies in its folder."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.extras import require
from jepa_world_model.core.proof import ReachTable
from jepa_world_model.core.track import Cell, TensorBoardTracker, Tracker, WandbTracker
from jepa_world_model.diagnostics.figures import as_rgb, save_figures
from jepa_world_model.experiment.config import TrainConfig

REACH, GRADIENTS, FILM, CHECKPOINT = (
    "tables/reach",
    "tables/gradients",
    "videos/open_loop",
    "files/checkpoint",
)
FIGURES = "figures"  # figures/<name> is the file <run>/figures/<name>.png
FRAME_MS = 250  # a step of the film


def check_trackers(cfg: TrainConfig) -> None:
    """Errors: UserError for a tracker that is asked for and not installed."""
    if cfg.tensorboard:
        require("tensorboard", "event files", "tensorboard")
    if cfg.wandb.mode != "disabled" and importlib.util.find_spec("wandb") is None:
        raise UserError("wandb is not installed: pip install wandb, or use --wandb.mode disabled")


def open_trackers(folder: Path, cfg: TrainConfig, start: int) -> list[Tracker]:
    """The trackers that a configuration asks for. Errors: UserError for one that is not installed."""
    found: list[Tracker] = []
    if cfg.tensorboard:
        found.append(TensorBoardTracker(folder / "tensorboard", start=start))
    if cfg.wandb.mode != "disabled":
        options = {key: getattr(cfg.wandb, key) for key in ("mode", "project", "entity", "checkpoints")}
        found.append(WandbTracker(folder, settings=dataclasses.asdict(cfg), **options))
    return found


class Tracking:
    """The pictures, tables and files of a run: kept in its folder, and handed to every tracker under one name."""

    def __init__(self, folder: Path, trackers: Sequence[Tracker]) -> None:
        self.folder, self.trackers = folder, list(trackers)

    def reach(self, table: ReachTable, step: int) -> None:
        """The proven reach table; in the folder as reach.json and reach.md."""
        self._table(step, REACH, *reach_cells(table))

    def gradients(self, row: Mapping[str, Any]) -> None:
        """A gradient report; in the folder as a line of gradients.jsonl."""
        self._table(int(row["step"]), GRADIENTS, *gradient_cells(row["norms"]))

    def snapshot(self, step: int, arrays: Mapping[str, np.ndarray]) -> None:
        """The figures and the film of a snapshot, written into <run>/figures/; nothing where nobody tracks."""
        if not self.trackers:
            return  # the report draws them itself
        for path in save_figures(self.folder / FIGURES, arrays):
            for tracker in self.trackers:
                tracker.picture(step, f"{FIGURES}/{path.stem}", path)
        if "open_loop" in arrays:
            film = save_film(
                self.folder / FIGURES / "open_loop.gif", arrays["open_loop_true"], arrays["open_loop"]
            )
            for tracker in self.trackers:
                tracker.video(step, FILM, film)

    def checkpoint(self, step: int, folder: Path) -> None:
        """A checkpoint that was written."""
        for tracker in self.trackers:
            tracker.files(step, CHECKPOINT, folder)

    def _table(self, step: int, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        for tracker in self.trackers:
            tracker.table(step, name, columns, rows)


def reach_cells(table: ReachTable) -> tuple[list[str], list[list[Cell]]]:
    """Losses by groups: the measured gradient norm where a loss moves a group, empty where it must not."""
    rows: list[list[Cell]] = []
    for name in table.derived:
        norms = table.measured[name].numeric
        rows.append([name, table.weights[name], *(norms.get(group) or None for group in table.groups)])
    return ["loss", "weight", *table.groups], rows


def gradient_cells(norms: Mapping[str, Mapping[str, float]]) -> tuple[list[str], list[list[Cell]]]:
    """Losses by groups: the norm of the weighted gradient; empty where there is no way."""
    losses = list(dict.fromkeys(loss for row in norms.values() for loss in row))
    return ["loss", *norms], [[loss, *(norms[group].get(loss) for group in norms)] for loss in losses]


def save_film(path: Path, true: np.ndarray, imagined: np.ndarray) -> Path:
    """A GIF: each row one window, what happened on the left, what was imagined on the right.

    Shapes: true, imagined [n,T,C,H,W] uint8.
    """
    from PIL import Image

    pair = np.concatenate([as_rgb(true), as_rgb(imagined)], -2)  # [n,T,H,2W,3]
    factor = max(1, round(96 / pair.shape[2]))
    frames = np.concatenate(list(pair), 1)  # [T,n*H,2W,3]
    frames = frames.repeat(factor, 1).repeat(factor, 2)
    # One palette for all frames: each with its own would flicker.
    first = Image.fromarray(frames.reshape(-1, *frames.shape[2:])).quantize(256)
    film = [Image.fromarray(frame).quantize(palette=first, dither=Image.Dither.NONE) for frame in frames]
    film[0].save(path, save_all=True, append_images=film[1:], duration=FRAME_MS, loop=0, optimize=False)
    return path
