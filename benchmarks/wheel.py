"""The wheel at work outside the repository: built, installed in an empty environment, and run in another folder.

Command: python benchmarks/wheel.py [--full] [--steps 50]

Without --full the environment holds the wheel alone and borrows the other libraries from the interpreter that runs this
(seconds); with it every dependency is installed from the package index (minutes, about 1 GB). Prints the size of the wheel,
the import times, and how long each command took; exits 1 when one fails.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from pathlib import Path

from flags import flags_of

ROOT = Path(__file__).parents[1]
SOURCES = (
    "jepa_world_model",
    "configs",
    "setup.py",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "jepa_world_model_trainer.py",
)
FIVE_LINES = """
import numpy as np
import jepa_world_model as jwm

run = jwm.load("runs/w")
frames = np.zeros((4, 64, 64, 3), np.uint8)
z = run.encode(frames)
plan = run.plan(frames[:1], goal=frames[2])
future = run.imagine(frames, np.zeros(8, int))
assert future.frames.shape == (5, 3, 64, 64), future.frames.shape
"""


def build(place: Path) -> Path:
    """The wheel, built from a copy of the sources."""
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, place / name)
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "-q", "-w", str(place)]
    subprocess.run([*command, "--disable-pip-version-check"], cwd=place, check=True)
    return next(place.glob("*.whl"))


def install(place: Path, wheel: Path, full: bool) -> Path:
    """An environment with the wheel; returns its folder of executables."""
    venv.create(place, with_pip=True)
    binaries = place / "bin"
    # Not isolated: the machine's own package index settings are wanted; PYTHONPATH would bring the repository back in.
    pip = [str(binaries / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    if full:
        constraints = ["-c", str(ROOT / "constraints.txt")]
        subprocess.run([*pip, *constraints, str(wheel)], check=True, env=outside())
    else:
        subprocess.run([*pip, "--no-deps", str(wheel)], check=True, env=outside())
        own = subprocess.run(
            [str(binaries / "python"), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            check=True, capture_output=True, text=True,
        ).stdout.strip()  # fmt: skip
        Path(own, "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return binaries


def outside() -> dict[str, str]:
    """The environment variables without what could lead back into the repository."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


def run(what: str, command: list[str], place: Path) -> bool:
    """Run one command in the other folder and print how it went."""
    began = time.perf_counter()
    done = subprocess.run(command, cwd=place, env=outside(), capture_output=True, text=True, check=False)
    seconds, good = time.perf_counter() - began, done.returncode == 0
    print(f"{'ok    ' if good else 'FAILED'}  {seconds:6.1f} s  {what}", flush=True)
    if not good:
        print(done.stdout[-2000:], done.stderr[-2000:], sep="\n")
    return good


def import_seconds(python: Path, before: str, timed: str, place: Path, times: int = 7) -> float:
    """The median time that a line takes in a fresh interpreter, after another that is not counted."""
    code = f"import time\n{before}\na = time.perf_counter()\n{timed}\nprint(time.perf_counter() - a)"
    options = {"cwd": place, "env": outside(), "capture_output": True, "text": True, "check": True}
    spent = [float(subprocess.run([str(python), "-c", code], **options).stdout) for _ in range(times)]
    return statistics.median(spent)


def main() -> int:
    """Build, install, run; 0 when everything went well."""
    parser = flags_of(__doc__)
    parser.add_argument("--full", action="store_true", help="install every dependency from the package index")
    parser.add_argument("--steps", type=int, default=50, help="of the training")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="jepa-wheel-") as temporary:
        (sources := Path(temporary, "sources")).mkdir()
        (elsewhere := Path(temporary, "elsewhere")).mkdir()
        wheel = build(sources)
        print(f"wheel   {wheel.stat().st_size / 1e3:.0f} kB  {wheel.name}", flush=True)
        binaries = install(Path(temporary, "env"), wheel, given.full)
        shutil.rmtree(sources)
        python, command = binaries / "python", str(binaries / "jepa-wm")
        where = "import jepa_world_model as m, sys; assert m.__file__.startswith(sys.prefix), m.__file__"
        train = [command, "train", "--steps", str(given.steps), "--name", "w"]
        plan = [command, "plan", "runs/w", "--episodes", "4", "--steps", "20"]
        shipped = [command, "train", "--config", "atari_freeway", "--help"]
        good = all(
            (
                run("the package comes from the environment", [str(python), "-c", where], elsewhere),
                run("jepa-wm --help", [command, "--help"], elsewhere),
                run("a shipped configuration by its name", shipped, elsewhere),
                run(f"jepa-wm train --steps {given.steps}", train, elsewhere),
                run("jepa-wm report", [command, "report", "runs/w"], elsewhere),
                run("jepa-wm plan", plan, elsewhere),
                run("jepa-wm export", [command, "export", "runs/w"], elsewhere),
                run("load, encode, imagine in Python", [str(python), "-c", FIVE_LINES], elsewhere),
            )
        )  # fmt: skip
        for told, before, timed in (
            ("import jepa_world_model", "", "import jepa_world_model"),
            ("and jwm.load, after import torch", "import torch", "import jepa_world_model as m; m.load"),
        ):
            print(f"import  {import_seconds(python, before, timed, elsewhere):6.3f} s  {told}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
