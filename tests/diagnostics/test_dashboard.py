"""The page and the numbers of the dashboard."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest

from jepa_world_model.diagnostics.dashboard import diagnose, panels_markdown, write_dashboard
from jepa_world_model.diagnostics.panels import PANELS
from jepa_world_model.diagnostics.panels.faults import RULES
from tests.diagnostics.panels.asked import ask, broken, healthy
from tests.diagnostics.test_report import Tags


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("run")
    write_dashboard(place, diagnose(healthy(), {"step": 4, "batch_sha256": "ab<c"}), title="a <run>")
    return place


def test_the_page_is_whole_and_well_formed(folder):
    text = (folder / "diagnostics.html").read_text()
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    outside = [x for x in re.findall(r'(?:src|href)="([^"]*)"', text) if not x.startswith(("data:", "#"))]
    assert outside == []
    anchors = set(re.findall(r'href="#(\w+)"', text))
    assert anchors <= set(re.findall(r'id="(\w+)"', text))
    assert set(PANELS.table) <= anchors
    assert "a &lt;run&gt;" in text
    assert "ab&lt;c" in text
    assert "No fault found" in text.partition("<table")[0]
    assert text.count("<svg") > 5
    assert text.count("<img") >= 4  # film strips and neighbours


def test_the_numbers_say_what_the_page_says(folder):
    told = json.loads((folder / "diagnostics.json").read_text())
    assert told["summary"].startswith("no fault found")
    assert told["faults"] == []
    assert set(told["panels"]) == set(PANELS.table)
    assert told["about"]["batch_sha256"] == "ab<c"
    row = told["panels"]["increments"]["readings"]["p_inverse"]
    assert row == {
        "value": pytest.approx(0),
        "verdict": "pass",
        "better": "low",
        "passes": 0.15,
        "fails": 0.4,
    }
    assert told["panels"]["increments"]["readings"]["h_q"].keys() == {"value", "verdict"}


@pytest.mark.parametrize("fault", ["z_collapsed", "p_clock", "ignores_actions"])
def test_the_page_names_the_fault_before_anything_else(tmp_path, fault):
    rule = next(rule for rule in RULES if rule.name == fault)
    text = write_dashboard(tmp_path, diagnose(broken(fault))).read_text()
    first = text.partition("<table")[0].partition("<main>")[2]
    assert f"<h3>{rule.title}</h3>" in first  # z, h and p keep their small letter
    assert first.count("<h3>") == 1
    assert "<code>--" in first
    assert json.loads((tmp_path / "diagnostics.json").read_text())["faults"][0]["name"] == fault


def test_panels_that_lack_something_say_so_on_the_page(tmp_path):
    blind = ask(simulator=False, without=("p_action_delta_projector", "decoder"))
    text = write_dashboard(tmp_path, diagnose(dataclasses.replace(blind, places=None))).read_text()
    assert text.count('class="missing"') >= 9
    assert "This panel needs the true position of each frame" in text


def test_the_docs_have_every_panel_every_limit_and_every_fault():
    text = panels_markdown()
    for one in PANELS:
        assert f"(`{one.name}`)" in text
        for limit in one.limits.values():
            assert limit.meaning.replace("|", "\\|") in text
    for rule in RULES:
        assert f"| **{rule.title}** |" in text
    assert all(line.count(" | ") in (2, 3) for line in text.split("\n") if line.startswith("| **"))
