"""Pictures from the arrays of a snapshot: image grids as arrays, plots as matplotlib figures."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Arrays = Mapping[str, np.ndarray]
INK = "#123457"  # stands for the colour of the page's text, and becomes it in `svg`
SOFT = "#8a929d"
ACTIONS = ("#2f66b3", "#d0632a", "#26805b", "#a2489a", "#b08a12", "#3a9fb5", "#c4372c", "#6b6f78")


def as_rgb(pictures: np.ndarray) -> np.ndarray:
    """Pictures as people look at them. Shapes: [...,C,H,W] uint8 -> [...,H,W,3] uint8.

    One channel is grey; two are drawn in two colours on black; beyond three, the first three are shown.
    """
    channels = np.moveaxis(pictures, -3, -1)
    if channels.shape[-1] == 1:
        return np.repeat(channels, 3, -1)
    if channels.shape[-1] == 2:
        colours = np.array([[255, 190, 90], [90, 140, 200]]) / 255
        return np.clip(channels.astype(float) @ colours, 0, 255).astype(np.uint8)
    return channels[..., :3]


def signed(difference: np.ndarray, most: float) -> np.ndarray:
    """A difference of pictures around middle grey. Shapes: [...,C,H,W] float -> [...,C,H,W] uint8."""
    return (127.5 + 127.5 * np.clip(difference / max(most, 1e-9), -1, 1)).round().astype(np.uint8)


def grid(rows: list[np.ndarray], *, gap: int = 3) -> np.ndarray:
    """Rows of pictures as one picture, each enlarged or reduced to about 64 px.

    Shapes: rows [n,H,W,3] each -> [H',W',4], with transparent gaps.
    """
    size = rows[0].shape[1]
    factor = max(1, round(64 / size))
    rows = [np.repeat(np.repeat(row, factor, 1), factor, 2) for row in rows]
    if (shrink := size // 72) > 1:
        rows = [row[:, ::shrink, ::shrink] for row in rows]
    high, wide = rows[0].shape[1:3]
    across = max(len(row) for row in rows)
    made = np.zeros((len(rows) * (high + gap) - gap, across * (wide + gap) - gap, 4), np.uint8)
    for r, row in enumerate(rows):
        for c, piece in enumerate(row):
            place = made[r * (high + gap) :, c * (wide + gap) :][:high, :wide]
            place[..., :3], place[..., 3] = piece, 255
    return made


def reconstruction_rows(arrays: Arrays, window: int, most: int = 9) -> dict[str, np.ndarray]:
    """Named rows of one window: target and reconstruction, and how each changes to the next frame."""
    frames, x_hat = (arrays[name][window][:most] for name in ("frames", "x_hat"))
    change, change_hat = (np.diff(s.astype(float), axis=0) for s in (frames, x_hat))
    scale = float(np.abs(change).max())
    rows = {"target": as_rgb(frames), "x_hat": as_rgb(x_hat)}
    for name, value in (("target delta", change), ("x_hat delta", change_hat)):
        if value.shape[1] == 2:  # two colours cannot carry a sign
            value = value.sum(1, keepdims=True)
        rows[name] = as_rgb(signed(value, scale))
    return rows


def rollout_rows(arrays: Arrays, window: int) -> dict[str, np.ndarray]:
    """Named rows of one window: the truth, what is imagined from its first frame, and the absolute error."""
    truth, imagined = (arrays[name][window] for name in ("open_loop_true", "open_loop"))
    error = np.abs(truth.astype(float) - imagined).mean(1, keepdims=True)
    return {"truth": as_rgb(truth), "open loop": as_rgb(imagined), "error": as_rgb(error.astype(np.uint8))}


def place_colours(place: np.ndarray) -> np.ndarray:
    """A colour for every position, between those of four corners. Shapes: [N,2] -> [N,3]."""
    place = np.pad(place, ((0, 0), (0, 2 - place.shape[1]))) if place.shape[1] < 2 else place[:, :2]
    low, high = place.min(0), place.max(0)
    u, v = ((place - low) / np.where(high > low, high - low, 1)).T[..., None]
    corners = np.array([[0.10, 0.33, 0.92], [0.95, 0.22, 0.30], [0.02, 0.70, 0.45], [1.00, 0.78, 0.05]])
    return (
        (1 - u) * (1 - v) * corners[0]
        + u * (1 - v) * corners[1]
        + (1 - u) * v * corners[2]
        + u * v * corners[3]
    )


def canvas(columns: int, *, width: float = 3.0, height: float = 3.0) -> tuple[Figure, list[Axes]]:
    """An empty figure of square panels without frames, on a transparent ground."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(width * columns, height), layout="constrained")
    made.patch.set_alpha(0)
    axes = [made.add_subplot(1, columns, i + 1) for i in range(columns)]
    for ax in axes:
        ax.patch.set_alpha(0)
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color(SOFT)
        ax.tick_params(colors=SOFT, labelsize=8, length=2)
        ax.locator_params(nbins=5)
    return made, axes


