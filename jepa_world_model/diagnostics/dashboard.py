"""The dashboard of a run: every panel with its verdict, the faults by name, as one page and one JSON file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jepa_world_model.core.run import atomic_write
from jepa_world_model.diagnostics.page import (
    STATES,
    Section,
    details,
    escape,
    missing,
    named,
    number,
    page,
    table,
)
from jepa_world_model.diagnostics.panels import FAMILIES, PANELS, Panel
from jepa_world_model.diagnostics.panels.evidence import Evidence
from jepa_world_model.diagnostics.panels.faults import RULES, Fault, name_faults, summarise
from jepa_world_model.diagnostics.panels.panel import Limit, Reading

PAGE, NUMBERS = "diagnostics.html", "diagnostics.json"
FLAG = re.compile(r"--[a-z][\w.-]*\w(?: (?:encoder )?[\d.]*\d)?")  # with the value that is given to it

STYLE = """
.v{display:inline-block;min-width:46px;padding:0 7px;border-radius:4px;font-size:12px;line-height:19px;
text-align:center;background:var(--wash);color:var(--soft);white-space:nowrap;font-weight:500}
.v-pass{color:var(--good)}.v-fail{background:var(--bad);color:var(--paper)}.v-warn{color:var(--h);
box-shadow:inset 0 0 0 1px var(--h)}
article{padding:18px 0 6px}article+article{border-top:1px solid var(--hair)}
article h3{margin:0 0 4px;display:flex;gap:10px;align-items:baseline;font-size:15px}
article p{margin:0 0 8px}.next{border-left:3px solid var(--h);padding:1px 0 1px 12px}
.fault{border-left:3px solid var(--bad);padding:2px 0 2px 14px;margin:0 0 14px}.fault h3{margin:0;font-size:17px}
.fault p{margin:2px 0 6px}.plain .lim{white-space:nowrap}
.overview td:first-child{white-space:nowrap}
article .plain{margin-bottom:4px}.plain td small{display:block;color:var(--soft);font-size:12.5px;line-height:1.4}
@media (max-width:640px){.overview td:first-child{white-space:normal}
.overview td:nth-child(4),.overview th:nth-child(4){display:none}.plain td,.plain th{padding-right:9px}}
"""


@dataclass(frozen=True)
class Diagnosis:
    """What the panels say of one model on one batch."""

    panels: Mapping[str, Panel]
    faults: list[Fault]
    about: Mapping[str, Any] = field(default_factory=dict)  # model, batch and their hashes, as plain JSON

    @property
    def summary(self) -> str:
        """One line."""
        return summarise(self.panels, self.faults)

    def to_json(self) -> dict[str, Any]:
        """Everything but the pictures."""
        return {
            "summary": self.summary,
            "faults": [vars(fault) for fault in self.faults],
            "about": dict(self.about),
            "panels": {name: _panel_json(panel) for name, panel in self.panels.items()},
        }


def diagnose(seen: Evidence, about: Mapping[str, Any] | None = None) -> Diagnosis:
    """Every panel's answer on the evidence, and the faults that they show."""
    panels = PANELS.answer(seen)
    return Diagnosis(panels, name_faults(panels), about or {})


def _panel_json(panel: Panel) -> dict[str, Any]:
    readings = {
        one.name: {"value": one.value, "verdict": one.verdict}
        | (
            {"better": one.limit.better, "passes": one.limit.passes, "fails": one.limit.fails}
            if one.limit
            else {}
        )
        for one in panel.readings
    }
    return {
        "title": panel.title, "family": panel.family, "verdict": panel.verdict, "sentence": panel.sentence,
        "readings": readings, "next_move": panel.next_move,
    }  # fmt: skip


def write_dashboard(folder: Path, found: Diagnosis, title: str = "") -> Path:
    """Write diagnostics.html and diagnostics.json into a run folder, each whole or not at all; the page's path."""
    atomic_write(folder / NUMBERS, json.dumps(found.to_json(), indent=1) + "\n")
    name = title or folder.resolve().name
    sections = [_summary(found), *(_family(found, key) for key in FAMILIES), _about(found)]
    atomic_write(folder / PAGE, page(name, "World model diagnostics", sections, style=STYLE))
    return folder / PAGE


def _summary(found: Diagnosis) -> Section:
    if found.faults:
        parts = [
            f'<div class="fault"><h3>{escape(_sentence(fault.title))}</h3><p>{escape(_sentence(fault.text))}</p>'
            f"<p><b>Next</b> {_commands(fault.next_move)}</p></div>"
            for fault in found.faults
        ]
        lead = "".join(parts)
    else:
        lead = f'<p class="lead">{escape(_sentence(found.summary))}.</p>'
    rows = []
    for panel in found.panels.values():
        worst = _worst(panel)
        shown = f"{worst.name} {number(worst.value)}" if worst else ""
        rows.append((
            f'<a href="#{panel.name}">{escape(panel.title)}</a>', badge(panel.verdict), named(shown),
            _limit_words(worst.limit) if worst and worst.limit else "",
        ))  # fmt: skip
    overview = table(rows, ("panel", "verdict", "worst reading", "threshold"))
    return Section("summary", "", "", lead + STATES + f'<div class="overview">{overview}</div>')


