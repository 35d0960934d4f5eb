"""One training run, killed and starved of disk again and again, against the same run left alone: every bit the same?

Command: python benchmarks/kill.py [--kills 50] [--steps 60] [--seed 0] [--no-faults]     (faults: as root, on Linux)

A small run (all kinds of state: running loss sizes, averaged weights, best checkpoint, gradient reports) is trained once
undisturbed, and once in processes that get SIGKILL at random moments; each time the same command starts it again. The
moments are drawn so that every phase is hit: a process says in shared memory what it is doing, and is killed a random
while after it has entered the phase whose turn it is. Then the same with faults in writes: a full disk (a small tmpfs),
files that may not grow (RLIMIT_FSIZE), a read-only folder, and damaged newest checkpoints. Compared at the end: weights,
moments and averaged weights bit by bit, and every record without its clock columns. Exit code 0 when all is the same.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import functools
import mmap
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from flags import flags_of
from safetensors.torch import load_file

import jepa_world_model_trainer as trainer
from jepa_world_model.core.checkpoint import latest_checkpoint
from jepa_world_model.core.log import read_metrics
from jepa_world_model.experiment import keep, run, watch

PHASES = ("beginning", "step", "evaluation", "checkpoint", "end")
LONGEST_S = {"step": 0.02, "evaluation": 0.02, "checkpoint": 0.02, "end": 0.001}  # from its start to the kill
FLAGS = [
    "--model.image-size", "16", "--model.encoder-schedule", "8", "8", "--model.decoder-schedule", "8", "8",
    "--model.z-dim", "8", "--model.state-dim", "8", "--model.hidden-dim", "16", "--model.keypoints", "4",
    "--model.pose-dim", "2", "--seq-len", "6", "--rollout-horizon", "4", "--batch-size", "4", "--threads", "1",
    "--data.options", "size", "16", "cells", "5", "layout", "open", "--data.episodes", "12", "--data.length", "14",
    "--eval-windows", "6", "--precision", "fp32", "--log-every", "3", "--eval-every", "5", "--checkpoint-every", "4",
    "--grad-report-every", "10", "--loss-normalization", "--ema", "0.9", "--best-metric", "eval/recon_mse",
    "--loss-weights.sigreg", "0.1", "--no-report", "--resume",
]  # fmt: skip


class Attempt:
    """One process that trains, and what it is doing at this moment."""

    def __init__(self, flags: list[str], before: Callable[[], None] = lambda: None) -> None:
        self._shared, self._code = mmap.mmap(-1, mmap.PAGESIZE), None
        self.said = tempfile.TemporaryFile()  # noqa: SIM115  read after the process has ended
        self.pid = os.fork()
        if self.pid == 0:
            os.dup2(self.said.fileno(), 1)
            os.dup2(self.said.fileno(), 2)
            code = 70
            try:
                before()
                _tell_phases(self._shared)
                code = trainer.main(flags)
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)

    @property
    def phase(self) -> str:
        return PHASES[self._shared[0]]

    def is_running(self) -> bool:
        """Whether it has not ended."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code is None

    def wait(self) -> int:
        """Its exit code, when it has ended."""
        while self.is_running():
            time.sleep(0.002)
        return self._code

    def kill(self) -> str | None:
        """SIGKILL; the phase it died in, None if it had ended before."""
        died_in = self.phase
        if not self.is_running():
            return None
        os.kill(self.pid, signal.SIGKILL)
        self.wait()
        return died_in

    def output(self) -> str:
        self.said.seek(0)
        return self.said.read().decode()


def _tell_phases(shared: mmap.mmap) -> None:
    """Wrap the functions of each phase so that the process tells when it enters and leaves them."""

    def telling(place: object, name: str, phase: str, after: str) -> None:
        real = getattr(place, name)

        @functools.wraps(real)
        def told(*args: object, **kwargs: object) -> object:
            shared[0] = PHASES.index(phase)
            try:
                return real(*args, **kwargs)
            finally:
                shared[0] = PHASES.index(after)

        setattr(place, name, told)

    telling(run, "train_step", "step", "step")
    telling(watch, "evaluate", "evaluation", "step")
    telling(keep, "save_checkpoint", "checkpoint", "step")
    telling(watch.Watch, "conclude", "end", "end")


def command(name: str, place: Path, steps: int) -> list[str]:
    """The command of a run: always the same one."""
    return [
        *FLAGS, "--steps", str(steps), "--name", name, "--output-dir", str(place), "--data.cache-dir", str(place / "data"),
    ]  # fmt: skip


