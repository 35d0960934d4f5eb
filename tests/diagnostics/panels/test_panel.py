"""What a panel is: limits judge, the worst reading counts, and what is missing is said."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from jepa_world_model.diagnostics.panels import PANELS
from jepa_world_model.diagnostics.panels.faults import RULES
from jepa_world_model.diagnostics.panels.panel import Found, MissingError, Panels, Question, high, low
from jepa_world_model.experiment import TrainConfig
from tests.diagnostics.panels.asked import healthy


def question(values, **limits) -> Question:
    return Question(
        name="a", title="A", family="states", question="", limits=limits, next_move="",
        ask=lambda seen: Found(values, "told."),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("limit", "value", "verdict"),
    [
        (low(0.2, 0.4, ""), 0.2, "pass"), (low(0.2, 0.4, ""), 0.3, "warn"), (low(0.2, 0.4, ""), 0.4, "fail"),
        (high(1.5, 1.05, ""), 1.5, "pass"), (high(1.5, 1.05, ""), 1.2, "warn"), (high(1.5, 1.05, ""), 1.0, "fail"),
    ],
)  # fmt: skip
def test_a_limit_passes_warns_and_fails_on_its_own_side(limit, value, verdict):
    assert limit.judge(value) == verdict


def test_a_panel_is_as_bad_as_its_worst_reading():
    made = question({"x": 0.1, "y": 9.0, "told": 5.0}, x=low(0.2, 0.4, ""), y=low(1, 2, "")).answer(healthy())
    assert made.verdict == "fail"
    assert [one.verdict for one in made.readings] == ["pass", "fail", "told"]
    assert made.failed("y")
    assert not made.failed("x", "told")
    assert made["told"] == 5.0


def test_what_is_not_finite_is_not_measured():
    made = question({"x": np.nan}, x=low(0.2, 0.4, "")).answer(healthy())
    assert (made.verdict, made.readings) == ("not measured", ())
    assert np.isnan(made["x"])


def test_what_is_missing_is_said():
    def ask(seen):
        raise MissingError("a map of the world")

    made = dataclasses.replace(question({}), ask=ask).answer(healthy())
    assert (made.verdict, made.sentence) == ("not measured", "This panel needs a map of the world.")


def test_a_panel_is_registered_once_and_in_a_family():
    registry = Panels()
    give = {"title": "", "question": "", "limits": {}, "next_move": ""}
    registry("a", family="states", **give)(lambda seen: Found({}, ""))
    with pytest.raises(ValueError, match="registered twice"):
        registry("a", family="states", **give)
    with pytest.raises(ValueError, match="unknown"):
        registry("b", family="stats", **give)


@pytest.mark.parametrize("one", list(PANELS), ids=lambda one: one.name)
def test_every_limit_leaves_room_to_warn_and_has_a_meaning(one):
    for name, limit in one.limits.items():
        assert (limit.passes < limit.fails) == (limit.better == "low"), name
        assert limit.passes != limit.fails, name
        assert limit.meaning, name


def flags(cls: type, prefix: str = "--") -> set[str]:
    """Every flag of the trainer."""
    found = set()
    for field in dataclasses.fields(cls):
        value = getattr(cls(), field.name)
        name = prefix + field.name.replace("_", "-")
        found |= flags(type(value), f"{name}.") if dataclasses.is_dataclass(value) else {name}
    return found


@pytest.mark.parametrize("words", [one.next_move for one in [*PANELS, *RULES]])
def test_next_moves_name_flags_that_exist(words):
    known = flags(TrainConfig)
    assert words
    for flag in re.findall(r"--[a-z][\w.-]*\w", words):
        assert flag in known, flag


@pytest.mark.parametrize("one", list(PANELS), ids=lambda one: one.name)
def test_every_panel_passes_the_oracle_and_draws(one):
    made = one.answer(healthy())
    assert made.verdict == "pass", made
    assert made.sentence.endswith(".")
    assert made.figure is None or "nan" not in made.figure()
