"""Panels on places: whether a place looks like itself, is near what is near, and is known again when one is back."""

from __future__ import annotations

import numpy as np

from jepa_world_model.diagnostics import charts, figures
from jepa_world_model.diagnostics.page import escape, number, picture
from jepa_world_model.diagnostics.panels.evidence import (
    Evidence,
    distances,
    length,
    rank_correlation,
    share,
    squares,
)
from jepa_world_model.diagnostics.panels.panel import PANELS, Found, MissingError, high, low
from jepa_world_model.planning.graph import merge_states

SAME = 0.5  # median moves; nearer positions are the same place
NEAREST = 5
QUERIES = 4
BINS = 12
MERGE = 0.5  # median moves of the state; nearer states are one node, as the graph planner merges them


def _upper(matrix: np.ndarray) -> np.ndarray:
    return matrix[np.triu_indices(len(matrix), 1)]


@PANELS(
    "same_frame",
    family="places",
    title="One place, one z",
    question="The same true state, seen twice, gives the same z.",
    limits={
        "ratio": low(0.15, 0.6, "distance of z between two visits of a place, over that of any two frames")
    },
    next_move="Look at what else differs between the frames; raise a reconstruction loss if z is collapsed or noisy.",
)
def same_frame(seen: Evidence) -> Found:
    """The same-frame consistency of z."""
    apart, z = _upper(seen.apart), _upper(distances(seen.flat("z")))
    twice = (apart < SAME * seen.stride) & ~_upper(seen.near_in_time)
    if twice.sum() < NEAREST:
        raise MissingError(f"at least {NEAREST} pairs of frames from one place in the evaluation batch")
    usual = float(z[np.isfinite(apart)].mean())
    size = float(length(seen.flat("z")).mean())
    # A z that is the same everywhere is no consistency.
    values = {"ratio": share(float(z[twice].mean()), usual) if usual > 1e-6 * max(size, 1e-6) else 1.0}
    return Found(
        values,
        f"{twice.sum():,} pairs of frames show one place twice; their z differ by {number(values['ratio'])} of what two "
        "frames differ by on average.",
    )


@PANELS(
    "shift",
    family="places",
    title="Farther away, more different",
    question="The distance of z grows with the true displacement.",
    limits={
        "rank_correlation": high(0.5, 0.2, "Spearman correlation of z distance and true displacement"),
        "rising": high(
            0.6, 0.3, "share of the steps between bins of displacement at which the mean z distance rises"
        ),
    },
    next_move="z tells places by looks alone, not by how far they are: planning in z needs a learned or graph cost; "
    "--model.keypoints gives z positions to read.",
)
def shift(seen: Evidence) -> Found:
    """Shift monotonicity of z."""
    apart, z = _upper(seen.apart), _upper(distances(seen.flat("z")))
    known = np.isfinite(apart)
    apart, z = apart[known], z[known]
    pick = np.linspace(0, len(apart) - 1, min(len(apart), 20_000)).astype(int)
    middle, mean = _binned(apart, z)
    flat = z.std() <= 1e-6 * max(float(length(seen.flat("z")).mean()), 1e-6)
    values = {
        "rank_correlation": 0.0 if flat else rank_correlation(apart[pick], z[pick]),
        "rising": 0.0 if flat else float((np.diff(mean) > 0).mean()) if len(mean) > 1 else np.nan,
    }
    return Found(
        values,
        f"z distance and displacement are correlated by {number(values['rank_correlation'])} (ranks).",
        lambda: charts.charts(
            [
                charts.line_chart(
                    "distance of z", [charts.Series(middle, mean)], sub="by true displacement", axis="up to"
                )
            ]
        ),
    )


