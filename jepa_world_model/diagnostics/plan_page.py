"""A page to pick a start and a goal and watch the plan: one HTML file, every route in it, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jepa_world_model.core.run import atomic_write
from jepa_world_model.diagnostics.page import Section, page
from jepa_world_model.envs.layouts import MOVES, free_cells
from jepa_world_model.planning.graph import Route
from jepa_world_model.planning.known import Known
from jepa_world_model.planning.lattice import Lattice, LatticeConfig
from jepa_world_model.planning.pose import need_measured_pose, read_frames
from jepa_world_model.planning.worlds import GridworldWorld

ASSETS = Path(__file__).parent / "assets"
MOST_CELLS = 150  # every ordered pair is planned beforehand, so the page grows with the square


@dataclass(frozen=True, kw_only=True)
class Offered:
    """A planner on the page."""

    route: Callable[[int, int], Route]  # from one free cell to another, by number
    why: str = ""  # said where it finds no way
    adds_up: bool = False  # it believes to move by increments; else it believes what happens


@dataclass(frozen=True, kw_only=True)
class PlanView:
    """What the page shows of a model in a gridworld of K free cells, row after row."""

    world: GridworldWorld
    pose: np.ndarray  # [K,2] measured pose of each free cell on the map's plane
    increments: np.ndarray  # [A,2] what each action adds there
    seen: np.ndarray  # [K] bool, visited by the data
    planners: Mapping[str, Offered]

    def __post_init__(self) -> None:
        count = len(free_cells(self.world.walls))
        if count > MOST_CELLS:
            raise ValueError(
                f"the page plans every pair of {count} cells beforehand; at most {MOST_CELLS} are possible"
            )
        if self.pose.shape != (count, 2) or self.seen.shape != (count,) or not self.planners:
            raise ValueError(f"the page needs pose [{count},2], seen [{count}] and a planner")


def view_of(known: Known, world: GridworldWorld) -> PlanView:
    """The lattice and the graphs over h and p of a model with a measured pose.

    Errors: UserError where a lone frame has no pose.
    """
    need_measured_pose(known.dynamics)
    cells = free_cells(world.walls)
    drawn, steps = world.draw(cells), known.steps
    p = read_frames(known.dynamics, drawn, "p")
    # A pose that composes needs a few dozen places a route; one that does not would search for minutes.
    lattice = Lattice(steps.mean, LatticeConfig(max_expanded=500))
    planners = {"pose lattice": Offered(route=lambda a, b: lattice.route(p[a], p[b]), adds_up=True)}
    for name in ("h", "p"):
        if name in known.dynamics.goal_latents:
            planners[f"graph over {name}"] = _graph_offer(known, drawn, name)
    # The map is turned so that its right and down lie as in the world, as far as a pose without distortion can.
    axes = np.linalg.svd(steps.mean, full_matrices=False)[2][:2]
    left, _, right = np.linalg.svd(axes @ steps.mean.T @ MOVES)
    axes = (left @ right).T @ axes / steps.step
    seen = {frame.tobytes() for frame in np.unique(known.frames, axis=0)}
    return PlanView(
        world=world, pose=(p - p.mean(0)) @ axes.T, increments=steps.mean @ axes.T,
        seen=np.array([frame.tobytes() in seen for frame in drawn]), planners=planners,
    )  # fmt: skip


def _graph_offer(known: Known, drawn: np.ndarray, name: str) -> Offered:
    graph, states = known.graph(name), read_frames(known.dynamics, drawn, name)
    why = "the start or the goal is not in the data, or no episode leads from one to the other"
    return Offered(route=lambda a, b: graph.route(states[a], states[b]), why=why)


def page_data(view: PlanView) -> dict[str, Any]:
    """Everything that the page's script reads, as JSON holds it."""
    world, cells = view.world, free_cells(view.world.walls)
    number = {tuple(cell): k for k, cell in enumerate(cells.tolist())}
    after = [
        [
            number[tuple(to)]
            for to in world.step(np.repeat(cell[None], len(MOVES), 0), np.arange(len(MOVES))).tolist()
        ]
        for cell in cells
    ]  # [K][A]
    index = world.index(cells)
    optimal = world.lengths[np.ix_(index, index)]
    pixels = world.show(cells[0])
    far = np.unravel_index(
        np.where(view.seen[:, None] & ~view.seen[None], optimal, optimal - 1000).argmax(), optimal.shape
    )
    pixel = np.asarray(world.pixel(cells))
    return {
        "size": list(pixels.shape[1::-1]),
        "picture": _png(pixels),
        "pixel": np.round(pixel, 2).tolist(),
        "side": float(world.pixel(cells[:1] + 1)[0, 0] - world.pixel(cells[:1])[0, 0]),
        "cells": cells.tolist(),
        "seen": view.seen.astype(int).tolist(),
        "pose": np.round(view.pose, 3).tolist(),
        "increments": np.round(view.increments, 4).tolist(),
        "after": after,
        "optimal": optimal.tolist(),
        "actions": list(world.space.names),
        "noop": world.space.noop,
        "start": int(far[0]),
        "goal": int(far[1]),
        "routes": {name: _ways(offered, len(cells)) for name, offered in view.planners.items()},
        "why": {name: offered.why for name, offered in view.planners.items()},
        "believes": {name: offered.adds_up for name, offered in view.planners.items()},
    }


