"""The documentation site: every page is in it, it builds without a warning, and it asks no other host for anything."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from jepa_world_model.cli import COMMANDS
from jepa_world_model.core.config import flatten
from jepa_world_model.experiment import TrainConfig
from jepa_world_model.losses import LOSSES

ROOT = Path(__file__).parents[1]
NAV = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("nav:")[2]


def test_every_page_is_in_the_navigation():
    assert set(re.findall(r": (\w+\.md)", NAV)) == {path.name for path in (ROOT / "docs").glob("*.md")}


def test_the_names_a_newcomer_is_told_exist():
    text = (ROOT / "docs" / "coming_from.md").read_text(encoding="utf-8")
    ours = " ".join(row.split("|")[2] for row in text.splitlines() if row.startswith("| "))
    names = {name for name in re.findall(r"`([a-z_]+)`", ours) if "_" in name or name in LOSSES}
    settings = {path.rpartition(".")[2] for path in flatten(TrainConfig())}
    groups = {"h_to_z", "z_hat"}
    assert names <= set(LOSSES) | settings | groups
    for name in re.findall(r"`jepa-wm ([a-z-]+)", text):
        assert name in COMMANDS
    for path in re.findall(r"`(configs/\S+\.toml)`", text):
        assert (ROOT / path).is_file()


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("material", reason="needs the extra docs: pip install -e .[docs]")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=200, env={"NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) >= len(list((ROOT / "docs").glob("*.md")))
    for page in pages:
        loaded = re.findall(
            r"<(?:script|img|link rel=\"stylesheet\")[^>]+(?:src|href)=\"([^\"]+)", page.read_text()
        )
        assert not [link for link in loaded if link.startswith(("http:", "https:", "//"))], page.name
