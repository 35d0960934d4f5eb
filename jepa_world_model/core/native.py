"""C of our own, compiled where it runs: for what a list of torch's operations would walk over memory for again and again.

A source is compiled once for a machine, in about half a second, by the compiler that is there; what it gives is kept in the
user's cache. Whoever calls has the same thing in torch's operations, for other devices and for machines without a compiler.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jepa_world_model.core.errors import UserError

COMPILERS = ("cc", "gcc", "clang")  # the first that is found, unless CC says which
BASE = ("-std=c99", "-O3", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")
# Tried in turn: what a compiler or machine does not know is left out.
FLAGS = (
    ("-march=native", "-fopenmp", "-mprefer-vector-width=512"),
    ("-march=native", "-fopenmp"),
    ("-march=native",),
    (),
)


_LIBRARY = torch.library.Library("jepa_world_model", "FRAGMENT")


def operator(schema: str, on_cpu: Callable[..., Any], shaped: Callable[..., Any]) -> Callable[..., Any]:
    """An operator that compilers see as one step: torch.ops.jepa_world_model.<name>.

    schema: its arguments and results. shaped: empty results, from tensors without numbers. Not by `custom_op`: its checks in
    Python take 0.1 ms a call in the middle of a step, and what is called here writes to its own results alone.
    """
    name = schema.partition("(")[0]
    # Any layout is taken: a compiler that had to see to it would copy the tensors first.
    _LIBRARY.define(schema, tags=(torch.Tag.flexible_layout,))
    _LIBRARY.impl(name, on_cpu, "CPU")
    torch.library.register_fake(f"jepa_world_model::{name}", shaped, lib=_LIBRARY)
    return getattr(torch.ops.jepa_world_model, name).default


@dataclass
class Routine:
    """The function of a C source that bears the source's name; it returns 0, or 1 where there is no memory.

    Compiled on first use, and believed when it finds what is known of a small case. probe: what the bare function finds
    there; numpy alone, since the question may come in the middle of a trace. expected: what it must find.
    """

    source: Path
    arguments: Sequence[Any]  # their types
    probe: Callable[[Callable[..., int]], Sequence[float]]
    expected: Sequence[float]

    @functools.cached_property
    def found(self) -> Callable[..., int] | UserError:
        """The function, or why there is none."""
        try:
            function = getattr(load(self.source), self.source.stem)
        except UserError as error:
            return error
        function.argtypes, function.restype = self.arguments, ctypes.c_int
        found = self.probe(function)
        if not np.allclose(found, self.expected, rtol=1e-4, atol=1e-6):
            return UserError(
                f"{self.source.name} is compiled to something else here: {found} for {self.expected}"
            )
        return function

    def missing(self) -> str:
        """Why there is none here; empty where there is one."""
        return str(self.found) if isinstance(self.found, UserError) else ""

    def __call__(self, *arguments: Any) -> None:
        """Errors: UserError where there is none; MemoryError."""
        if isinstance(self.found, UserError):
            raise self.found
        if self.found(*arguments):
            raise MemoryError(f"no memory for {self.source.stem}")


def load(source: Path) -> ctypes.CDLL:
    """The library of a C source, compiled now unless this machine has it. Errors: UserError saying why there is none."""
    text = source.read_bytes()
    compiler = _compiler()
    marks = [text, str(BASE + sum(FLAGS, ())).encode(), " ".join(compiler).encode(), _machine().encode()]
    name = f"{source.stem}-{hashlib.sha256(b'|'.join(marks)).hexdigest()[:16]}.so"
    try:
        kept = _folder() / name
        if kept.is_file():
            with contextlib.suppress(OSError):  # cut short by a full disk, say: made anew
                return ctypes.CDLL(str(kept))
        _compile(compiler, source, kept)
        return ctypes.CDLL(str(kept))
    except OSError as error:
        raise UserError(f"{source.name} could not be compiled or loaded ({error})") from error


def _compiler() -> list[str]:
    """The command of a C compiler. Errors: UserError where there is none."""
    named = shlex.split(os.environ.get("CC", ""))
    found = named or [name for name in COMPILERS if shutil.which(name)][:1]
    if not found or not shutil.which(found[0]):
        raise UserError(f"there is no C compiler here ({', '.join(named[:1] or COMPILERS)})")
    return found


def _folder() -> Path:
    """Where compiled sources are kept: this user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "jepa_world_model"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@functools.cache
def _machine() -> str:
    """What code for this processor may run on: a cache can be shared by machines of several kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.system()} {platform.machine()} {platform.processor()} {flags}"


def _compile(compiler: list[str], source: Path, target: Path) -> None:
    """Write `target`. Errors: UserError with the compiler's words."""
    with tempfile.TemporaryDirectory(dir=target.parent) as place:
        made = Path(place) / target.name
        for more in FLAGS:
            command = [*compiler, *BASE, *more, str(source), "-o", str(made), "-lm"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                made.replace(target)  # whole or not at all: several processes may begin at once
                return
    said = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip())
    raise UserError(f"{compiler[0]} does not compile {source.name} ({said})")