def _ways(offered: Offered, count: int) -> list[list[str | None]]:
    """Every route as a string of action numbers, one sign each; None where there is none."""
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    found = ((offered.route(a, b) for b in range(count)) for a in range(count))
    return [["".join(digits[x] for x in r.actions) if r.reached else None for r in row] for row in found]


def _png(pixels: np.ndarray) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


CONTROLS = """
<p id="words" aria-live="polite"></p><p id="pair"></p><p id="picking"></p>
<div class="views">
<figure><svg id="world" role="application" tabindex="0" aria-label="The world: pick a start, then a goal. Arrow keys move
the pick, Enter changes between start and goal."></svg><figcaption>The world as it is. Shaded cells were never visited by
the data. Black frame: start, green frame: goal, red ring: a move that met a wall.</figcaption></figure>
<figure><svg id="map" role="img" aria-label="The map of poses"></svg><figcaption>Where the model believes to be: each dot
is the pose read off one frame, hollow where the data never went; thin lines join neighbours, the blue line is the plan.
</figcaption></figure></div>
<div class="bar"><button id="back" aria-label="one step back">&#9664;</button><button id="play">Play</button>
<button id="next" aria-label="one step on">&#9654;</button><input id="range" type="range" min="0" value="0"
aria-label="step"><span id="step"></span></div>
<div class="bar" id="planners" role="radiogroup" aria-label="planner"></div>
<div class="bar"><button id="random">Another pair</button><button id="swap">Swap start and goal</button>
<label><input id="unseen" type="checkbox" checked>unvisited cells only</label></div>
<p id="actions" class="mono"></p>
"""


def plan_html(
    data: Mapping[str, Any], title: str, subtitle: str = "Pick a start and a goal, watch the plan"
) -> str:
    """The document."""
    # "</" inside a JSON string could end the script element.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
    style = (ASSETS / "plan.css").read_text()
    body = (
        f"<style>{style}</style>{CONTROLS}<noscript><p class='missing'>This page needs JavaScript.</p></noscript>"
        f'<script id="data" type="application/json">{text}</script><script>{(ASSETS / "plan.js").read_text()}</script>'
    )
    return page(title, subtitle, [Section("plan", "Plan", "", body)]).replace("<nav></nav>", "")


def write_plan_page(view: PlanView, out: Path, title: str) -> Path:
    """Plan every pair and write the page, whole or not at all."""
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(out, plan_html(page_data(view), title))
    return out
