"""The reach table as a picture: losses by parameter groups, what is declared beside what was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jepa_world_model.diagnostics.page import escape, number

KEY = (
    '<div class="key"><span><i class="cell on"></i>declared and measured; stronger: larger gradient</span>'
    '<span><i class="cell hollow"></i>declared only</span>'
    '<span><i class="cell stray"></i>measured only</span>'
    '<span><i class="cell"></i>no gradient</span></div>'
)


def reach_table(reach: Mapping[str, Any]) -> str:
    """The picture of a reach.json: one row a loss, one column a parameter group, a tooltip on every cell."""
    losses, groups = reach["losses"], reach["groups"]
    norms = [n for row in losses.values() for n in row["numeric"].values() if n]
    low, high = (math.log10(min(norms)), math.log10(max(norms))) if norms else (0.0, 0.0)
    head = "".join(f'<th scope="col"><span class="mono">{escape(group)}</span></th>' for group in groups)
    rows = []
    for name, row in losses.items():
        cells = "".join(f"<td>{_cell(name, group, row, low, high)}</td>" for group in groups)
        rows.append(
            f'<tr><th scope="row" class="mono">{escape(name)}</th>'
            f'<td class="w">{number(row["weight"])}</td>{cells}</tr>'
        )
    # The slanted names are as high as the longest, and those of the last columns reach beyond the table.
    longest = max(map(len, groups), default=0) * 7.3
    size = f"--head:{longest * 0.82 + 18:.0f}px;margin-right:{longest * 0.58:.0f}px"
    return (
        f'{KEY}<div class="scroll"><table class="reach" style="{size}"><thead><tr><th></th>'
        f'<th class="w" scope="col" style="vertical-align:bottom">weight</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(loss: str, group: str, row: Mapping[str, Any], low: float, high: float) -> str:
    declared, norm = group in row["derived"], row["numeric"].get(group)
    measured = bool(norm) or group in row["structural"]
    if not declared and not measured:
        return f'<i class="cell" title="{escape(loss)} does not move {escape(group)}"></i>'
    size = "no gradient" if not norm else f"gradient norm {number(norm)}"
    if not declared:
        kind, words = "stray", f"NOT declared, but measured: {size}"
    elif not norm or group not in row["structural"]:
        kind, words = "hollow", f"declared, not measured: {size}"
    else:
        kind, words = "on", size
    tone = 100 if not norm or high == low else 38 + 62 * (math.log10(norm) - low) / (high - low)
    style = f' style="--t:{tone:.0f}%"' if kind == "on" else ""
    return f'<i class="cell {kind}"{style} title="{escape(loss)} &rarr; {escape(group)}: {words}"></i>'


def closed_gates(gates: Mapping[str, float]) -> str:
    """One sentence on the gates that are not fully open."""
    shut = [f"<code>{escape(name)}</code>" for name, keep in gates.items() if keep == 0]
    part = [f"<code>{escape(name)}</code> ({keep:g})" for name, keep in gates.items() if 0 < keep < 1]
    words = f"Closed gates: {', '.join(shut)}." if shut else "No gate is closed."
    return f"<p>{words}{f' Partly open: {chr(44).join(part)}.' if part else ''}</p>"
