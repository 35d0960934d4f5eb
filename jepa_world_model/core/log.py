"""Where numbers go: a JSONL file always, a terminal. A sink gets plain floats, one record at a time; more sinks: track.py.

Names are paths: loss/jepa, grad_norm/encoder, time/step_ms, eval/...
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TextIO

import torch
from torch import Tensor

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.run import atomic_write, writing

NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def to_host(values: Mapping[str, Tensor | float]) -> dict[str, float]:
    """The values as Python floats, in their order, by one copy a device. Tensors hold one element each.

    Every float32, bfloat16 and bool arrives exactly; integers do up to 2**53 (2**24 without float64).
    """
    by_device: dict[torch.device, dict[str, Tensor]] = {}
    for name, value in values.items():
        if isinstance(value, Tensor):
            by_device.setdefault(value.device, {})[name] = value
    host: dict[str, float] = {}
    for device, tensors in by_device.items():
        wide = torch.float32 if device.type == "mps" else torch.float64
        stacked = torch.stack([tensor.detach().reshape(()).to(wide) for tensor in tensors.values()])
        host |= dict(zip(tensors, stacked.tolist(), strict=True))
    return {name: host[name] if name in host else float(value) for name, value in values.items()}


class Sink(Protocol):
    """Takes records of named numbers."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One record; `step` is the number of steps done."""

    def close(self) -> None:
        """The last record has been written."""


class JsonlSink:
    """One JSON line a record, flushed at once: {"step": 100, "time": <unix s>, "loss/jepa": 0.25, ...}.

    Floats read back exactly. What JSON cannot hold stands as text: "NaN", "Infinity", "-Infinity".
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with writing(self.path):
            # Unbuffered: after a failed write nothing is left that closing would try to write once more.
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115  closed by close()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line; UserError when the disk is full, and the file then ends with the line before."""
        record = {"step": step, "time": round(time.time(), 3)}
        record |= {name: jsonable(value) for name, value in values.items()}
        line = json.dumps(record, allow_nan=False, ensure_ascii=False)
        with writing(self.path):
            _append(self._file, (line + "\n").encode())

    def sync(self) -> None:
        """Make what was written survive a power cut; before a checkpoint that counts on it."""
        with writing(self.path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _append(file: io.FileIO, data: bytes) -> None:
    """Write all of `data` at the end of an unbuffered file, or leave it as long as it was. Errors: OSError."""
    end = os.fstat(file.fileno()).st_size
    try:
        while data:
            data = data[file.write(data) :]
    except OSError:
        os.ftruncate(file.fileno(), end)
        raise


def jsonable(value: float) -> float | str:
    """A number as JSON holds it: what is not finite becomes text."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if value != value else ("Infinity" if value > 0 else "-Infinity")
    return value


def read_metrics(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """The records of a metrics file, floats restored; a last line cut short by a crash is left out.

    A value that is no number (a table, a list) is passed on as it stands.
    Errors: UserError for any other line that is not a record, with its number.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as problem:
        raise UserError(f"cannot read metrics from {path}: {problem.strerror}") from None
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is an unfinished line
        try:
            record = json.loads(line)
            record["step"] = int(record["step"])
        except (ValueError, TypeError, KeyError):
            raise UserError(f"{path}, line {number} is not a metrics record: {line[:80]!r}") from None
        yield {
            name: NON_FINITE.get(value, value) if isinstance(value, str) else value
            for name, value in record.items()
        }


def rewind_metrics(path: str | os.PathLike[str], step: int) -> int:
    """Take the records after `step` out of a metrics file that a resumed run goes on with; returns how many.

    They are not lost: they are appended to metrics.abandoned.jsonl beside it.
    """
    path = Path(path)
    if not path.exists():
        return 0
    records = list(read_metrics(path))
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[: len(records)]
    keep = [line for line, record in zip(lines, records, strict=True) if record["step"] <= step]
    gone = [line for line, record in zip(lines, records, strict=True) if record["step"] > step]
    if gone:
        beside = path.with_name(f"{path.stem}.abandoned{path.suffix}")
        with writing(beside), open(beside, "a", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in gone)
    atomic_write(path, "".join(line + "\n" for line in keep))
    return len(gone)


class TerminalSink:
    """A progress bar on a terminal, plain lines elsewhere; what hooks measured is shown as it comes."""

    def __init__(self, total: int, *, start: int = 0, stream: TextIO | None = None, shown: int = 6) -> None:
        self.total, self.start, self.stream, self.shown = total, start, stream or sys.stderr, shown
        self._began, self._bar = time.monotonic(), None
        if self.stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=start, file=self.stream, unit="step", dynamic_ncols=True)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Move the bar, or print a line."""
        loss = values.get("loss/total")
        other = [f"{name} {value:.4g}" for name, value in values.items() if "/" in name and _is_extra(name)]
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
            if loss is not None:
                self._bar.set_postfix_str(f"loss {loss:.4g}")
            if other:
                self._bar.write(f"step {step}  " + "  ".join(other[: self.shown]), file=self.stream)
            return
        words = [f"step {step}/{self.total}"]
        if loss is not None:
            words += [f"loss {loss:.4g}", *self._pace(step)]
        print("  ".join(words + other[: self.shown]), file=self.stream, flush=True)

    def _pace(self, step: int) -> list[str]:
        """Steps a second since the start, and the time that is left at this pace."""
        rate = (step - self.start) / max(time.monotonic() - self._began, 1e-9)
        left = round((self.total - step) / rate) if rate > 0 else 0
        clock = (
            f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"
            if left >= 3600
            else f"{left // 60}:{left % 60:02d}"
        )
        return [f"{rate:.3g} steps/s", f"{clock} left"]

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()


def _is_extra(name: str) -> bool:
    """Whether a number comes from a hook rather than from every step."""
    return name.split("/")[0] not in ("loss", "weighted", "grad", "grad_norm", "norm", "time", "optim")


@contextlib.contextmanager
def closing(sinks: Sequence[Sink]) -> Iterator[Sequence[Sink]]:
    """The sinks, closed at the end, also after an error."""
    with contextlib.ExitStack() as stack:
        for sink in sinks:
            stack.callback(sink.close)
        yield sinks
