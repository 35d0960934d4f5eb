"""How hard each loss pulls each module, and which pull against each other, as tables of what `core` measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jepa_world_model.diagnostics.page import escape, number


def norm_table(row: Mapping[str, Any]) -> str:
    """Losses by modules: the norm in figures, its share of the module's strongest pull as tone."""
    norms: Mapping[str, Mapping[str, float]] = row["norms"]
    losses = list(dict.fromkeys(loss for group in norms.values() for loss in group))
    lines = []
    for loss in losses:
        cells = []
        for group, mine in norms.items():
            top = max(mine.values(), default=0.0)
            cells.append(_shade(mine.get(loss), top, f"{loss} on {group}"))
        lines.append(f'<tr><th scope="row" class="mono">{escape(loss)}</th>{"".join(cells)}</tr>')
    head = "".join(f'<th scope="col"><span class="mono">{escape(name)}</span></th>' for name in norms)
    return (
        f'<div class="scroll"><table class="reach heat"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _shade(value: float | None, top: float, words: str) -> str:
    if value is None:
        return "<td></td>"
    share = 100 * value / top if top > 0 and math.isfinite(value) else 0
    return (
        f'<td style="background:color-mix(in srgb,var(--z) {share * 0.55:.0f}%,transparent)" '
        f'title="{escape(words)}">{number(value)}</td>'
    )


def cosine_table(cosines: Mapping[str, float]) -> str:
    """The losses of one module against each other: blue pulls along, red pulls against."""
    losses = list(dict.fromkeys(name for pair in cosines for name in pair.split("|")))
    lines = []
    for i, one in enumerate(losses):
        cells = []
        for other in losses[:i]:
            value = cosines.get(f"{one}|{other}", cosines.get(f"{other}|{one}"))
            cells.append("<td></td>" if value is None else _lean(value, f"{one} and {other}"))
        lines.append(f'<tr><th scope="row" class="mono">{i + 1}&ensp;{escape(one)}</th>{"".join(cells)}</tr>')
    head = "".join(f'<th scope="col">{i + 1}</th>' for i in range(len(losses) - 1))
    return (
        f'<table class="heat"><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    )


def _lean(value: float, words: str) -> str:
    tone = "--z" if value > 0 else "--bad"
    share = min(abs(value), 1) * 60 if math.isfinite(value) else 0
    return (
        f'<td style="background:color-mix(in srgb,var({tone}) {share:.0f}%,transparent)" '
        f'title="{escape(words)}">{round(value, 2) + 0.0:.2f}</td>'
    )


def gradient_tables(row: Mapping[str, Any]) -> str:
    """Both kinds of table for one row of gradients.jsonl; what one loss alone moves has no cosines."""
    cosines = [
        f'<div class="scroll"><h3>On <code>{escape(group)}</code></h3>{cosine_table(pairs)}</div>'
        for group, pairs in row.get("cosines", {}).items()
        if pairs
    ]
    return norm_table(row) + f'<div class="side">{"".join(cosines)}</div>'
