"""The page to watch plans on: complete in itself, and right about what plans do in the world."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from jepa_world_model.diagnostics.plan_page import Offered, PlanView, page_data, plan_html, write_plan_page
from jepa_world_model.envs.layouts import MOVES, free_cells
from jepa_world_model.envs.loops import interior
from jepa_world_model.planning.graph import Route
from jepa_world_model.planning.lattice import Lattice
from jepa_world_model.planning.worlds import GridworldWorld

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
)  # fmt: skip


@pytest.fixture(scope="module")
def view() -> PlanView:
    world = GridworldWorld(layout="pinwheel", cells=8, size=32)
    cells = free_cells(world.walls)
    lattice = Lattice(MOVES.astype(float))
    seen = ~interior(world.walls)[cells[:, 1], cells[:, 0]]
    none = Route((), False)
    planners = {
        "lattice": Offered(route=lambda a, b: lattice.route(cells[a], cells[b]), adds_up=True),
        "graph": Offered(route=lambda a, b: none, why="the goal is not in the data"),
    }
    return PlanView(
        world=world, pose=cells.astype(float), increments=MOVES.astype(float), seen=seen, planners=planners
    )


def test_the_data_say_what_the_world_does_and_what_each_planner_wants(view):
    data = page_data(view)
    cells = np.array(data["cells"])
    for k in (0, 7, 20):
        for action, to in enumerate(data["after"][k]):
            assert (cells[to] == view.world.step(cells[k : k + 1], np.array([action]))[0]).all()
    assert data["routes"]["graph"][0][5] is None
    way = data["routes"]["lattice"][0][5]
    assert len(way) == np.abs(cells[0] - cells[5]).sum()
    assert data["seen"][data["start"]]
    assert not data["seen"][data["goal"]]


def test_the_page_is_one_file_that_asks_for_nothing(view, tmp_path):
    html = write_plan_page(view, tmp_path / "deep" / "plan.html", "A & B").read_text()
    assert "A &amp; B" in html
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"|url\(|@import|fetch\(|XMLHttp', html)
    assert len(html) < 400_000


def test_a_world_too_large_or_poses_that_do_not_fit_are_refused(view):
    with pytest.raises(ValueError, match="at most 150"):
        PlanView(world=GridworldWorld(layout="open", cells=20), pose=view.pose, increments=view.increments,
                 seen=view.seen, planners=view.planners)  # fmt: skip
    with pytest.raises(ValueError, match=r"needs pose \[56,2\]"):
        PlanView(world=view.world, pose=view.pose[:3], increments=view.increments, seen=view.seen,
                 planners=view.planners)  # fmt: skip


def shown(file: Path, profile: Path, state: str) -> tuple[str, str]:
    done = subprocess.run(
        [BROWSER, *QUIET, f"--user-data-dir={profile}", "--dump-dom", f"{file.as_uri()}#{state}"],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


@pytest.mark.skipif(not BROWSER, reason="needs chromium")
def test_a_browser_shows_the_plan_its_end_and_where_none_is_found(view, tmp_path):
    data = page_data(view)
    page = tmp_path / "plan.html"
    page.write_text(plan_html(data, "Plans"))
    optimal, routes = np.array(data["optimal"]), data["routes"]["lattice"]
    straight = next(
        (a, b)
        for a in range(56)
        for b in range(56)
        if optimal[a, b] == 5 and _end(data, a, routes[a][b]) == b
    )
    document, console = shown(page, tmp_path, f"start={straight[0]}&goal={straight[1]}&planner=lattice&t=2")
    assert console == ""
    assert "Arrives</b> in 5 moves; the best is 5." in document
    assert 'id="step">2 / 5<' in document
    walled = next((a, b) for a in range(56) for b in range(56) if a != b and _end(data, a, routes[a][b]) != b)
    document, _ = shown(page, tmp_path, f"start={walled[0]}&goal={walled[1]}&planner=lattice")
    assert "Misses</b>" in document
    assert "It runs into a wall" in document
    assert 'class="bump"' in document
    document, _ = shown(page, tmp_path, f"start={straight[0]}&goal={straight[1]}&planner=graph")
    assert "No way found</b>: the goal is not in the data. The world's own best is 5 moves." in document


def _end(data: dict, start: int, way: str) -> int:
    for action in way:
        start = data["after"][start][int(action)]
    return start


def test_script_data_cannot_end_the_script(view):
    data = page_data(view)
    data["why"] = {"graph": "</script><b>"}
    text = plan_html(data, "Plans").partition('type="application/json">')[2].partition("</script>")[0]
    assert json.loads(text)["why"]["graph"] == "</script><b>"
