"""Each known fault is named, and alone; a healthy model has none."""

from __future__ import annotations

import re

import pytest

from jepa_world_model.diagnostics.panels import PANELS
from jepa_world_model.diagnostics.panels.faults import RULES, name_faults, summarise
from tests.diagnostics.panels.asked import BROKEN, broken, healthy


@pytest.fixture(scope="module")
def oracle_panels():
    return PANELS.answer(healthy())


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_broken_model_is_told_its_fault_and_no_other(rule):
    panels = PANELS.answer(broken(rule.name))
    faults = name_faults(panels)
    assert [fault.name for fault in faults] == [rule.name]
    assert summarise(panels, faults).startswith(f"{rule.title} (")
    assert "{" not in faults[0].text
    assert re.search(r"\d", faults[0].text)  # a number shows it


def test_the_oracle_has_no_fault(oracle_panels):
    assert name_faults(oracle_panels) == []
    assert summarise(oracle_panels, []) == f"no fault found ({len(PANELS.table)} pass)"


def test_every_fault_is_broken_on_purpose_and_names_real_readings(oracle_panels):
    assert {rule.name for rule in RULES} == set(BROKEN)
    for rule in RULES:
        for panel, reading in re.findall(r"\{(\w+)\.(\w+)\}", " ".join(rule.evidence)):
            limits, told = PANELS.table[panel].limits, oracle_panels[panel].readings
            assert reading in limits or reading in {one.name for one in told}, f"{panel}.{reading}"
        assert {other.name for other in RULES}.issuperset(rule.explains)


def test_failing_panels_without_a_known_fault_are_still_told(oracle_panels):
    odd = PANELS.table["laps"].answer(broken("p_clock"))
    said = summarise(oracle_panels | {"laps": odd}, [])
    assert "no known fault, but 1 panel fails: New places a lap" in said
