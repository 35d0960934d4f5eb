"""The wheel holds what a user needs outside the repository; `make wheel-check` installs it and runs it."""

from __future__ import annotations

import email
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import jepa_world_model as jwm

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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """The wheel as pip builds it, from a copy: a build leaves folders behind."""
    place = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, place / name)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        ".",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        "dist",
    ]
    subprocess.run(command, cwd=place, check=True, timeout=120, capture_output=True)
    (path,) = (place / "dist").glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_every_file_of_the_package_and_every_configuration(wheel):
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    inside = [
        path for path in (ROOT / "jepa_world_model").rglob("*") if path.is_file() and path.suffix != ".pyc"
    ]
    configs = {f"jepa_world_model/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.toml")}
    assert configs
    assert held == {str(path.relative_to(ROOT)) for path in inside} | configs | {
        "jepa_world_model_trainer.py"
    }
    sources = {"jepa_world_model/losses/multi_box.c", "jepa_world_model/models/soft_argmax.c"}
    assert {"jepa_world_model/py.typed", *sources} <= set(held)


def test_the_metadata_tell_the_version_the_pythons_and_the_extras(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    told = email.message_from_string(wheel.read(name).decode())
    assert told["Version"] == jwm.__version__
    assert told["Requires-Python"] == ">=3.10"
    pythons = {line.rpartition(":: ")[2] for line in told.get_all("Classifier") if "Python :: 3." in line}
    assert pythons == {"3.10", "3.11", "3.12", "3.13"}
    assert {"atari", "hub", "tensorboard", "vla"} <= set(told.get_all("Provides-Extra"))


def test_the_command_is_installed(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "jepa-wm = jepa_world_model.cli:main" in wheel.read(name).decode()
