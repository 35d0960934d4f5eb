"""A page over many runs: one HTML file to filter, sort and compare them, with its data inside."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.run import atomic_write
from jepa_world_model.diagnostics.charts import Series, thinned
from jepa_world_model.diagnostics.page import Section, page
from jepa_world_model.diagnostics.records import Record, read_run
from jepa_world_model.diagnostics.report import flat
from jepa_world_model.diagnostics.scorecard import HEADLINES, find

POINTS = 60  # of a curve; 200 runs then make a page of a few megabytes
CURVES = ("eval/", "loss/")
ASSETS = Path(__file__).parent / "assets"


def find_runs(folder: Path) -> list[Path]:
    """Every run folder at or below `folder`, newest last; a run is what holds config.toml and metrics.jsonl.

    Errors: UserError when there is none.
    """
    found = [
        path.parent for path in Path(folder).rglob("config.toml") if (path.parent / "metrics.jsonl").exists()
    ]
    if not found:
        raise UserError(
            f"there is no run at or below {folder}; train one, or pass the folder that holds your runs"
        )
    return sorted(found, key=lambda run: ((run / "metrics.jsonl").stat().st_mtime, str(run)))


def write_runs_page(runs: Sequence[Path], root: Path, out: Path) -> tuple[Path, dict[str, str]]:
    """Write the page over these runs; returns its path and, by run, why one could not be read.

    root: run names are told relative to it, and links to reports are relative to the page.
    """
    rows, unread = [], {}
    for folder in runs:
        try:
            rows.append(_row(read_run(folder), root, out.parent))
        except UserError as problem:
            unread[str(folder)] = str(problem)
    data = {"runs": rows, "metrics": _metrics(rows), "headlines": _headlines(rows)}
    atomic_write(out, runs_html(data, root.resolve().name, unread))
    return out, unread


def runs_html(data: dict[str, Any], title: str, unread: dict[str, str]) -> str:
    """The document: an empty frame, its data, and the script that fills it."""
    # "</" inside a JSON string could end the script element, whatever a run is called.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
    faults = "".join(f'<p class="warn">not read: {_safe(why)}</p>' for why in unread.values())
    body = (
        f'{faults}<noscript><p class="warn">This page needs JavaScript to filter and compare.</p></noscript>'
        f'<style>{(ASSETS / "runs.css").read_text(encoding="utf-8")}</style><div id="app"></div>'
        f'<script type="application/json" id="data">{text}</script>'
        f"<script>{(ASSETS / 'runs.js').read_text(encoding='utf-8')}</script>"
    )
    return page(title, f"{len(data['runs'])} runs", [Section("runs", "", "", body)])


def _safe(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _row(record: Record, root: Path, page_folder: Path) -> dict[str, Any]:
    """All that the page knows of a run."""
    folder = record.folder.resolve()
    asked = record.setting("steps")
    report = folder / "report.html"
    return {
        "name": str(folder.relative_to(root.resolve())) if folder != root.resolve() else folder.name,
        "date": str(record.environment.get("date", ""))[:16].replace("T", " "),
        "steps": record.last_step,
        "asked": asked if isinstance(asked, int) else None,
        "seed": record.setting("seed"),
        "data": str(record.setting("data", "source", default="")),
        "commit": str((record.environment.get("git") or {}).get("commit", ""))[:9],
        "changes": {key: _plain(value) for key, value in record.changes.items()},
        "config": dict(flat(record.config)),
        "reach": {name: row.get("derived", []) for name, row in record.reach.get("losses", {}).items()},
        "cut": sorted(edge for edge, keep in record.reach.get("gates", {}).items() if keep < 1),
        "advice": record.advice,
        "faults": len(record.reach.get("faults", [])) + len(record.broken),
        "last": {name: _round(float(curve.values[-1])) for name, curve in _shown(record)},
        "curves": {name: _thin(curve) for name, curve in _shown(record)},
        "report": _link(report, page_folder) if report.exists() else "",
    }  # fmt: skip


def _link(target: Path, start: Path) -> str:
    import os
    from urllib.parse import quote

    return quote(os.path.relpath(target, start.resolve()))


def _shown(record: Record) -> Iterable[tuple[str, Series]]:
    return ((name, curve) for name, curve in record.metrics.items() if name.startswith(CURVES) and len(curve))


def _plain(value: Any) -> str:
    return str(value["value"]) if isinstance(value, dict) and "value" in value else str(value)


def _round(value: float) -> float:
    return float(f"{value:.4g}") if math.isfinite(value) else 0.0


def _thin(curve: Series) -> list[list[float]]:
    steps, values, _, _ = thinned(curve, POINTS)
    return [[round(float(step)) for step in steps], [_round(float(value)) for value in values]]


def _metrics(rows: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Every metric of any run: its title, its meaning and which way is better."""
    names = dict.fromkeys(name for row in rows for name in row["curves"])
    told = {}
    for name in names:
        known = find(name) if name.startswith("eval/") else None
        better = known.better if known else ("low" if name.startswith("loss/") else "")
        told[name] = {"title": known.title if known else name, "meaning": known.meaning if known else "",
                      "better": better}  # fmt: skip
    return told


def _headlines(rows: list[dict[str, Any]]) -> list[str]:
    """The columns at the start: the headline metrics that any run has, then the total loss."""
    names = list(dict.fromkeys(name for row in rows for name in row["curves"] if name.startswith("eval/")))
    stem = lambda name: name.removeprefix("eval/").rstrip("0123456789")
    first = [name for head in HEADLINES for name in names
             if head.replace("{k}", "") in (name.removeprefix("eval/"), stem(name))]  # fmt: skip
    return [*first, *(["loss/total"] if any("loss/total" in row["curves"] for row in rows) else [])]
