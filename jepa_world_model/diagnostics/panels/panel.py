"""What a panel of the dashboard is: a question to the model, its thresholds, and what was found."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jepa_world_model.diagnostics.panels.evidence import Evidence

VERDICTS = ("fail", "warn", "pass", "not measured")  # the worst first
FAMILIES = {
    "states": "What the states hold",
    "prediction": "What is predicted",
    "algebra": "What actions do",
    "places": "Whether places are recognised",
    "planning": "Whether one can plan with it",
}


class MissingError(Exception):
    """A panel cannot be computed; the message completes the sentence "This panel needs ..."."""


@dataclass(frozen=True, kw_only=True)
class Limit:
    """When a reading passes and when it fails; between the two it warns."""

    better: str  # "low" or "high"
    passes: float
    fails: float
    meaning: str  # what the reading is, its unit included

    def judge(self, value: float) -> str:
        """The verdict on a finite value."""
        sign = 1 if self.better == "low" else -1
        if sign * value <= sign * self.passes:
            return "pass"
        return "fail" if sign * value >= sign * self.fails else "warn"


def low(passes: float, fails: float, meaning: str) -> Limit:
    """A reading that should be small."""
    return Limit(better="low", passes=passes, fails=fails, meaning=meaning)


def high(passes: float, fails: float, meaning: str) -> Limit:
    """A reading that should be large."""
    return Limit(better="high", passes=passes, fails=fails, meaning=meaning)


@dataclass(frozen=True)
class Found:
    """What a panel's function returns."""

    values: Mapping[str, float]  # readings by name; those with a limit are judged, the others are told
    sentence: str  # what was found, in words
    figure: Callable[[], str] | None = None  # drawn only for the page: HTML


@dataclass(frozen=True)
class Reading:
    """One judged number."""

    name: str
    value: float
    verdict: str  # "pass", "warn", "fail", or "told" for one without a limit
    limit: Limit | None


@dataclass(frozen=True)
class Panel:
    """A panel as it stands on the page."""

    name: str
    title: str
    family: str
    question: str
    verdict: str  # the worst of its readings, or "not measured"
    readings: tuple[Reading, ...]
    sentence: str
    next_move: str
    figure: Callable[[], str] | None = None

    def __getitem__(self, name: str) -> float:
        """The value of a reading; nan where it was not measured."""
        return next((one.value for one in self.readings if one.name == name), math.nan)

    def failed(self, *names: str) -> bool:
        """Whether one of these readings fails."""
        return any(one.verdict == "fail" for one in self.readings if one.name in names)


@dataclass(frozen=True, kw_only=True)
class Question:
    """A registered panel: what it asks, when it passes, and what to do when it does not."""

    name: str
    title: str
    family: str
    question: str  # what a healthy model does
    limits: Mapping[str, Limit]
    next_move: str
    ask: Callable[[Evidence], Found]

    def answer(self, seen: Evidence) -> Panel:
        """The panel for one model."""
        common = (self.name, self.title, self.family, self.question)
        try:
            found = self.ask(seen)
        except MissingError as needs:
            return Panel(*common, "not measured", (), f"This panel needs {needs}.", self.next_move)
        order = {
            name: place for place, name in enumerate(self.limits)
        }  # "the same of z" stands after what it repeats
        readings = tuple(
            Reading(name, float(value), limit.judge(value) if limit else "told", limit)
            for name, value in sorted(found.values.items(), key=lambda item: order.get(item[0], len(order)))
            if math.isfinite(value)
            for limit in [self.limits.get(name)]
        )
        judged = [one.verdict for one in readings if one.limit]
        verdict = next((word for word in VERDICTS if word in judged), "not measured")
        return Panel(*common, verdict, readings, found.sentence, self.next_move, found.figure)


@dataclass(frozen=True)
class Panels:
    """The registry: every panel by name, in the order of the page."""

    table: dict[str, Question] = field(default_factory=dict)

    def __call__(
        self,
        name: str,
        *,
        family: str,
        title: str,
        question: str,
        limits: Mapping[str, Limit],
        next_move: str,
    ) -> Callable[[Callable[[Evidence], Found]], Callable[[Evidence], Found]]:
        """Register the decorated function: arrays of one model -> what was found."""
        if name in self.table or family not in FAMILIES:
            raise ValueError(f"the panel {name!r} is registered twice, or its family {family!r} is unknown")

        def register(ask: Callable[[Evidence], Found]) -> Callable[[Evidence], Found]:
            self.table[name] = Question(
                name=name, title=title, family=family, question=question, limits=limits, next_move=next_move, ask=ask
            )  # fmt: skip
            return ask

        return register

    def __iter__(self) -> Iterator[Question]:
        """Family by family."""
        order = list(FAMILIES)
        return iter(sorted(self.table.values(), key=lambda one: order.index(one.family)))

    def answer(self, seen: Evidence) -> dict[str, Panel]:
        """Every panel for one model, by name."""
        return {one.name: one.answer(seen) for one in self}


PANELS = Panels()