def title(ax: Axes, words: str) -> None:
    """A panel's title."""
    ax.set_title(words, fontsize=10, color=INK, loc="left")


def projection(arrays: Arrays) -> Figure:
    """z and h on their principal axes, each frame in the colour of its true position, where known."""
    place, names = arrays.get("place"), [n for n in ("z", "h") if f"{n}_plane" in arrays]
    made, axes = canvas(len(names) + (place is not None))
    colour = SOFT if place is None else place_colours(place)
    dots = {"s": 7, "alpha": 0.75, "linewidths": 0, "rasterized": True}
    if place is not None:
        two = np.pad(place, ((0, 0), (0, 1)))[:, :2]
        axes[0].scatter(*two.T, c=colour, **dots | {"s": 14})
        axes[0].set_aspect("equal", "datalim")
        title(axes[0], "true position")
    for ax, name in zip(axes[-len(names) :], names, strict=True):
        share = arrays[f"{name}_share"]
        ax.scatter(*arrays[f"{name}_plane"].T, c=colour, **dots)
        title(ax, f"{name}: {share[0]:.0%} + {share[1]:.0%} of variance")
    return made


def _plane(vectors: np.ndarray) -> np.ndarray:
    """Two columns of what may have one or many: of many, the plane that holds most. [N,D] -> [N,2]."""
    if vectors.shape[1] <= 2:
        return np.pad(vectors, ((0, 0), (0, 2 - vectors.shape[1])))
    _, _, axes = np.linalg.svd(vectors.astype(np.float64), full_matrices=False)
    return vectors @ axes[:2].T


def trajectories(arrays: Arrays) -> Figure:
    """Integrated poses beside the true paths, and fitted onto them by one linear map for all."""
    pose, path = arrays["pose"], arrays.get("path")
    flat = _plane(pose.reshape(-1, pose.shape[-1])).reshape(*pose.shape[:2], 2)
    panels = [("pose p", flat)]
    if path is not None:
        two = np.pad(path, ((0, 0), (0, 0), (0, 2 - path.shape[-1])))
        fit = np.linalg.lstsq(pose.reshape(-1, pose.shape[-1]), two.reshape(-1, 2), rcond=None)[0]
        panels = [("true path", two), *panels, ("p, mapped onto the truth", pose @ fit)]
    made, axes = canvas(len(panels))
    for ax, (name, lines) in zip(axes, panels, strict=True):
        for number, line in enumerate(lines):
            ax.plot(*line.T, color=ACTIONS[number % len(ACTIONS)], linewidth=1.4, alpha=0.85)
            ax.plot(*line[-1], marker="o", markersize=3.5, color=ACTIONS[number % len(ACTIONS)])
        ax.plot(0, 0, marker="+", markersize=9, color=INK)
        ax.set_aspect("equal", "datalim")
        title(ax, name)
    return made


def action_labels(arrays: Arrays) -> dict[int, str]:
    """A name for every action id among the increments; several bits at once are joined by a plus."""
    names, kind = [str(n) for n in arrays["action_names"]], str(arrays["action_kind"])
    ids = [int(i) for i in np.unique(arrays["increment_action"])]
    if kind == "multi_binary":
        return {i: "+".join(n for bit, n in enumerate(names) if i >> bit & 1) or "no-op" for i in ids}
    return {i: names[i] if 0 <= i < len(names) else str(i) for i in ids}


