"""Every page that a command writes, in a browser: nothing goes wrong in it, it asks no other host, it fits a phone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from jepa_world_model.cli import main
from jepa_world_model.diagnostics.dashboard import diagnose, write_dashboard
from jepa_world_model.diagnostics.plan_page import Offered, PlanView, write_plan_page
from jepa_world_model.diagnostics.report import write_report
from jepa_world_model.diagnostics.runs_page import find_runs, write_runs_page
from jepa_world_model.envs.layouts import MOVES, free_cells
from jepa_world_model.experiment.ablation_page import ablation_page
from jepa_world_model.experiment.ablation_table import results
from jepa_world_model.planning.lattice import Lattice
from jepa_world_model.planning.worlds import GridworldWorld
from jepa_world_model.vla_ki.verdicts import to_page
from tests.browser import BROWSER, Browser
from tests.commands.test_ablate import made_up
from tests.data.build import noisy_store
from tests.diagnostics.panels.asked import ask, healthy
from tests.diagnostics.synthetic_run import write_run
from tests.vla_ki import test_verdicts
from tests.vla_ki.tiny import flags

pytestmark = pytest.mark.skipif(not BROWSER, reason="needs chromium")
LOOKS = ((390, False), (390, True), (1280, False))  # px, dark


def report(folder: Path) -> Path:
    return write_report(write_run(folder / "a-run-of-some-length", steps=40))


def dashboard(folder: Path) -> Path:
    about = {"batch_sha256": "781ff01a1dee4e80b3a5b868bfa875c2af1c86263d38605170b3d07d45af896f"}
    return write_dashboard(folder, diagnose(healthy(), about))


def dashboard_with_gaps(folder: Path) -> Path:
    return write_dashboard(
        folder, diagnose(ask(simulator=False, without=("p_action_delta_projector", "decoder")))
    )


def runs(folder: Path) -> Path:
    for number in range(3):
        write_run(folder / f"run-{number}-with-a-name-that-people-give", steps=40)
    return write_runs_page(find_runs(folder), folder, folder / "runs.html")[0]


def plans(folder: Path) -> Path:
    world = GridworldWorld(layout="open", cells=5, size=32)
    cells, lattice = free_cells(world.walls), Lattice(MOVES.astype(float))
    view = PlanView(
        world=world, pose=cells.astype(float), increments=MOVES.astype(float), seen=np.arange(len(cells)) > 3,
        planners={"lattice": Offered(route=lambda a, b: lattice.route(cells[a], cells[b]), adds_up=True)},
    )  # fmt: skip
    return write_plan_page(view, folder / "plan.html", "Plans")


def data_set(folder: Path) -> Path:
    noisy_store(folder / "a-recording-with-a-long-name", kind="continuous", lengths=(9, 12, 20))
    page = folder / "inspect.html"
    assert main(["inspect", str(folder / "a-recording-with-a-long-name"), "--page", str(page)]) == 0
    return page


def ablation(folder: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        found = results(made_up(folder, patch), {"z-to-h-1-s2": "exit code 2: error: not finite"})
    page = folder / "ablation.html"
    page.write_text(ablation_page(found), encoding="utf-8")
    return page


def arms(folder: Path) -> Path:
    made, page = test_verdicts.results(), folder / "arms.html"
    made.curves["insulated@stage0b"] = {0: [{"step": step, "success_seen": 0.1 * step} for step in (1, 2)]}
    page.write_text(to_page(made), encoding="utf-8")
    return page


def vla_report(folder: Path) -> Path:
    for package in ("tokenizers", "pyarrow", "av"):
        pytest.importorskip(package)
    given = flags(folder, name="a-robot-that-was-told", steps=3, eval_every=1)
    assert main(["ki-train", *given]) == 0
    return folder / "runs" / "a-robot-that-was-told" / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as one:
        yield one


PAGES = [report, dashboard, dashboard_with_gaps, runs, plans, data_set, ablation, arms, vla_report]


@pytest.mark.parametrize("write", PAGES, ids=lambda write: write.__name__)
def test_a_page_is_quiet_asks_nobody_and_fits(
    browser: Browser, tmp_path: Path, write: Callable[[Path], Path]
):
    file = write(tmp_path)
    for width, dark in LOOKS:
        seen = browser.look(file.as_uri(), width=width, dark=dark)
        assert seen.console == (), (width, dark)
        assert seen.requests == (file.as_uri(),), (width, dark)
        assert seen.wider == (), (width, dark)
        assert browser.ask("document.documentElement.scrollWidth") <= width
        assert browser.ask("document.body.innerText.length") > 200


def test_the_browser_sees_what_is_wrong(browser: Browser, tmp_path: Path):
    file = tmp_path / "bad.html"
    file.write_text(
        '<!doctype html><meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
        '<div style="width:900px">wide</div><img src="http://127.0.0.1:9/x.png"><script>missing()</script>'
    )
    seen = browser.look(file.as_uri(), width=390)
    assert any("missing is not defined" in words for words in seen.console)
    assert seen.elsewhere("file:") == ["http://127.0.0.1:9/x.png"]
    assert seen.wider == ("div. wide",)
