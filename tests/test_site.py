"""The documentation site: every page is in it, it builds without a warning, and it asks no other host for anything."""

from __future__ import annotations

import functools
import http.server
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jepa_world_model.cli import COMMANDS
from jepa_world_model.core.config import flatten
from jepa_world_model.experiment import TrainConfig
from jepa_world_model.losses import LOSSES
from tests.browser import BROWSER, Browser

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


def test_the_files_that_are_called_our_own_exist():
    text = (ROOT / "docs" / "by_hand.md").read_text(encoding="utf-8")
    for path in re.findall(r"`([a-z_]+/[\w/]*(?:\.py)?)`", text):
        assert (ROOT / path).exists() or (ROOT / "jepa_world_model" / path).exists(), path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with every warning an error."""
    pytest.importorskip("material", reason="needs the extra docs: pip install -e .[docs]")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=200, env={"NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr + done.stdout
    return folder


def test_every_page_is_built_and_none_loads_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) >= len(list((ROOT / "docs").glob("*.md")))
    for page in pages:
        loaded = re.findall(
            r"<(?:script|img|link rel=\"stylesheet\")[^>]+(?:src|href)=\"([^\"]+)", page.read_text()
        )
        assert not [link for link in loaded if link.startswith(("http:", "https:", "//"))], page.name


@pytest.mark.skipif(not BROWSER, reason="needs chromium")
def test_a_browser_finds_the_site_quiet_and_no_wider_than_a_phone(site, tmp_path):
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, Browser(tmp_path) as browser:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        start = f"http://127.0.0.1:{server.server_port}/"
        for page in ("", "recipes/", "losses/", "configuration/", "log/"):
            seen = browser.look(start + page, width=390)
            assert seen.console == (), page
            assert seen.elsewhere(start) == [], page
            assert browser.ask("document.documentElement.scrollWidth") <= 390, page
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Files, without a word on each."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""
