"""The runs of an ablation: each a process of the trainer, a few at a time, taken up where they were left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from jepa_world_model.core.config import to_toml
from jepa_world_model.core.run import atomic_write, writing
from jepa_world_model.experiment.ablation import Trial, is_finished, steps_done

ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
POLL_S = 0.1


def run_trials(trials: Sequence[Trial], *, jobs: int) -> dict[str, str]:
    """Run what is not finished, `jobs` at a time; returns what failed: name of the run to one sentence.

    A run that failed stops no other. When this process is interrupted, its runs save a checkpoint and end,
    and the same call goes on from there.
    """
    waiting = [trial for trial in trials if not is_finished(trial)]
    print(
        f"{len(trials)} runs, {len(trials) - len(waiting)} of them finished before; {jobs} at a time",
        flush=True,
    )
    running: dict[subprocess.Popen, Trial] = {}
    failures: dict[str, str] = {}
    total = len(waiting)
    with _terminate_as_interrupt():
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    trial = waiting.pop(0)
                    running[start(trial)] = trial
                for process in [process for process in running if process.poll() is not None]:
                    trial = running.pop(process)
                    if failure := verdict(trial, process.returncode):
                        failures[trial.name] = failure
                    done = total - len(waiting) - len(running)
                    print(f"[{done}/{total}] {trial.name}: {failure or 'finished'}", flush=True)
                time.sleep(POLL_S)
        finally:
            for process in running:
                process.terminate()  # the trainer saves a checkpoint and ends
            for process in running:
                process.wait()
    return failures


def start(trial: Trial) -> subprocess.Popen:
    """The process of one run, new or from its newest checkpoint; what it prints goes to logs/<name>.log."""
    config, log = trial.out / "arms" / f"{trial.arm.name}.toml", log_of(trial)
    for folder in (config.parent, log.parent):
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
    atomic_write(config, to_toml(trial.arm.cfg))
    command = [sys.executable, "-m", "jepa_world_model.cli", "train", "--config", str(config)]
    command += ["--seed", str(trial.seed), "--name", trial.name, "--output-dir", str(trial.out)]
    if trial.folder.is_dir():
        if steps_done(trial):
            command.append("--resume")
        else:
            set_aside(trial)
    with writing(log), open(log, "ab") as file:
        return subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=os.environ | dict.fromkeys(ONE_THREAD, "1"),
        )


def log_of(trial: Trial) -> Path:
    """Where the run's process prints to."""
    return trial.out / "logs" / f"{trial.name}.log"


def set_aside(trial: Trial) -> Path:
    """Move a run that ended before its first checkpoint to unfinished/, so that its name is free again."""
    place = trial.out / "unfinished"
    with writing(place):
        place.mkdir(exist_ok=True)
        number = 1
        while (place / f"{trial.name}-{number}").exists():
            number += 1
        return trial.folder.rename(place / f"{trial.name}-{number}")


def verdict(trial: Trial, code: int) -> str:
    """Empty for a run that finished; else why it did not, as the run said itself."""
    if code == 0 and is_finished(trial):
        return ""
    lines = [line for line in log_of(trial).read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error:")]
    last = (errors or lines or ["it printed nothing"])[-1]
    return f"exit code {code}: {last[:300]} (see {log_of(trial)})"


@contextlib.contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Inside, SIGTERM raises KeyboardInterrupt, so that the runs of this process end with it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