def badge(verdict: str) -> str:
    """A verdict as a word with a colour."""
    kind = verdict if verdict in ("pass", "warn", "fail") else "none"
    return f'<span class="v v-{kind}">{escape(verdict)}</span>'


def _worst(panel: Panel) -> Reading | None:
    judged = [one for one in panel.readings if one.limit]
    return min(judged, key=lambda one: ("fail", "warn", "pass").index(one.verdict), default=None)


def _limit_words(limit: Limit) -> str:
    sign = ("&le;", "&ge;") if limit.better == "low" else ("&ge;", "&le;")
    first, second = f"pass {sign[0]} {number(limit.passes)},", f"fail {sign[1]} {number(limit.fails)}"
    return f'<span class="lim">{first}</span> <span class="lim">{second}</span>'


def _sentence(words: str) -> str:
    """With a capital letter, unless it begins with the name of a state."""
    return words if words[1:2] == " " else words[:1].upper() + words[1:]


def _commands(words: str) -> str:
    """Text with its flags, and the values given to them, as code."""
    return FLAG.sub(lambda flag: f"<code>{flag[0]}</code>", escape(words))


def _family(found: Diagnosis, key: str) -> Section:
    mine = [panel for panel in found.panels.values() if panel.family == key]
    return Section(key, FAMILIES[key], "", "".join(_article(panel) for panel in mine))


def _article(panel: Panel) -> str:
    head = f'<article id="{panel.name}"><h3>{escape(panel.title)} {badge(panel.verdict)}</h3>'
    body = f'<p class="look">{escape(panel.question)}</p>'
    if panel.verdict == "not measured":
        return f"{head}{body}{missing(panel.sentence)}</article>"
    body += f"<p>{escape(panel.sentence)}</p>"
    if panel.verdict != "pass":
        body += f'<p class="next"><b>Next</b> {_commands(panel.next_move)}</p>'
    judged = [one for one in panel.readings if one.limit]
    rows = [
        (f'{named(one.name)}<small>{escape(one.limit.meaning)}</small>',
         f'<span class="lim">{number(one.value)}</span>', badge(one.verdict), _limit_words(one.limit))
        for one in judged if one.limit
    ]  # fmt: skip
    body += table(rows, ("reading", "value", "verdict", "threshold"))
    told = [one for one in panel.readings if not one.limit]
    if told:
        listing = table([(named(one.name), number(one.value)) for one in told])
        body += details("Readings without a threshold", listing)
    return head + body + (panel.figure() if panel.figure else "") + "</article>"


def _about(found: Diagnosis) -> Section:
    rows = [
        (named(str(name)), f'<span class="mono any">{escape(str(value))}</span>')
        for name, value in found.about.items()
    ]
    look = (
        "The same hash of the batch means the same frames, actions and true states: numbers can be compared."
    )
    return Section("about", "What was measured", look, table(rows))


def panels_markdown() -> str:
    """The generated page on the panels: what each asks, its thresholds and the next move."""
    lines = [
        "# Diagnostics: what each panel asks, when it fails, and what to do then",
        "",
        "Generated by `jepa-wm docs` from the registry of panels. `jepa-wm diagnose RUN` writes `diagnostics.html` and",
        "`diagnostics.json` into a run folder; `--diagnostics` does so at the end of training. Every number is computed",
        "on one batch of held-out windows, drawn from a fixed seed and hashed, in fp32. A panel's verdict is that of its",
        "worst reading; one that lacks what it needs (a decoder, true positions, a simulator) says so. The first lines of",
        "the page name the fault that explains what fails.",
    ]  # fmt: skip
    for key, title in FAMILIES.items():
        lines += ["", f"## {title}", ""]
        lines += ["| panel | a healthy model | readings | when it fails |", "|---|---|---|---|"]
        for one in PANELS:
            if one.family == key:
                limits = "<br>".join(
                    f"`{n}` {limit.meaning}: {_plain(limit)}" for n, limit in one.limits.items()
                )
                lines.append(
                    _row(f"**{one.title}** (`{one.name}`)", one.question, limits, _coded(one.next_move))
                )
    lines += [
        "",
        "## Faults by name, causes first",
        "",
        "| fault | what shows it | next move |",
        "|---|---|---|",
    ]
    for rule in RULES:
        shown = re.sub(r"\{([\w.]+)\}", r"`\1`", "; ".join(rule.evidence))
        lines.append(_row(f"**{rule.title}**", shown, _coded(rule.next_move)))
    return "\n".join(lines) + "\n"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _coded(words: str) -> str:
    return FLAG.sub(lambda flag: f"`{flag[0]}`", words)


def _plain(limit: Limit) -> str:
    sign = ("<=", ">=") if limit.better == "low" else (">=", "<=")
    return f"pass {sign[0]} {limit.passes:g}, fail {sign[1]} {limit.fails:g}"
