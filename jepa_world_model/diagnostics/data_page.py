"""The page of a data set: what its frames show, what its actions are, and what would spoil a training."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jepa_world_model.core.run import atomic_write
from jepa_world_model.data.inspection import Histogram, Inspection
from jepa_world_model.diagnostics import charts, figures
from jepa_world_model.diagnostics.page import Section, escape, number, page, picture, table

SHOWN = 24  # action dimensions with a chart of their own


def write_page(path: Path, found: Inspection, sheet: np.ndarray, *, source: str) -> None:
    """Write the page, whole or not at all. Shapes: sheet [rows,columns,C,H,W] uint8."""
    sections = [_summary(found), _sheet(sheet), _actions(found), _frames(found), _states(found)]
    atomic_write(path, page(Path(source).name, "Data set", [part for part in sections if part]))


def sheet_picture(sheet: np.ndarray) -> np.ndarray:
    """The contact sheet as one picture [H,W,4] uint8."""
    return figures.grid([figures.as_rgb(row) for row in sheet])


def _summary(found: Inspection) -> Section:
    channels, height, width = found.frame_shape
    tiles = [
        (
            f"{found.episodes:,}",
            "episodes",
            f"{found.shortest} to {found.longest} frames, median {found.median}",
        ),
        (f"{found.frames:,}", "frames", f"{height} x {width} px, {channels} channels"),
        (
            str(found.action_dim),
            f"{found.action_kind.replace('_', ' ')} actions",
            f"no-op {found.noop_share:.1%}",
        ),
        (
            f"{found.still_share:.1%}",
            "of moves change nothing",
            "walls, idle robots, or frames recorded twice",
        ),
    ]
    cards = "".join(
        f'<div class="tile"><b>{escape(big)}</b><span>{escape(what)}</span><small>{escape(more)}</small></div>'
        for big, what, more in tiles
    )
    warnings = "".join(f'<p class="warn">{escape(words)}</p>' for words in found.warnings)
    lead = (
        "Something here would spoil a training:"
        if found.warnings
        else "Nothing here speaks against training on it."
    )
    return Section("summary", "", "", f'<p class="lead">{lead}</p>{warnings}<div class="tiles">{cards}</div>')


def _sheet(sheet: np.ndarray) -> Section:
    look = (
        "A row is an episode from its first frame to its last, evenly spread. Look for frames that are cut off, "
        "squeezed, black, or the same throughout, and for a mover large enough to be seen."
    )
    return Section(
        "frames", "Contact sheet", look, f"<figure>{picture(sheet_picture(sheet), 'contact sheet')}</figure>"
    )


def _actions(found: Inspection) -> Section:
    if found.action_kind == "continuous":
        look = "How often each dimension takes which value. A spike alone is a dimension that hardly moves."
        cards = [_card(h, "moves") for h in found.actions[:SHOWN]]
        more = (
            f"<p>{len(found.actions) - SHOWN} more are not shown.</p>" if len(found.actions) > SHOWN else ""
        )
        return Section("actions", "Actions", look, charts.charts(cards) + more)
    (only,) = found.actions
    if found.action_kind == "discrete":
        look = "Share of each action. Rare ones are hardly learned; one that rules makes the rest noise."
        return Section(
            "actions", "Actions", look, charts.shares(dict(zip(only.labels, only.counts, strict=True)))
        )
    look = "Share of steps at which each button is pressed."
    steps = max(found.frames - found.episodes, 1)
    pressed = [(escape(n), charts.percent(c / steps)) for n, c in zip(only.labels, only.counts, strict=True)]
    return Section("actions", "Actions", look, table(pressed, ("button", "pressed")))


def _frames(found: Inspection) -> Section:
    look = "How much a pixel changes from frame to frame, of 255, and the pixels themselves."
    cards = [_card(found.change, "moves")]
    if found.shortest < found.longest:
        cards.insert(0, _card(found.lengths, "episodes"))
    rows = [
        (str(i), number(m), number(s))
        for i, (m, s) in enumerate(zip(found.pixel_mean, found.pixel_std, strict=True))
    ]
    return Section(
        "numbers", "Numbers", look, charts.charts(cards) + table(rows, ("channel", "mean of 255", "spread"))
    )


def _states(found: Inspection) -> Section | None:
    if not found.states:
        return None
    rows = [(escape(name), number(low), number(high)) for name, (low, high) in found.states.items()]
    look = "True states that the recording tells; probes read them, no loss does."
    return Section("states", "States", look, table(rows, ("state", "least", "greatest")))


def _card(h: Histogram, what: str) -> str:
    return charts.bar_chart(h.name, h.counts, h.edges[0], h.edges[-1], value=f"{sum(h.counts):,} {what}")
