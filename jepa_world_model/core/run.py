"""The folder of a run: what it was asked, where it ran, what it measured. Nothing in it is half written."""

from __future__ import annotations

import contextlib
import datetime
import errno
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from jepa_world_model.core.config import to_toml
from jepa_world_model.core.errors import UserError

LOCK = ".lock"  # in a run's folder, held by the process that trains it
PACKAGES = ("jepa-world-model", "torch", "torchvision", "numpy", "scipy", "safetensors", "gymnasium", "wandb")


@dataclass(frozen=True, kw_only=True)
class Run:
    """The folder `runs/<name>/` and the places inside it."""

    folder: Path

    @classmethod
    def create(
        cls,
        output_dir: str | os.PathLike[str],
        name: str,
        cfg: Any,
        *,
        slug: str = "run",
        argv: Sequence[str] = (),
    ) -> Run:
        """Make a new run folder with config.toml and environment.json.

        An empty name becomes <UTC date-time>-<slug>-s<seed>. Results of another run are never overwritten.
        Errors: UserError for a name that is taken or is no folder name, or a place that cannot be written.
        """
        settings = to_toml(cfg)  # before anything is on disk: what cannot be written leaves no folder
        root = Path(output_dir)
        folder = root / check_name(name or _free_name(root, slug, getattr(cfg, "seed", 0)))
        with writing(folder):
            root.mkdir(parents=True, exist_ok=True)
            try:
                folder.mkdir()
            except FileExistsError:
                advice = "choose another --name, or continue that run with --resume"
                raise UserError(f"a run named {folder.name!r} exists already at {folder}; {advice}") from None
        return cls(folder=folder)._begun(settings, argv)

    def _begun(self, settings: str, argv: Sequence[str]) -> Run:
        atomic_write(self.environment, json.dumps(environment(argv), indent=2) + "\n")
        self.prepare()
        atomic_write(self.config, settings)  # last: a folder with a config.toml is a run
        return self

    @classmethod
    def take_up(
        cls, output_dir: str | os.PathLike[str], name: str, cfg: Any, argv: Sequence[str] = ()
    ) -> Run:
        """The run of this name: the one that is there, also one that a crash left half made, or a new one.

        Errors: UserError as `create` and `open`.
        """
        folder = Path(output_dir) / check_name(name)
        if not folder.exists():
            return cls.create(output_dir, name, cfg, argv=argv)
        run = cls(folder=folder)
        half_made = {run.environment.name, run.checkpoints.name, run.figures.name, run.planning.name, LOCK}
        if folder.is_dir() and not run.config.exists():
            odd = [path.name for path in folder.iterdir() if path.name not in half_made | {""}]
            if all(name.startswith(".") for name in odd):
                return run._begun(to_toml(cfg), argv)
        return cls.open(folder)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Run:
        """The run that lives in a folder made by `create`."""
        run = cls(folder=Path(folder))
        if not run.config.is_file():
            raise UserError(f"{folder} is no run: it holds no config.toml; give a folder below runs/")
        run.prepare()
        return run

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Inside, no other process on this machine may train this run; a process that dies lets go of it.

        Errors: UserError that names the process which holds it.
        """
        import fcntl

        with writing(self.folder / LOCK):
            handle = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._take(handle, fcntl.flock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._sweep()
            yield
        finally:
            os.close(handle)

    def _take(self, handle: int, flock: Any, how: int) -> None:
        try:
            flock(handle, how)
        except BlockingIOError:
            holder = os.read(handle, 20).decode(errors="replace").strip() or "?"
            raise UserError(
                f"process {holder} is training {self.folder} at this moment; wait for it, end it, or choose "
                "another --name"
            ) from None
        except OSError:
            pass  # a file system without locks: two processes in one run are the user's to avoid there
        with writing(self.folder / LOCK):
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)

    def _sweep(self) -> None:
        """Delete the drafts of processes that died while writing."""
        for path in self.folder.glob(".*.tmp"):
            owner = path.name.split(".")[-2]
            if owner.isdigit() and not _is_alive(int(owner)):
                path.unlink(missing_ok=True)

    def prepare(self) -> None:
        """Make the folders inside that are missing."""
        for place in (self.checkpoints, self.figures, self.planning):
            with writing(place):
                place.mkdir(exist_ok=True)

    @property
    def name(self) -> str:
        """The name of the run."""
        return self.folder.name

    @property
    def config(self) -> Path:
        """Every setting, resolved; `--config` on it repeats the run."""
        return self.folder / "config.toml"

    @property
    def environment(self) -> Path:
        """Code, versions and machine."""
        return self.folder / "environment.json"

    @property
    def metrics(self) -> Path:
        """One JSON line a record."""
        return self.folder / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """One folder a checkpoint."""
        return self.folder / "checkpoints"

    @property
    def figures(self) -> Path:
        """Images."""
        return self.folder / "figures"

    @property
    def planning(self) -> Path:
        """Results of planning."""
        return self.folder / "planning"


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def check_name(name: str) -> str:
    """The name of a run. Errors: UserError for one that is no folder name."""
    if not re.fullmatch(r"[^/\\\0]+", name) or name in (".", ".."):
        raise UserError(f"{name!r} is no name for a run; --name takes a single folder name, without slashes")
    return name


def _free_name(root: Path, slug: str, seed: int) -> str:
    """<UTC date-time>-<slug>-s<seed>, numbered when runs start in the same second."""
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%d-%H%M%S")
    clean = re.sub(r"[^a-z0-9]+", "-", slug.lower()).strip("-")[:40] or "run"
    base = f"{now}-{clean}-s{seed}"
    names = [base, *(f"{base}-{number}" for number in range(2, 1000))]
    return next((name for name in names if not (root / name).exists()), base)


def environment(argv: Sequence[str] = ()) -> dict[str, Any]:
    """Code, versions, machine and command of this process, as JSON holds them."""
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "command": list(argv) or sys.argv,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "git": git_state(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions,
        "devices": devices or ["cpu"],
        "cuda": torch.version.cuda,
        "cpus": len(affinity(0)) if affinity else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "variables": {key: os.environ[key] for key in ("OMP_NUM_THREADS", "WORLD_SIZE") if key in os.environ},
    }


def git_state() -> dict[str, Any] | None:
    """Commit of this code and whether tracked files differ from it; None when it is not a git checkout."""
    here = Path(__file__).resolve()

    def git(*words: str) -> str | None:
        command = ["git", "-C", str(here.parent), *words]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed copy may lie inside somebody else's repository: only one that tracks this file counts.
    if git("ls-files", "--error-unmatch", here.name) is None:
        return None
    commit = git("rev-parse", "HEAD")
    return commit and {"commit": commit, "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}


@contextlib.contextmanager
def writing(place: str | os.PathLike[str]) -> Any:
    """What the system says about a place that cannot be written becomes one sentence (UserError)."""
    try:
        yield
    except OSError as problem:
        if problem.errno in (errno.ENOSPC, errno.EDQUOT):
            why = "the disk is full; free some space or choose another --output-dir"
        elif problem.errno == errno.EFBIG:
            why = (
                "files may not grow that large here (see ulimit -f); raise it or choose another --output-dir"
            )
        elif problem.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            why = "no permission to write there; choose another --output-dir"
        elif problem.errno in (errno.ENOTDIR, errno.EEXIST):
            why = "a file stands where a folder is needed; choose another --output-dir"
        else:
            why = problem.strerror or str(problem)
        raise UserError(f"cannot write {place}: {why}") from problem


def atomic_write(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write a whole file or nothing: a reader, or a crash at any moment, sees the old content or the new.

    Errors: UserError when the disk is full or the place cannot be written; the old content then stays.
    """
    path = Path(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        try:
            with open(draft, "wb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def require_space(folder: str | os.PathLike[str], needed_bytes: int) -> None:
    """Refuse (UserError) to start a write for which the disk has no room; the folder need not exist yet."""
    place = Path(folder).absolute()
    place = next(parent for parent in (place, *place.parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if free < needed_bytes:
        short = f"{needed_bytes / 1e6:.1f} MB are needed and {free / 1e6:.1f} MB are free"
        raise UserError(
            f"not enough room in {folder}: {short}; free some space or choose another --output-dir"
        )
