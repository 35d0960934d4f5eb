"""The pose as a map: what single frames measure, how far counting drifts from looking, and whether loops close."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jepa_world_model.diagnostics import figures
from jepa_world_model.diagnostics.figures import INK, SOFT, Arrays, canvas, place_colours, title
from jepa_world_model.diagnostics.page import Section, missing, number
from jepa_world_model.diagnostics.records import Record
from jepa_world_model.planning.pose import Closure, PoseMap, loop_closure, map_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE = figures.ACTIONS[0]


def read_map(arrays: Arrays) -> tuple[PoseMap, Closure]:
    """The map and the loops of a snapshot that has them. Errors: ValueError where the pose never moves."""
    found, place = map_of(arrays["map_seen"], arrays["map_counted"]), arrays.get("map_place")
    if place is None:
        return found, loop_closure(found)
    return found, loop_closure(found, lambda i, j: np.abs(place[:, i] - place[:, j]).max(-1) < 1e-3)


def pose_map_figure(arrays: Arrays) -> Figure:
    """Three panels: the map of measured poses, drift along windows, and poses of one place by the steps between visits."""
    found, closure = read_map(arrays)
    made, (left, middle, right) = canvas(3)
    flat = found.flat(found.measured).reshape(-1, 2)
    place = arrays.get("map_place")
    colour = SOFT if place is None else place_colours(place.reshape(-1, place.shape[-1]))
    left.scatter(*flat.T, c=colour, s=9, alpha=0.8, linewidths=0, rasterized=True)
    left.set_aspect("equal", "datalim")
    title(left, "pose of each frame, in moves")
    _drift(middle, found)
    _loops(right, closure)
    return made


def _drift(ax: Axes, found: PoseMap) -> None:
    steps = np.arange(found.drift.shape[1])
    low, half, high = np.quantile(found.drift, (0.1, 0.5, 0.9), axis=0)
    ax.fill_between(steps, low, high, color=LINE, alpha=0.18, linewidth=0)
    ax.plot(steps, half, color=LINE, linewidth=1.6)
    ax.set_ylim(0, max(1.0, float(high.max()) * 1.05))
    ax.set_xlabel("steps counted", fontsize=8, color=SOFT)
    title(ax, "counted from measured, in moves")


def _loops(ax: Axes, closure: Closure) -> None:
    title(ax, "two visits of a place, in moves")
    ax.set_xlabel("steps between the visits", fontsize=8, color=SOFT)
    if not len(closure.gap):
        ax.text(
            0.5,
            0.5,
            "no window returns to a place",
            color=SOFT,
            fontsize=8,
            ha="center",
            transform=ax.transAxes,
        )
        return
    gaps = np.unique(closure.gap)
    middle = [float(np.median(closure.error[closure.gap == gap])) for gap in gaps]
    spread = np.random.default_rng(0).uniform(-0.25, 0.25, len(closure.gap))
    ax.scatter(
        closure.gap + spread, closure.error, s=6, color=LINE, alpha=0.25, linewidths=0, rasterized=True
    )
    ax.plot(gaps, middle, color=INK, linewidth=1.4)
    ax.axhline(closure.apart, color=SOFT, linestyle=(0, (3, 3)), linewidth=1)
    ax.set_ylim(0, max(1.0, closure.apart * 1.3, float(np.quantile(closure.error, 0.98)) * 1.05))


def pose_map(record: Record) -> Section:
    """Map, drift and loop closure."""
    name, heading = "map", "Map of poses"
    if "map_seen" not in record.snapshot:
        return Section(
            name, heading, "", missing("This picture needs a training with --loss-weights.pose-measure-p 1.")
        )
    look = (
        "Left: the pose read off every held-out frame, in the colour of its true position where that is known; the world "
        "should lie there flat and unfolded. Middle: how far the pose counted from actions leaves the measured one (median, "
        "and 10 to 90 %). Right: counted poses of one place on two visits, with their median; the dashed line is the mean "
        "over pairs of different places. A loop that closes is at 0, a clock on or above the dashed line."
    )
    try:
        made = figures.svg(pose_map_figure(record.snapshot), name)
        found, closure = read_map(record.snapshot)
    except ValueError as problem:
        return Section(name, heading, "", missing(f"{str(problem)[:1].upper()}{str(problem)[1:]}."))
    last = found.drift.shape[1] - 1
    words = f"After {last} steps the two are {number(float(np.median(found.drift[:, last])))} moves apart (median)."
    if len(closure.error):
        words += f" Returns miss by {number(float(closure.error.mean()))} moves; different places are "
        words += f"{number(closure.apart)} apart."
    return Section(name, heading, look, f'<figure class="wide">{made}</figure><p>{words}</p>')