def end_state(folder: Path) -> dict[str, object]:
    """Everything that must not depend on what happened on the way."""
    newest = latest_checkpoint(folder / "checkpoints")
    found: dict[str, object] = {"checkpoint": newest.name}
    for file in ("model.safetensors", "optimizer.safetensors", "average.safetensors"):
        for name, tensor in load_file(newest / file).items():
            found[f"{file}: {name}"] = (tensor.dtype, tuple(tensor.shape), tensor.numpy().tobytes())
    rows = read_metrics(folder / "metrics.jsonl")
    found["metrics.jsonl"] = [{k: str(v) for k, v in row.items() if not k.startswith("time")} for row in rows]
    for file in (
        "gradients.jsonl",
        "advice.json",
        "checkpoints/best.json",
        f"checkpoints/{newest.name}/state.json",
    ):
        found[file] = (folder / file).read_text()
    found["kept"] = sorted(path.name for path in (folder / "checkpoints").glob("step-*"))
    return found


def differences(a: dict[str, object], b: dict[str, object]) -> list[str]:
    """The names of what is not the same."""
    return [name for name in sorted(set(a) | set(b)) if a.get(name) != b.get(name)]


def finished(place: Path, name: str, steps: int) -> str:
    """Run the command to its end; what it said. Errors: RuntimeError where it fails."""
    attempt = Attempt(command(name, place, steps))
    code = attempt.wait()
    if code != 0:
        raise RuntimeError(f"exit code {code}:\n{attempt.output()[-2000:]}")
    return attempt.output()


def kills(place: Path, steps: int, count: int, rng: random.Random) -> tuple[Counter, int]:
    """Kill `count` times, phase by phase, and then let it finish; (kills by phase, ends before the kill)."""
    began = time.monotonic()
    finished(place, "timed", 1)
    one_s, hit, missed = time.monotonic() - began, Counter(), 0
    # A run that always dies before its next checkpoint gets nowhere; the undisturbed attempts between end it.
    while sum(hit.values()) < count:
        phase = PHASES[(sum(hit.values()) + missed) % len(PHASES)]
        attempt = Attempt(command("killed", place, steps))
        reach(attempt, phase, rng.uniform(0, LONGEST_S.get(phase, one_s)))
        died_in = attempt.kill()
        if died_in is None:
            missed += 1
            shutil.rmtree(
                place / "killed" / "checkpoints"
            )  # it had ended: from the beginning, to be killed again
        else:
            hit[died_in] += 1
    finished(place, "killed", steps)
    return hit, missed


# ---- faults in writes ----


@contextlib.contextmanager
def small_disk(place: Path, size_kb: int) -> Iterator[None]:
    """A disk of its own at `place`."""
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def refusal(attempt: Attempt, folder: Path) -> str:
    """The one sentence of a command that could not write, and the checkpoint that stayed; "" where it had ended before.

    Errors: AssertionError for another exit code, a traceback, more than one sentence, or a damaged checkpoint.
    """
    code, said = attempt.wait(), attempt.output()
    if code == 0:
        return ""
    errors = [line for line in said.splitlines() if line.startswith("error:")]
    assert code == 2, f"exit code {code}, not 2:\n{said[-2000:]}"
    assert len(errors) == 1, f"{len(errors)} sentences, not one:\n{said[-2000:]}"
    assert "Traceback" not in said, said[-2000:]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        newest = latest_checkpoint(folder / "checkpoints") if (folder / "checkpoints").is_dir() else None
    return f"{errors[0]} [{newest.name if newest else 'no checkpoint yet'}]"


def reach(attempt: Attempt, phase: str, delay_s: float) -> None:
    """Wait until a process is in a phase, and a little longer."""
    while attempt.phase != phase and attempt.is_running():
        time.sleep(0.0005)
    time.sleep(delay_s)


def full_disk(place: Path, steps: int, rng: random.Random, turns: int) -> list[str]:
    """A disk that is too small from the beginning, and one that something else fills at a random moment."""
    told = []
    with small_disk(place / "disk", 150):
        told.append(refusal(Attempt(command("full", place / "disk", steps)), place / "disk/full"))
    (place / "disk").rmdir()
    with small_disk(place / "disk", 6000):
        finished(place / "disk", "timed", 1)  # the data set is there
        for turn in range(turns):
            attempt = Attempt(command("full", place / "disk", steps))
            reach(attempt, PHASES[turn % 4], rng.uniform(0, 0.02))
            with contextlib.suppress(OSError), open(place / "disk/ballast", "wb", buffering=0) as ballast:
                while ballast.write(bytes(4096)):
                    pass
            told.append(refusal(attempt, place / "disk/full"))
            (place / "disk/ballast").unlink()
        finished(place / "disk", "full", steps)
        shutil.copytree(place / "disk/full", place / "full")
    return told


