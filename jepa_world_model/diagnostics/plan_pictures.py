"""Episodes of planning as a picture and a film: the world from above, the way that was taken, start and goal."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from jepa_world_model.planning.closed_loop import Episodes
from jepa_world_model.planning.worlds import World

SIDE = 208  # px of a panel's world
STRIP = 22  # px of the line of text above it
PAPER, INK, SOFT = (250, 249, 245), (31, 41, 55), (107, 114, 128)
GOOD, BAD = (38, 128, 91), (196, 60, 52)
WAY = ((203, 213, 225), (47, 102, 179))  # colour of the way at its start and at its end
GOAL = (217, 119, 6)
FRAMES, FRAME_MS = 40, 120  # of a film, at most


def chosen_episodes(episodes: Episodes, count: int) -> list[int]:
    """Which to show: the first that failed and the first that arrived, half of each as far as there are."""
    won = next(iter(episodes.success.values()))
    failed, arrived = np.flatnonzero(~won), np.flatnonzero(won)
    first = failed[: max(count // 2, count - len(arrived))]
    return sorted([*first.tolist(), *arrived[: count - len(first)].tolist()])


def _panel(world: World, episodes: Episodes, number: int, upto: int) -> Any:
    """One episode, as far as step `upto`, as a PIL image."""
    from PIL import Image, ImageDraw

    background = world.show(episodes.starts[number])
    factor = SIDE / background.shape[0]
    picture = Image.new("RGB", (SIDE, SIDE + STRIP), PAPER)
    resized = Image.fromarray(background).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    picture.paste(resized, (0, STRIP))
    draw = ImageDraw.Draw(picture)
    points = world.pixel(episodes.places[number, : upto + 1]) * factor + np.array([0, STRIP])  # [t,2]
    share = np.linspace(0, 1, max(len(points), 2))[:, None]
    colours = (np.array(WAY[0]) * (1 - share) + np.array(WAY[1]) * share).astype(int)
    for here, there, colour in zip(points[:-1], points[1:], colours[1:], strict=False):
        draw.line([*here, *there], fill=tuple(colour), width=3)
    _cross(draw, world.pixel(episodes.goals[number][None])[0] * factor + np.array([0, STRIP]))
    _dot(draw, points[0], 4, WAY[0])
    _dot(draw, points[-1], 5, WAY[1])
    _caption(draw, episodes, number, upto, world.unit)
    return picture


def _dot(draw: Any, at: np.ndarray, radius: int, colour: tuple[int, ...]) -> None:
    x, y = at
    draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour, outline=INK)


def _cross(draw: Any, at: np.ndarray) -> None:
    x, y = at
    for slope in (1, -1):
        draw.line([x - 6, y - 6 * slope, x + 6, y + 6 * slope], fill=GOAL, width=3)


def _key(sheet: Any) -> None:
    """The line below all panels: what the signs are."""
    from PIL import ImageDraw

    draw, y = ImageDraw.Draw(sheet), sheet.height - STRIP / 2 - 3
    for x, words in ((16, "start"), (76, "now"), (126, "goal"), (176, "number in green: solved")):
        draw.text((x + 12, y - 6), words, fill=SOFT)
    _dot(draw, np.array([16, y]), 4, WAY[0])
    _dot(draw, np.array([76, y]), 5, WAY[1])
    _cross(draw, np.array([126, y]))


def _caption(draw: Any, episodes: Episodes, number: int, upto: int, unit: str) -> None:
    won = bool(next(iter(episodes.success.values()))[number])
    far = episodes.distance[number, upto]
    draw.text((4, 5), f"pair {number}", fill=SOFT)
    draw.text((64, 5), f"step {upto}", fill=SOFT)
    unit = unit.removesuffix("s") if far == 1 else unit
    text = f"{far:.1f} {unit} to go" if far % 1 else f"{far:.0f} {unit} to go"
    draw.text((SIDE - 4 - draw.textlength(text), 5), text, fill=GOOD if won else BAD)


def _sheet(world: World, episodes: Episodes, chosen: list[int], upto: int) -> Any:
    from PIL import Image

    across = min(4, len(chosen))
    down = -(-len(chosen) // across)
    gap = 8
    high, wide = SIDE + STRIP, SIDE
    sheet = Image.new("RGB", (across * (wide + gap) + gap, down * (high + gap) + gap + STRIP), PAPER)
    for place, number in enumerate(chosen):
        y, x = divmod(place, across)
        sheet.paste(_panel(world, episodes, number, upto), (gap + x * (wide + gap), gap + y * (high + gap)))
    _key(sheet)
    return sheet


def episodes_png(world: World, episodes: Episodes, count: int) -> bytes:
    """Whole ways: a light line that darkens with time, a dot where it ends, a cross at the goal.

    Above each panel: the pair, the steps, and the last distance, green where the world's first rule is met.
    """
    out = io.BytesIO()
    _sheet(world, episodes, chosen_episodes(episodes, count), episodes.distance.shape[1] - 1).save(out, "PNG")
    return out.getvalue()


def episodes_gif(world: World, episodes: Episodes, count: int) -> bytes:
    """The same, step by step."""
    chosen, last = chosen_episodes(episodes, count), episodes.distance.shape[1] - 1
    steps = np.unique(np.linspace(0, last, min(FRAMES, last + 1)).round().astype(int))
    sheets = [_sheet(world, episodes, chosen, int(step)).quantize(64) for step in steps]
    out = io.BytesIO()
    sheets[0].save(
        out, "GIF", save_all=True, append_images=sheets[1:], duration=[FRAME_MS] * (len(sheets) - 1) + [1500], loop=0
    )  # fmt: skip
    return out.getvalue()