def _binned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of y in bins of x of equal width; bins with fewer than 10 samples are left out."""
    edges = np.linspace(0, float(x.max()) + 1e-9, BINS + 1)
    which = np.digitize(x, edges[1:-1])
    full = [b for b in range(BINS) if (which == b).sum() >= 10]
    return np.array([x[which == b].mean() for b in full]), np.array([y[which == b].mean() for b in full])


@PANELS(
    "neighbours",
    family="places",
    title="Nearest neighbours",
    question="The frames whose z, h or p are nearest are nearest in the world as well.",
    limits={
        "z_ratio": low(
            0.25,
            0.7,
            f"true distance of the {NEAREST} nearest frames in z, over that of any two; 1 is chance",
        ),
        "h_ratio": low(0.3, 0.7, "the same in h"),
        "p_ratio": low(
            0.4, 0.8, "the same in p: of the pose that is measured, or of ways since the first frame"
        ),
    },
    next_move="z: raise a reconstruction loss. h: raise --loss-weights.h2z. p: --loss-weights.pose-measure-p 1 "
    "--loss-weights.pose-correct-dp 1.",
)
def neighbours(seen: Evidence) -> Found:
    """True distances of nearest neighbours against chance."""
    values, shown, apart = {}, {}, seen.apart
    for name in (n for n in ("z", "h", "p") if n in seen.latents):
        latent, truth = seen.flat(name), apart
        if name == "p":
            latent, truth = _comparable_pose(seen)
        far = np.where(seen.near_in_time | ~np.isfinite(truth), np.inf, squares(latent))
        if latent.std() <= 1e-9:
            values[f"{name}_ratio"] = 1.0
            continue
        order = np.argsort(far, axis=1, kind="stable")[:, :NEAREST]
        good = np.isfinite(np.take_along_axis(far, order, 1)).all(1)
        chance = float(np.nanmean(np.where(seen.near_in_time, np.nan, truth)))
        near = np.take_along_axis(truth, order, 1)[good]
        values[f"{name}_ratio"] = share(float(near.mean()), chance) if good.any() else np.nan
        if name != "p":
            shown[name] = order
    told = ", ".join(f"{name[0]} {number(value)}" for name, value in values.items())
    return Found(values, f"True distance of the {NEAREST} nearest over chance: {told}.",
                 lambda: _neighbour_figure(seen, shown))  # fmt: skip


def _comparable_pose(seen: Evidence) -> tuple[np.ndarray, np.ndarray]:
    """A pose that can be compared between windows [B*T,Dp], and the true distances that belong to it.

    The measured pose stands for the place; an integrated one for the way since its window's first frame.
    """
    if seen.measured is not None:
        return seen.measured.reshape(-1, seen.measured.shape[-1]).astype(np.float64), seen.apart
    way = seen.position - seen.position[:, :1]
    return seen.flat("p"), distances(way.reshape(-1, way.shape[-1]))


def _neighbour_figure(seen: Evidence, shown: dict[str, np.ndarray]) -> str:
    frames = seen.frames.reshape(-1, *seen.frames.shape[2:])
    queries = np.linspace(0, len(frames) - 1, QUERIES + 2).round().astype(int)[1:-1]
    made = ""
    for name, order in shown.items():
        rows = [figures.as_rgb(frames[np.concatenate([[q], order[q]])]) for q in queries]
        far = [", ".join(number(seen.apart[q, i]) for i in order[q]) for q in queries]
        names = "".join(f"<span>{escape(name)}</span>" for _ in rows)
        alt = f"frames and their nearest in {name}, true distances {'; '.join(far)}"
        made += f'<div class="rows"><div>{names}</div>{picture(figures.grid(rows), alt)}</div>'
    look = '<p class="look">First column: a frame; beside it those with the nearest state.</p>'
    return f'{look}<div class="side">{made}</div>'


@PANELS(
    "revisit",
    family="places",
    title="Back again",
    question="The same place, some steps later, has the same h and the same p.",
    limits={
        "h_ratio": low(
            0.4, 0.9, "distance of h between two visits in a window, over that of frames elsewhere"
        ),
        "p_ratio": low(0.25, 0.6, "the same of p: its loop-closure residual"),
    },
    next_move="h: raise --loss-weights.h2z. p: --loss-weights.pose-correct-dp 1, --loss-weights.loop-closure-p or "
    "--loss-weights.inverse-cycle-dp.",
)
def revisit(seen: Evidence) -> Found:
    """Revisit stability of h and p within a window, by how long ago the place was left."""
    place = seen.position
    T = place.shape[1]
    i, j = np.triu_indices(T, 2)
    walked = np.pad(seen.moved.cumsum(1), ((0, 0), (1, 0)))
    apart = np.linalg.norm(place[:, i] - place[:, j], axis=-1)  # [B,pairs]
    back = (apart < SAME * seen.stride) & (walked[:, j] > walked[:, i])
    away = apart >= SAME * seen.stride
    if back.sum() < NEAREST or not away.any():
        raise MissingError(
            f"at least {NEAREST} returns to a place within the windows of the evaluation batch"
        )
    values, cards = {}, []
    for name in (n for n in ("h", "p") if n in seen.latents):
        latent = seen.latent(name)
        gap = length(latent[:, i].astype(np.float64) - latent[:, j])
        usual = float(gap[away].mean())
        values[f"{name}_ratio"] = share(float(gap[back].mean()), usual)
        later = [d for d in range(2, T) if back[:, j - i == d].sum() >= 3]
        if len(later) > 1 and usual > 1e-9:
            mean = np.array([gap[:, j - i == d][back[:, j - i == d]].mean() / usual for d in later])
            curve = charts.Series(np.array(later, float), mean)
            sub = "by steps between; dashed: elsewhere"
            cards.append(
                charts.line_chart(f"gap of {name} on return", [curve], bar=1.0, sub=sub, axis="steps")
            )
    told = ", ".join(f"{name[0]} {number(value)}" for name, value in values.items())
    return Found(
        values,
        f"{back.sum():,} returns; the gap over that of other places: {told}.",
        lambda: charts.charts(cards),
    )


@PANELS(
    "laps",
    family="places",
    title="New places a lap",
    question="As the same loop is walked again, fewer and fewer states of h and p are new: the count of nodes saturates.",
    limits={
        "h_growth": low(0.1, 0.5, "new nodes of h a further lap, over those of the first"),
        "p_growth": low(0.15, 0.5, "the same of p; 1 is a pose that never comes back"),
    },
    next_move="h: its memory keeps what the loop should wash out; raise --loss-weights.h2z. p: "
    "--loss-weights.pose-correct-dp 1 or --loss-weights.loop-closure-p 1.",
)
def laps(seen: Evidence) -> Found:
    """Node growth against laps."""
    walked = seen.laps
    if walked is None:
        raise MissingError(
            "a simulator in which a rectangle can be walked (gridworld and two_rooms have one)"
        )
    values, cards, told = {}, [], []
    own = len(np.unique(walked.places[0].round(6), axis=0))
    for name in (n for n in ("h", "p") if n in walked.latents):
        counts = np.mean([_nodes(way, walked.steps, walked.laps) for way in walked.latents[name]], 0)
        values[f"{name}_growth"] = share(float(counts[-1] - counts[0]) / (walked.laps - 1), float(counts[0]))
        told.append(
            f"{name} has {number(counts[0])} nodes after one lap and {number(counts[-1])} after {walked.laps}"
        )
        curve = charts.Series(np.arange(1, walked.laps + 1, dtype=float), counts)
        cards.append(
            charts.line_chart(
                f"nodes of {name}", [curve], bar=own, sub="dashed: places of the loop", axis="laps"
            )
        )
    return Found(values, f"The loop has {own} places; {'; '.join(told)}.", lambda: charts.charts(cards))


def _nodes(way: np.ndarray, steps: int, laps_walked: int) -> np.ndarray:
    """Distinct nodes after each lap of one way [laps * steps + 1,D]."""
    way = way.astype(np.float64)
    scale = float(np.median(length(np.diff(way[: steps + 1], axis=0))))
    if scale <= 1e-9:
        return np.ones(laps_walked)
    _, first = merge_states(way, MERGE * scale)
    return np.array([(first <= (lap + 1) * steps).sum() for lap in range(laps_walked)], float)
