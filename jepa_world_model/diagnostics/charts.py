"""Small line charts as HTML with inline SVG: they stretch with the page, their words do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jepa_world_model.diagnostics.page import escape, number

BINS = 120  # points that a chart keeps; the range of what falls into one is drawn as a band


@dataclass(frozen=True)
class Series:
    """One curve: finite values at their steps."""

    steps: np.ndarray
    values: np.ndarray
    style: str = ""  # a class of the page: second, third, quiet

    def __len__(self) -> int:
        return len(self.steps)


def thinned(series: Series, bins: int = BINS) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """At most `bins` points of a curve: mean step, median, least and greatest of the values in each bin."""
    if len(series) <= bins:
        return series.steps, series.values, series.values, series.values
    parts = np.array_split(np.arange(len(series)), bins)
    values = [series.values[part] for part in parts]
    steps = np.array([series.steps[part].mean() for part in parts])
    return steps, *(np.array([pick(v) for v in values]) for pick in (np.median, np.min, np.max))


def recent(series: Series) -> float:
    """Where a curve stands: the median of its last twentieth."""
    return float(np.median(series.values[-max(1, len(series) // 20) :]))


def needs_log(curves: Sequence[Series]) -> bool:
    """Whether a logarithmic axis shows more: all values above 0, over more than a factor of 20."""
    values = np.concatenate([curve.values for curve in curves])
    return bool(values.min() > 0 and values.max() / values.min() > 20)


def line_chart(
    title: str,
    curves: Sequence[Series],
    *,
    value: str = "",
    sub: str = "",
    bar: float | None = None,
    axis: str = "step",
) -> str:
    """A card: title, value, one line of words, the curves, and `bar` as a dashed line to compare with.

    axis: what is counted to the right.
    """
    curves = [curve for curve in curves if len(curve)]
    if not curves:
        return ""
    log = needs_log(curves) and (bar is None or bar > 0)
    place = np.log10 if log else lambda v: np.asarray(v, float)
    thin = [thinned(curve) for curve in curves]
    ends = [float(v) for _, _, low, high in thin for v in (low.min(), high.max())]
    ends += [] if bar is None else [bar]
    low, high = min(ends), max(ends)
    first, last = min(curve.steps[0] for curve in curves), max(curve.steps[-1] for curve in curves)
    x = lambda steps: (np.asarray(steps, float) - first) / max(last - first, 1e-9) * 1000
    span = max(float(place(high) - place(low)), 1e-12)
    flat = high - low <= 1e-9 * max(abs(high), 1e-30)
    y = lambda v: np.full(np.shape(v), 500.0) if flat else (1 - (place(v) - place(low)) / span) * 1000
    paths = [_band(x(s), y(lo), y(hi)) for s, _, lo, hi in thin[:1] if not np.array_equal(lo, hi)]
    if bar is not None:
        paths.append(f'<path class="bar" d="M0 {float(y(bar)):.0f}H1000"/>')
    for curve, (steps, middle, *_) in zip(curves, thin, strict=True):
        paths.append(f'<path class="{curve.style}" d="{_line(x(steps), y(middle))}"/>')
    scale = " log" if log else ""
    return (
        f'<div class="chart"><div class="top"><b>{breakable(title)}</b><span>{escape(value)}</span></div>'
        f'<div class="sub">{sub}</div><div class="plot"><svg '
        'viewBox="0 0 1000 1000" preserveAspectRatio="none" '
        f'role="img" aria-label="{escape(title)}">{"".join(paths)}</svg></div>'
        f'<div class="ticks"><span>{number(low)} to {number(high)}{scale}</span>'
        f"<span><i>{escape(axis)} </i>{last:,.0f}</span></div></div>"
    )


def bar_chart(
    title: str, counts: Sequence[int], low: float, high: float, *, value: str = "", sub: str = ""
) -> str:
    """A card with a histogram from `low` to `high`: one bar a count, as high as its share of the greatest."""
    most, width = max([*counts, 1]), 1000 / max(len(counts), 1)
    bars = "".join(
        f'<rect x="{i * width + 0.06 * width:.1f}" width="{0.88 * width:.1f}" y="{1000 - 1000 * n / most:.1f}" '
        f'height="{1000 * n / most:.1f}"/>'
        for i, n in enumerate(counts)
    )
    return (
        f'<div class="chart"><div class="top"><b>{breakable(title)}</b><span>{escape(value)}</span></div>'
        f'<div class="sub">{sub}</div><div class="plot"><svg viewBox="0 0 1000 1000" preserveAspectRatio="none" '
        f'role="img" aria-label="{escape(title)}">{bars}</svg></div>'
        f'<div class="ticks"><span>{number(low)}</span><span>{number(high)}</span></div></div>'
    )


def breakable(name: str) -> str:
    """A name as HTML that may break after its underscores."""
    return escape(name).replace("_", "_<wbr>")


def _line(x: np.ndarray, y: np.ndarray) -> str:
    if len(x) == 1:
        return f"M0 {y[0]:.0f}H1000"
    return "M" + "L".join(f"{a:.0f} {b:.0f}" for a, b in zip(x, y, strict=True))


def _band(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> str:
    outline = np.concatenate([x, x[::-1]]), np.concatenate([high, low[::-1]])
    return f'<path class="band" d="{_line(*outline)}Z"/>'


def percent(share: float) -> str:
    """A share in percent, small ones told from nothing."""
    return "under 0.1%" if 0 < share < 0.001 else f"{share:.1%}"


def charts(cards: Sequence[str]) -> str:
    """Cards side by side, as many as the page is wide."""
    return f'<div class="charts">{"".join(cards)}</div>'


def shares(values: dict[str, float]) -> str:
    """Bars for the parts of a whole, the largest first."""
    whole = sum(values.values()) or 1.0
    top = max(values.values(), default=1.0) or 1.0
    rows = []
    for name, value in sorted(values.items(), key=lambda item: -item[1]):
        bar = f'<span><i style="width:{value / top:.1%}"></i></span>'
        rows.append(f'<span class="mono">{escape(name)}</span>{bar}<span>{percent(value / whole)}</span>')
    return f'<div class="shares">{"".join(rows)}</div>'
