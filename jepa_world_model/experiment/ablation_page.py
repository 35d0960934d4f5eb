"""ablation.html: the arms side by side on one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from jepa_world_model.diagnostics import charts
from jepa_world_model.diagnostics.charts import Series, line_chart
from jepa_world_model.diagnostics.page import Section, details, escape, missing, number, page, table
from jepa_world_model.diagnostics.records import Record
from jepa_world_model.diagnostics.scorecard import Metric, find
from jepa_world_model.experiment.ablation import BASE
from jepa_world_model.experiment.ablation_table import SAME, Cell, Results

STRIP = 132  # px wide: name, strip and mean fit a phone


def ablation_page(found: Results, title: str = "Ablation") -> str:
    """The whole page: what was found, all numbers, seeds as dots, curves, routing, and what failed."""
    sections = [_summary(found), _table(found), _seeds(found), _curves(found), _routing(found)]
    if found.failures:
        rows = [
            (f'<span class="mono">{escape(name)}</span>', escape(why)) for name, why in found.failures.items()
        ]
        look = "The other runs are not touched by these; the same command runs them again."
        sections.append(Section("failures", "What failed", look, table(rows, ("run", "what it said"))))
    return page(title, "Ablation of losses and gates", sections)


def _title(name: str) -> str:
    metric = find(name)
    return metric.title if metric else name


def _summary(found: Results) -> Section:
    runs, wanted = sum(map(len, found.records.values())), len(found.arms) * len(found.seeds)
    seeds = f"{len(found.seeds)} seed{'s' if len(found.seeds) > 1 else ''}"
    words = f"<b>{len(found.arms) - 1}</b> arms against the base, {seeds} each: "
    words += f"<b>{runs}</b> of {wanted} runs finished."
    sure = [
        (abs(cell.change.mean) / max(cell.change.half, 1e-12), arm, name, cell)
        for arm, cells in found.cells.items()
        for name, cell in cells.items()
        if cell.change is not None and cell.better is not None
    ]
    lines = [
        f'<li><span class="mono">{escape(arm)}</span>: {escape(_title(name))} '
        f'<span class="{"good" if cell.better else "bad"}">{_signed(cell)}</span></li>'
        for _, arm, name, cell in sorted(sure, key=lambda item: -item[0])[:12]
    ]
    body = f'<p class="lead">{words}</p>'
    if len(found.seeds) == 1:
        body += "<p>One seed tells no chance from effect: run more seeds before believing a difference.</p>"
    elif lines:
        body += f"<p>Changes whose 95% interval leaves out 0, the surest first:</p><ul>{''.join(lines)}</ul>"
    else:
        body += "<p>No change is larger than what chance between seeds explains.</p>"
    return Section("summary", "", "", body)


def _signed(cell: Cell) -> str:
    """The change in words, with its sign."""
    words = str(cell.change)
    if cell.change.mean < 0:
        return "&minus;" + words.removeprefix("-")
    return f"+{words}" if cell.change.mean > 0 else words


def _table(found: Results) -> Section:
    if not found.metrics:
        return Section("table", "Numbers", "", missing("No run has finished, so there are no numbers."))
    rows = []
    for arm in found.arms:
        links = " ".join(
            f'<a href="{escape(arm.name)}-s{seed}/report.html">s{seed}</a>'
            for seed in sorted(found.records[arm.name])
        )
        cells = [_number_cell(found.cells[arm.name].get(name)) for name in found.metrics]
        rows.append((f'<b class="mono any">{escape(arm.name)}</b><small>{links}</small>', *cells))
    look = (
        "At the end of each run on held-out episodes: the mean over seeds ± half the 95% interval. "
        "Below it the change against the base, seed by seed; coloured where its interval leaves out 0. "
        "One in twenty such intervals does so by chance alone."
    )
    return Section("table", "Numbers", look, table(rows, ("arm", *map(_head, found.metrics))))


def _head(name: str) -> str:
    metric = find(name)
    arrow = "" if metric is None else (" &darr;" if metric.better == "low" else " &uarr;")
    return f'<span title="{escape(name)}">{escape(_title(name))}{arrow}</span>'


def _number_cell(cell: Cell | None) -> str:
    if cell is None:
        return "&ndash;"
    if cell.change is None:
        return escape(str(cell.over_seeds))
    tone = "" if cell.better is None else f' class="{"good" if cell.better else "bad"}"'
    return f"{escape(str(cell.over_seeds))}<br><small{tone}>{_signed(cell)}</small>"


def _seeds(found: Results) -> Section:
    parts = []
    for name in found.metrics:
        values = {arm.name: found.cells[arm.name].get(name) for arm in found.arms}
        everything = [value for cell in values.values() if cell for value in cell.values.values()]
        if not everything:
            continue
        low, high = min(everything), max(everything)
        base = values[BASE].over_seeds.mean if values[BASE] else None
        rows = [
            (
                f'<span class="mono any">{escape(arm)}</span>',
                _strip(cell, low, high, base),
                number(cell.over_seeds.mean),
            )
            for arm, cell in values.items()
            if cell
        ]
        ends = f"{number(low)} to {number(high)}"
        parts.append(f"<div><h3>{_head(name)}</h3>{table(rows, ('arm', ends, 'mean'))}</div>")
    look = "A dot is a seed, the bar their mean, the dashed line the mean of the base."
    body = f'<div class="side">{"".join(parts)}</div>' if parts else missing("No run has finished.")
    return Section("seeds", "Seed by seed", look, body)


def _strip(cell: Cell, low: float, high: float, base: float | None) -> str:
    """One row of dots on the axis that all arms share."""
    place = lambda value: 8 + (STRIP - 16) * ((value - low) / (high - low) if high > low else 0.5)
    marks = []
    if base is not None:
        x = place(base)
        marks.append(f'<path d="M{x:.1f} 0V20" stroke="var(--soft)" stroke-dasharray="3 3"/>')
    for seed, value in cell.values.items():
        dot = f'<circle cx="{place(value):.1f}" cy="10" r="3.5" fill="var(--line)" fill-opacity=".55">'
        marks.append(f"{dot}<title>seed {seed}: {number(value)}</title></circle>")
    x = place(cell.over_seeds.mean)
    marks.append(f'<path d="M{x:.1f} 3V17" stroke="var(--ink)" stroke-width="2"/>')
    return (
        f'<svg width="{STRIP}" height="20" viewBox="0 0 {STRIP} 20" role="img" '
        f'aria-label="{len(cell.values)} seeds, mean {number(cell.over_seeds.mean)}">{"".join(marks)}</svg>'
    )


def mean_curve(records: Mapping[int, Record], name: str, style: str = "") -> Series | None:
    """A metric over training, averaged over the seeds at the steps that all of them have."""
    curves = [row.metrics[name] for row in records.values() if name in row.metrics]
    if not curves:
        return None
    tables = [dict(zip(curve.steps, curve.values, strict=True)) for curve in curves]
    steps = sorted(set.intersection(*(set(rows) for rows in tables)))
    if not steps:
        return None
    return Series(
        np.array(steps), np.array([np.mean([rows[step] for rows in tables]) for step in steps]), style
    )


def _curves(found: Results) -> Section:
    parts = []
    for name in found.metrics:
        base = mean_curve(found.records[BASE], name, "quiet")
        cards = [
            _card(arm.name, mean_curve(found.records[arm.name], name), base, find(name))
            for arm in found.arms[1:]
        ]
        cards = [card for card in cards if card]
        if cards:
            parts.append(details(f"{_title(name)} ({name})", charts.charts(cards)))
    body = "".join(parts) or missing("Curves need more than one evaluation a run: set --eval-every.")
    return Section("curves", "Over training", "Mean over seeds; the thin grey line is the base.", body)


def _card(arm: str, curve: Series | None, base: Series | None, metric: Metric | None) -> str:
    if curve is None or len(curve) < 2:
        return ""
    curves: Sequence[Series] = [curve] if base is None else [curve, base]
    return line_chart(arm, curves, value=number(float(curve.values[-1])), bar=metric.bar if metric else None)


def _routing(found: Results) -> Section:
    rows = []
    for arm in found.arms[1:]:
        words = "".join(f"<li>{escape(line)}</li>" for line in found.routing[arm.name])
        changes = f"<ul>{words}</ul>" if words else SAME
        rows.append((f'<b class="mono">{escape(arm.name)}</b>', f"<code>{escape(arm.what)}</code>", changes))
    look = "Derived from the declarations; every run proved its own against autograd before its first step."
    return Section(
        "routing", "What each arm changes", look, table(rows, ("arm", "toggles", "against the base"))
    )