def short_files(place: Path, steps: int, rng: random.Random, turns: int) -> list[str]:
    """Processes whose files may not grow beyond a random size."""
    told = []
    for _ in range(turns):
        limit = rng.choice((rng.randint(200, 9000), rng.randint(9000, 60_000)))

        def before(limit: int = limit) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        told.append(refusal(Attempt(command("short", place, steps), before), place / "short"))
    finished(place, "short", steps)
    return told


def without_root_rights() -> None:
    """Give up the right of root to write what its permissions forbid (CAP_DAC_OVERRIDE), in this process."""
    libc = ctypes.CDLL(None, use_errno=True)
    head, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(head, data) == 0
    data[0], data[1] = data[0] & ~2, data[1] & ~2
    assert libc.capset(head, data) == 0


def protect(folder: Path, locked: bool) -> None:
    """Make a folder and all in it read-only, or writable again."""
    for path in (folder, *folder.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            path.chmod((0o555 if locked else 0o755) if path.is_dir() else (0o444 if locked else 0o644))


def read_only(place: Path, steps: int, rng: random.Random, turns: int) -> list[str]:
    """A folder that becomes read-only at a random moment."""
    told = []
    for turn in range(turns):
        attempt = Attempt(command("ro", place, steps), without_root_rights)
        reach(attempt, PHASES[turn % 4] if turn else "step", rng.uniform(0, 0.02))
        protect(place / "ro", True)
        told.append(refusal(attempt, place / "ro"))
        protect(place / "ro", False)
    finished(place, "ro", steps)
    return told


def damaged(place: Path, steps: int, rng: random.Random, turns: int) -> list[str]:
    """A newest checkpoint that is cut, changed or emptied in one file, again and again."""
    told = []
    for turn in range(turns):
        attempt = Attempt(command("damaged", place, steps))
        while attempt.is_running() and _saved(place / "damaged") < (turn + 2) * steps / (turns + 2):
            time.sleep(0.0005)
        attempt.kill()
        newest = latest_checkpoint(place / "damaged" / "checkpoints")
        file = rng.choice([path for path in newest.iterdir() if path.stat().st_size])
        content = bytearray(file.read_bytes())
        at = rng.randrange(len(content))
        content = (
            content[:at]
            if rng.random() < 0.5
            else content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        )
        file.write_bytes(content)
        told.append(f"{newest.name}/{file.name} {'cut' if len(content) == at else 'one bit'} at byte {at}")
    finished(place, "damaged", steps)
    return told


def _saved(folder: Path) -> int:
    """The second highest step of which there is a checkpoint: one to damage, one to fall back to."""
    steps = sorted(int(path.name[5:]) for path in (folder / "checkpoints").glob("step-*"))
    return steps[-2] if len(steps) > 1 else 0


FAULTS = {
    "full disk": (full_disk, "full"),
    "files that may not grow": (short_files, "short"),
    "read-only folder": (read_only, "ro"),
    "damaged newest checkpoint": (damaged, "damaged"),
}


def main() -> int:
    """Run and compare; 0 when everything is identical."""
    parser = flags_of(__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--turns", type=int, default=12, help="of each kind of fault in writes")
    parser.add_argument("--faults", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rng, wrong = random.Random(args.seed), 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder).resolve()
        finished(place, "whole", args.steps)
        whole = end_state(place / "whole")
        if args.kills:
            hit, missed = kills(place, args.steps, args.kills, rng)
            wrong += verdict(f"{sum(hit.values())} SIGKILLs", whole, end_state(place / "killed"))
            print(
                f"  in: {', '.join(f'{phase} {hit[phase]}' for phase in PHASES)}; ended before a kill: {missed}"
            )
        for what, (fault, name) in FAULTS.items() if args.faults else ():
            told = [line for line in fault(place, args.steps, rng, args.turns) if line]
            wrong += verdict(f"{what}, {len(told)} times", whole, end_state(place / name))
            for line, times in Counter(
                re.sub(r"/tmp/[^/]*|\d+ is|\d+\.\d", "...", line) for line in told
            ).items():
                print(f"  {times} x {line}")
    return 1 if wrong else 0


def verdict(what: str, whole: dict[str, object], other: dict[str, object]) -> int:
    """Print whether two ends are the same; 0 when they are."""
    odd = differences(whole, other)
    tensors = sum(": " in name for name in whole)
    same = f"identical: {tensors} tensors, {len(whole['metrics.jsonl'])} records, state and reports"
    print(f"{what}: {same if not odd else 'DIFFERENT: ' + ', '.join(odd[:6])}", flush=True)
    return len(odd)


if __name__ == "__main__":
    sys.exit(main())
