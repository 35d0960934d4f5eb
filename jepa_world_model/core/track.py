"""Trackers: sinks that keep pictures, videos, tables and files beside the numbers. Weights & Biases, TensorBoard.

Names are the same in every one, and in metrics.jsonl as far as it holds them: docs/tracking.md lists them.
A tracker that fails costs one line and itself, never the training: the run folder has everything.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.extras import require
from jepa_world_model.core.run import atomic_write, writing

Cell = "str | float | None"  # of a table


class Tracker(Protocol):
    """A sink that holds more than numbers; `step` is the number of steps done."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One record of numbers."""

    def picture(self, step: int, name: str, path: Path) -> None:
        """A picture, as a PNG file."""

    def video(self, step: int, name: str, path: Path) -> None:
        """A film, as a GIF file."""

    def table(self, step: int, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """A table; None is an empty cell."""

    def files(self, step: int, name: str, folder: Path) -> None:
        """A folder of files, such as a checkpoint, as far as this tracker keeps files."""

    def close(self) -> None:
        """Nothing more will come."""


class Guarded:
    """What both trackers share: a failure of theirs is told once, and nothing more is sent."""

    name = "tracker"

    def __init__(self) -> None:
        self._alive = True

    def _do(self, step: int, act: Callable[[], object]) -> None:
        if not self._alive:
            return
        try:
            act()
        except Exception as problem:  # these libraries raise many kinds; none of them may stop a training
            self._alive = False
            tell(f"{self.name} stopped at step {step} ({first_line(problem)}); the run folder goes on")


def tell(text: str) -> None:
    """One line of warning on the terminal."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


def first_line(problem: Exception) -> str:
    """What an error says, in one line."""
    return (str(problem).splitlines() or [type(problem).__name__])[0]


class WandbTracker(Guarded):
    """Records to Weights & Biases, kept inside the run folder.

    online: falls back to offline, with one line, when no connection is made within `timeout_s`. What was written offline
    goes up later: `wandb sync <run>/wandb/offline-run-*`. With `mode="disabled"` it does nothing.
    """

    name = "wandb"

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        mode: str = "offline",
        project: str = "jepa-world-model",
        entity: str = "",
        settings: Mapping[str, Any] | None = None,
        checkpoints: bool = True,
        timeout_s: float = 20.0,
    ) -> None:
        super().__init__()
        if mode not in ("online", "offline", "disabled"):
            raise UserError(f"wandb mode must be online, offline or disabled, got {mode!r}")
        self.folder, self.checkpoints, self._run = Path(folder), checkpoints, None
        if mode != "disabled":
            try:
                import wandb
            except ImportError:
                raise UserError(
                    "wandb is not installed: pip install wandb, or use --wandb.mode disabled"
                ) from None
            self._wandb = wandb
            options = {"dir": str(folder), "project": project, "name": self.folder.resolve().name}
            options |= {"entity": entity} if entity else {}
            options |= {
                "config": dict(settings or {}),
                "settings": wandb.Settings(init_timeout=timeout_s, silent=True),
            }
            self._run = self._begin(mode, options)
        if self._run is None:
            self._alive = False
        else:
            # An axis of our own: a run that is resumed from an earlier step writes steps that wandb's counter refuses.
            self._run.define_metric("step")
            self._run.define_metric("*", step_metric="step")

    def _begin(self, mode: str, options: dict[str, Any]) -> Any:
        if mode == "online":
            try:
                return self._wandb.init(mode="online", id=_wandb_id(self.folder), resume="allow", **options)
            except Exception as problem:  # wandb raises many kinds; none of them may stop a training
                tell(f"wandb online failed ({first_line(problem)}); logging offline")
        try:
            # A fresh id: an attempt that timed out holds on to its own.
            return self._wandb.init(mode="offline", id=_fresh_id(), **options)
        except Exception as problem:
            tell(f"wandb offline failed ({first_line(problem)}); only the run folder has the numbers")
            return None

    def _log(self, step: int, make: Callable[[], Mapping[str, Any]]) -> None:
        self._do(step, lambda: self._run.log({**make(), "step": step}))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One record."""
        self._log(step, lambda: values)

    def picture(self, step: int, name: str, path: Path) -> None:
        """A PNG file."""
        self._log(step, lambda: {name: self._wandb.Image(str(path))})

    def video(self, step: int, name: str, path: Path) -> None:
        """A GIF file as it is: from arrays wandb would need moviepy."""
        self._log(step, lambda: {name: self._wandb.Video(str(path), format="gif")})

    def table(self, step: int, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """A wandb table."""
        self._log(
            step, lambda: {name: self._wandb.Table(columns=list(columns), data=[list(row) for row in rows])}
        )

    def files(self, step: int, name: str, folder: Path) -> None:
        """An artifact <run>-<name> with the aliases latest and step-<step>; nothing with `checkpoints` off."""
        if not self.checkpoints:
            return

        def act() -> None:
            whole = re.sub(r"[^\w.-]", "-", f"{self.folder.resolve().name}-{name.rpartition('/')[2]}")
            artifact = self._wandb.Artifact(whole, type=name.rpartition("/")[2], metadata={"step": step})
            for path in sorted(folder.iterdir()):
                artifact.add_file(str(path))
            self._run.log_artifact(artifact, aliases=["latest", f"step-{step}"])

        self._do(step, act)

    def close(self) -> None:
        """Finish the wandb run."""
        run, self._run, self._alive = self._run, None, False
        if run is not None:
            try:
                run.finish()
            except Exception as problem:
                tell(f"wandb could not finish its run ({first_line(problem)})")


def _wandb_id(folder: Path) -> str:
    """The id of this run at wandb, the same when it is resumed."""
    path = folder / "wandb" / "id"
    if path.is_file():
        return path.read_text().strip()
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, _fresh_id())
    return path.read_text().strip()


def _fresh_id() -> str:
    return os.urandom(6).hex()


class TensorBoardTracker(Guarded):
    """Event files in a folder, for `tensorboard --logdir`.

    start: the step that a resumed run goes on from; later records of before are hidden.
    It keeps no files: of a folder its path is noted. Errors: UserError when tensorboard is not installed.
    """

    name = "TensorBoard"

    def __init__(self, folder: str | os.PathLike[str], *, start: int = 0) -> None:
        super().__init__()
        require("tensorboard", "event files", "tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        with writing(folder):
            self._writer = SummaryWriter(str(folder), purge_step=start + 1 if start else None)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One scalar a name."""

        def act() -> None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

        self._do(step, act)

    def picture(self, step: int, name: str, path: Path) -> None:
        """A PNG file as it is."""
        self._image(step, name, path)

    def video(self, step: int, name: str, path: Path) -> None:
        """A GIF file as it is: browsers play it, and writing one from arrays would need moviepy."""
        self._image(step, name, path)

    def _image(self, step: int, name: str, path: Path) -> None:
        from PIL import Image
        from tensorboard.compat.proto.summary_pb2 import Summary

        def act() -> None:
            with Image.open(path) as image:
                width, height = image.size
            held = Summary.Image(
                height=height, width=width, colorspace=3, encoded_image_string=path.read_bytes()
            )
            self._writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=name, image=held)]), step)

        self._do(step, act)

    def table(self, step: int, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """A Markdown table among the texts."""
        self._text(step, name, markdown(columns, rows))

    def files(self, step: int, name: str, folder: Path) -> None:
        """Where they lie, among the texts."""
        self._text(step, name, f"`{folder}`")

    def _text(self, step: int, name: str, text: str) -> None:
        from torch.utils.tensorboard.summary import text as text_summary

        def act() -> None:
            made = text_summary(name, text)
            made.value[0].tag = name  # `add_text` would leave "/text_summary" at its end
            self._writer.file_writer.add_summary(made, step)

        self._do(step, act)

    def close(self) -> None:
        """Write what is left."""
        self._do(0, self._writer.close)
        self._alive = False


def markdown(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """A table as Markdown; numbers with three digits."""

    def told(cell: Cell) -> str:
        return "" if cell is None else (cell if isinstance(cell, str) else f"{cell:.3g}").replace("|", "\\|")

    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(told(cell) for cell in line) + " |" for line in lines)
