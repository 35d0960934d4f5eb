"""Thousands of damaged inputs: each must be read after all, or end in one sentence and exit code 2.

Command: python benchmarks/fuzz.py [--count 1000] [--seed 0] [--targets config flags ...]

A target is a few small files and the command that reads them. An input is the files with one to three edits drawn by
hypothesis: bytes flipped, cut, zeroed, inserted, repeated, a file missing, a folder in its place; or an edit that keeps the
container whole and changes what is in it (a value in JSON, TOML, a safetensors header, an array in npz or HDF5, a column
of a parquet table, another picture), so that the readers behind the parsers are reached too. Every input is read under the
error boundary of the commands (`cli_main`). Wrong are: an exception that leaves it, another exit code than 0 and 2, code 2
without exactly one line, a plain ValueError of a library (a sentence nobody wrote), more than 20 seconds, and the end of
the process. Each target runs in a process of its own, with 6 GB of address space. Exit code 0 when nothing is wrong.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from flags import flags_of
from fuzz_edits import edited, edits
from fuzz_targets import TARGETS, Target
from hypothesis import HealthCheck, Phase, given, seed, settings

from jepa_world_model.core.config import cli_main
from jepa_world_model.core.errors import UserError

LONGEST_S = 20


class TooLong(BaseException):
    """An input took longer than any reader may."""


@dataclass
class Tally:
    """What became of the inputs of a target."""

    counts: Counter[str]
    wrong: dict[str, str]  # what was wrong -> the first input that showed it

    def add(self, outcome: str, wrong: str, details: str, shown: str) -> None:
        self.counts["inputs"] += 1
        self.counts[outcome] += 1
        if wrong:
            self.wrong.setdefault(wrong, f"{details}\n    {shown}")


def judge(read: Callable[[], object]) -> tuple[str, tuple[str, str]]:
    """(outcome, (what was wrong with it, details)): "read", "refused", "uncaught", "exit code", "sentence" or "foreign"."""
    said, problem = io.StringIO(), None

    def run() -> None:
        nonlocal problem
        try:
            read()
        except BaseException as error:
            problem = error
            raise

    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = cli_main(run)
    except SystemExit as end:  # how a parser of flags ends
        code = end.code
    except BaseException as error:
        return "uncaught", (f"{type(error).__name__} at {_place(error)}", str(error)[:160])
    if code == 0:
        return "read", ("", "")
    if code != 2:
        return "exit code", (f"exit code {code} at {_place(problem)}", str(problem)[:160])
    lines = [line for line in said.getvalue().splitlines() if line.strip()]
    if len([line for line in lines if line.startswith("error: ")]) != 1 or not lines[-1].startswith(
        "error: "
    ):
        return "sentence", (f"not one sentence at {_place(problem)}", str(lines[-3:]))
    if not isinstance(problem, UserError) and "/jepa_world_model/" not in _place(problem, innermost=True):
        return "foreign", (f"{type(problem).__name__} at {_place(problem)}", str(problem)[:160])
    return "refused", ("", "")


def _place(problem: BaseException | None, *, innermost: bool = False) -> str:
    """Where it was raised: the innermost line, or the innermost of this package."""
    frames = traceback.extract_tb(problem.__traceback__) if problem else []
    ours = [frame for frame in frames if "/jepa_world_model/" in frame.filename]
    chosen = (frames if innermost else ours or frames)[-1:]
    return (
        f"{chosen[0].filename if innermost else Path(chosen[0].filename).name}:{chosen[0].lineno}"
        if chosen
        else "?"
    )


def fuzz(target: Target, count: int, number: int) -> Tally:
    """Read `count` inputs; the same seed gives the same inputs."""
    tally = Tally(Counter(), {})

    def late(*_: object) -> None:
        raise TooLong

    signal.signal(signal.SIGALRM, late)

    @seed(number)
    @settings(max_examples=count, database=None, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(target.strategy or edits())
    def each(drawn: Sequence[Any]) -> None:
        given_to = drawn
        if not target.strategy:
            put(target, edited(target.files, drawn, target.mend))
            given_to = target.folder
        read = lambda: target.read(given_to)
        signal.setitimer(signal.ITIMER_REAL, LONGEST_S)
        outcome, wrong = judge(read)
        signal.setitimer(signal.ITIMER_REAL, 0)
        tally.add(outcome, *wrong, str(drawn)[:600])

    each()
    return tally


def put(target: Target, files: Mapping[str, bytes | None]) -> None:
    """Make the folder hold these files; None stands for a folder in the place of a file."""
    shutil.rmtree(target.folder, ignore_errors=True)
    for name, content in files.items():
        path = target.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content)


def in_its_own_process(name: str, count: int, number: int) -> dict[str, Any]:
    """The tally of a target, found in a child; the end of that process is itself something wrong."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
            torch.set_num_threads(1)
            warnings.simplefilter("ignore")
            with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
                tally = fuzz(TARGETS[name](Path(place).resolve()), count, number)
            with os.fdopen(writer, "w") as out:
                json.dump({"counts": tally.counts, "wrong": tally.wrong}, out)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as told:
        text = told.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        return {"counts": {}, "wrong": {f"the process ended with {code}": ""}}
    return json.loads(text)


def main() -> int:
    """Fuzz and print one line a target; 0 when nothing was wrong."""
    parser = flags_of(__doc__)
    parser.add_argument("--count", type=int, default=1000, help="inputs a target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    args = parser.parse_args()
    total, wrong = Counter(), 0
    print(
        "| target | inputs | read after all | refused in one sentence | uncaught | wrong exit code | unclear |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in args.targets:
        begin = time.monotonic()
        found = in_its_own_process(name, args.count, args.seed)
        counts = Counter(found["counts"])
        total += counts
        unclear = counts["sentence"] + counts["foreign"]
        print(f"| {name} | {counts['inputs']:,} | {counts['read']:,} | {counts['refused']:,} | {counts['uncaught']} | "
              f"{counts['exit code']} | {unclear} |", flush=True)  # fmt: skip
        for what, shown in found["wrong"].items():
            wrong += 1
            print(f"  {what}\n    {shown}", file=sys.stderr, flush=True)
        print(f"{name}: {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
    unclear = total["sentence"] + total["foreign"]
    print(f"| all | {total['inputs']:,} | {total['read']:,} | {total['refused']:,} | {total['uncaught']} | "
          f"{total['exit code']} | {unclear} |")  # fmt: skip
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
