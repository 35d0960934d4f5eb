"""The page over many runs: what it holds, and what a browser shows of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

import pytest

from jepa_world_model.cli import main
from jepa_world_model.commands.runs import server
from jepa_world_model.core.errors import UserError
from jepa_world_model.diagnostics.runs_page import find_runs, write_runs_page
from tests.diagnostics.synthetic_run import write_run

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--virtual-time-budget=8000",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 runs: one written, the others its copies with another seed, step count and weight of h2z."""
    root = tmp_path_factory.mktemp("runs")
    first = write_run(root / "run-000", steps=40)
    (first / "report.html").write_text("<p>report")
    for number in range(1, 200):
        copy = root / f"run-{number:03d}"
        shutil.copytree(first, copy, ignore=shutil.ignore_patterns("snapshot.npz"))
        (copy / "changes.json").write_text(
            json.dumps({"loss_weights.h2z": {"default": 1.0, "value": number / 100}})
        )
    reach = json.loads((root / "run-007" / "reach.json").read_text())
    reach["losses"]["jepa"]["derived"] = ["encoder"]
    (root / "run-007" / "reach.json").write_text(json.dumps(reach))
    return root


def content(page: Path) -> dict:
    text = re.search(r'id="data">(.*?)</script>', page.read_text(), re.DOTALL)[1]
    return json.loads(text.replace("<\\/", "</"))


def test_the_page_holds_every_run_and_stays_small(folder, tmp_path):
    page, unread = write_runs_page(find_runs(folder), folder, tmp_path / "runs.html")
    data = content(page)
    assert unread == {}
    assert {row["name"] for row in data["runs"]} == {f"run-{number:03d}" for number in range(200)}
    assert page.stat().st_size < 12e6
    assert data["headlines"][0] == "eval/latent_one_step_ratio"
    row = next(row for row in data["runs"] if row["name"] == "run-003")
    assert row["changes"] == {"loss_weights.h2z": "0.03"}
    assert row["reach"]["jepa"] == ["h_to_z", "predictor"]
    assert all(len(steps) == len(values) <= 60 for steps, values in row["curves"].values())


def test_a_run_that_cannot_be_read_is_named_and_the_others_are_shown(tmp_path, capsys):
    write_run(tmp_path / "good", steps=20)
    (write_run(tmp_path / "bad", steps=20) / "reach.json").write_text("{")
    assert main(["runs", str(tmp_path)]) == 0
    assert "not read" in capsys.readouterr().out
    assert [row["name"] for row in content(tmp_path / "runs.html")["runs"]] == ["good"]


def test_a_name_that_ends_a_script_ends_nothing(tmp_path):
    run = write_run(tmp_path / "odd", steps=20)
    (run / "changes.json").write_text(json.dumps({"name": "</script><script>alert(1)"}))
    page, _ = write_runs_page([run], tmp_path, tmp_path / "runs.html")
    assert "</script><script>alert" not in page.read_text()


def test_a_folder_without_runs_is_one_sentence(tmp_path, capsys):
    assert main(["runs", str(tmp_path)]) == 2
    assert "there is no run at or below" in capsys.readouterr().err


def test_it_is_served_on_loopback_and_made_anew(tmp_path):
    write_run(tmp_path / "first", steps=20)
    with server(tmp_path, 0) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{listening.server_port}/"
        assert listening.server_address[0] == "127.0.0.1"
        assert "1 runs" in urllib.request.urlopen(address, timeout=20).read().decode()
        write_run(tmp_path / "second", steps=20)
        assert "2 runs" in urllib.request.urlopen(address, timeout=20).read().decode()
        with pytest.raises(UserError, match="choose another port"):
            server(tmp_path, listening.server_port)
        listening.shutdown()


def shown(page: Path, profile: Path, **state: object) -> tuple[str, str]:
    """The document after its script ran, and what the browser's console said."""
    address = f"{page.as_uri()}#{urlencode(state, doseq=True)}"
    done = subprocess.run(
        [BROWSER, *QUIET, f"--user-data-dir={profile}", "--dump-dom", address],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


@pytest.mark.skipif(not BROWSER, reason="needs chromium")
def test_a_browser_filters_sorts_and_compares(folder, tmp_path):
    page, _ = write_runs_page(find_runs(folder), folder, tmp_path / "runs.html")
    document, console = shown(
        page,
        tmp_path,
        q="run-00 -run-003",
        sort="name",
        runs=["run-002", "run-007"],
        columns="eval/probe_z_r2",
    )
    assert console == ""
    table = document.partition("<tbody>")[2].partition("</tbody>")[0]
    assert re.findall(r'aria-label="compare (run-\d+)"', table) == [
        f"run-00{x}" for x in (0, 1, 2, 4, 5, 6, 7, 8, 9)
    ]
    assert "9 of 200 runs" in document
    routing = document.partition("Routing that differs")[2].partition("Settings that differ")[0]
    assert "jepa moves" in routing
    assert "recon_multi_box moves" not in routing