def increments(arrays: Arrays) -> Figure:
    """Pose increments by action: a cloud each, an arrow to its mean; moves that a wall blocked are hollow."""
    delta, action = _plane(arrays["increments"]), arrays["increment_action"]
    made, (ax,) = canvas(1, width=4.6, height=4.2)
    free = arrays["increment_moved"] | arrays["increment_noop"]
    if str(arrays["action_kind"]) == "continuous":
        ax.scatter(
            *delta.T, c=place_colours(arrays["increment_code"]), s=8, alpha=0.7, linewidths=0, rasterized=True
        )
    else:
        labels = action_labels(arrays)
        common = sorted(labels, key=lambda i: -int((action == i).sum()))[: len(ACTIONS)]
        for colour, i in zip(ACTIONS, sorted(common), strict=False):
            mine = action == i
            ax.scatter(*delta[mine & free].T, color=colour, s=8, alpha=0.5, linewidths=0, rasterized=True)
            ax.scatter(*delta[mine & ~free].T, facecolors="none", edgecolors=colour, s=12, alpha=0.6,
                       linewidths=0.7, rasterized=True)  # fmt: skip
            _arrow(ax, delta[mine & free], labels[i], colour)
    ax.axhline(0, color=SOFT, linewidth=0.5, zorder=0)
    ax.axvline(0, color=SOFT, linewidth=0.5, zorder=0)
    ax.set_aspect("equal", "datalim")
    ax.margins(0.16)
    return made


def _arrow(ax: Axes, cloud: np.ndarray, label: str, colour: str) -> None:
    if not len(cloud):
        return
    mean = cloud.mean(0)
    ax.annotate("", mean, (0, 0), arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.6})
    radius = float(np.quantile(np.linalg.norm(cloud - mean, axis=1), 0.98))
    length = float(np.linalg.norm(mean))
    away = (
        mean / length if length > radius else np.array([0.7, -0.7])
    )  # a cloud at the origin is named below it
    side = {"ha": "left" if away[0] > 0.3 else "right" if away[0] < -0.3 else "center",
            "va": "bottom" if away[1] > 0.3 else "top" if away[1] < -0.3 else "center"}  # fmt: skip
    ax.annotate(label, mean + radius * away, away * 5, textcoords="offset points", color=colour, fontsize=9,
                fontweight="bold", **side)  # fmt: skip


def svg(made: Figure, name: str) -> str:
    """A figure as SVG inside a page: words stay words, dark ones take the colour of the page's text."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        FigureCanvasSVG(made).print_svg(buffer, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor").replace(INK.upper(), "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"(font: [^;\"]*?)'?DejaVu Sans'?[^;\"]*", r"\1system-ui, sans-serif", text)
    text = re.sub(
        r'\bid="((?:figure|axes|patch|line2d|text|xtick|ytick|matplotlib|PathCollection)[^"]*)"', "", text
    )
    return text.replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1)


def sheet(rows: Mapping[str, np.ndarray]) -> Figure:
    """Named rows of pictures as a figure, for a file or a logger."""
    from matplotlib.figure import Figure

    pixels = grid(list(rows.values()))
    made = Figure(figsize=(pixels.shape[1] / 100 + 1, pixels.shape[0] / 100 + 0.2), dpi=100)
    ax = made.add_axes((0.9 / made.get_figwidth(), 0.02, 1 - 1 / made.get_figwidth(), 0.96))
    ax.imshow(pixels, interpolation="nearest")
    high = pixels.shape[0] / len(rows)
    ax.set_yticks([high * (i + 0.5) for i in range(len(rows))], list(rows), fontsize=8)
    ax.set_xticks([])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return made


def all_figures(arrays: Arrays) -> dict[str, Any]:
    """Every figure that the arrays allow, by name: for a run's folder of figures, or a logger of images."""
    made: dict[str, Any] = {}
    for window in range(len(arrays.get("frames", ()))):
        made[f"reconstruction_{window}"] = sheet(reconstruction_rows(arrays, window))
    for window in range(len(arrays.get("open_loop", ()))):
        made[f"open_loop_{window}"] = sheet(rollout_rows(arrays, window))
    if "z_plane" in arrays or "h_plane" in arrays:
        made["projection"] = projection(arrays)
    if "pose" in arrays:
        made["trajectories"] = trajectories(arrays)
    if "increments" in arrays:
        made["increments"] = increments(arrays)
    if "map_seen" in arrays:
        from jepa_world_model.diagnostics.pose_pictures import pose_map_figure  # which draws with this file

        made["pose_map"] = pose_map_figure(arrays)
    return made


def save_figures(folder: Path, arrays: Arrays) -> list[Path]:
    """Write every figure as a PNG into a folder that exists; returns the files."""
    paths = []
    for name, made in all_figures(arrays).items():
        paths.append(Path(folder) / f"{name}.png")
        made.savefig(paths[-1], dpi=110, facecolor="white")
    return paths
