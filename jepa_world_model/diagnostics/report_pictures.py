"""The sections of a report that show a snapshot of the model."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jepa_world_model.diagnostics import figures, probes
from jepa_world_model.diagnostics.page import Section, escape, missing, number, picture, table
from jepa_world_model.diagnostics.records import Record


def _strips(rows: Mapping[str, Any], alt: str) -> str:
    names = "".join(f"<span>{escape(name)}</span>" for name in rows)
    return f'<div class="rows"><div>{names}</div>{picture(figures.grid(list(rows.values())), alt)}</div>'


def captioned(record: Record) -> list[Section]:
    """The pictures that a run drew itself: what figures/captions.json names, with its title and what to look for."""
    folder = record.folder / "figures"
    path, parts = folder / "captions.json", []
    if not path.is_file():
        return []
    for row in json.loads(path.read_text(encoding="utf-8")):
        name, _, kind = row["file"].rpartition(".")
        data = base64.b64encode((folder / row["file"]).read_bytes()).decode()
        body = (
            f'<figure{_wide(folder / row["file"])}><img style="max-width:100%;height:auto" alt="{escape(row["title"])}" '
            f'src="data:image/{kind};base64,{data}"></figure>'
        )
        parts.append(Section(escape(name), row["title"], escape(row["look"]), body))
    return parts


def _wide(file: Path) -> str:
    """A class for a picture whose writing would be too small on a phone: it is scrolled there."""
    from PIL import Image

    with Image.open(file) as image:
        return ' class="wide"' if image.width > 2.5 * image.height else ""


def reconstructions(record: Record) -> Section:
    """Targets and reconstructions, and how both change."""
    shots, title = record.snapshot, "Reconstructions"
    if "x_hat" not in shots:
        return Section(
            "recon", title, "", missing("These pictures need snapshot.npz of a model with a decoder.")
        )
    look = (
        "Held-out windows, time to the right. The lower two rows show what changes to the next frame (grey: "
        "nothing). What moves must show in both; a mover that is missing below is one the encoder ignores."
    )
    body = "".join(
        _strips(figures.reconstruction_rows(shots, i), f"window {i + 1}") for i in range(len(shots["frames"]))
    )
    return Section("recon", title, look, body)


def rollouts(record: Record) -> Section:
    """What is imagined beside what happened."""
    shots, title = record.snapshot, "Open-loop rollouts"
    if "open_loop" not in shots:
        return Section(
            "rollouts", title, "", missing("These pictures need snapshot.npz of a model with a decoder.")
        )
    steps = shots["open_loop"].shape[1] - 1
    look = (
        f"From the first frame and the actions alone, {steps} steps to the right, beside the truth. "
        "Look for the mover: it should stay sharp and in place. The error row is black for none, "
        "white for all."
    )
    body = "".join(
        _strips(figures.rollout_rows(shots, i), f"rollout {i + 1}") for i in range(len(shots["open_loop"]))
    )
    return Section("rollouts", title, look, body)


def projection(record: Record) -> Section:
    """z and h in a plane, coloured by true position."""
    if "z_plane" not in record.snapshot and "h_plane" not in record.snapshot:
        return Section("projection", "Embeddings", "", missing("This picture needs snapshot.npz."))
    look = (
        "Principal axes of z and h, every frame in the colour of its true position. Where "
        "neighbours in the world "
        "are neighbours in the embedding, the colours blend as they do in the first panel."
    )
    made = figures.svg(figures.projection(record.snapshot), "projection")
    return Section("projection", "Embeddings", look, f'<figure class="wide">{made}</figure>')


def trajectories(record: Record) -> Section:
    """Integrated poses beside the true paths."""
    if "pose" not in record.snapshot:
        return Section(
            "poses", "Pose trajectories", "", missing("This picture needs snapshot.npz of a model with p.")
        )
    look = (
        "Each line is one held-out window from the origin (+) to its dot. The true paths should "
        "come back in p, up to "
        "one turn and stretch for all; in the last panel p is laid onto the truth by the best linear map."
    )
    made = figures.svg(figures.trajectories(record.snapshot), "trajectories")
    return Section("poses", "Pose trajectories", look, f'<figure class="wide">{made}</figure>')


def increments(record: Record) -> Section:
    """What each action does to the pose, as a picture and a table."""
    if "increments" not in record.snapshot:
        return Section(
            "increments",
            "What an action does to p",
            "",
            missing("This needs snapshot.npz of a model with p."),
        )
    look = (
        "Increments of p by action, with an arrow to each mean. Look for tight clouds, opposite arrows that "
        "cancel, and a no-op at the origin. Hollow: moves that a wall blocked, which should be short."
    )
    if str(record.snapshot["action_kind"]) == "continuous":
        look = (
            "Increments of p, each in the colour of its action's first two values. Where p is a place, the "
            "colours spread around the origin as the actions do; a cloud to one side is a clock."
        )
    body = f"<figure>{figures.svg(figures.increments(record.snapshot), 'increments')}</figure>"
    if rows := _increment_rows(record.snapshot):
        body += table(rows, ("action", "moves", "length", "spread / length"))
    return Section("increments", "What an action does to p", look, body)


def _increment_rows(shots: Mapping[str, Any]) -> list[tuple[str, ...]]:
    if str(shots["action_kind"]) == "continuous":
        return []
    free, labels = shots["increment_moved"] | shots["increment_noop"], figures.action_labels(shots)
    found = probes.increments_by_action(shots["increments"][free], shots["increment_action"][free])
    noops = set(shots["increment_action"][shots["increment_noop"]].tolist())
    return [
        (
            escape(labels[i]),
            f"{row.count:,}",
            number(row.length),
            "a no-op: length 0 is right" if i in noops else number(row.q),
        )
        for i, row in found.items()
    ]
