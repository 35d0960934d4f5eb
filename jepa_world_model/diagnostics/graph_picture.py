"""The latent graph as SVG: what is computed from what, and which edges carry no gradient."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any

from jepa_world_model.core.graph import Graph, graph_json
from jepa_world_model.diagnostics.page import escape

WIDTH, HEIGHT, GAP, DROP, PASS = (
    156,
    44,
    18,
    92,
    16,
)  # a node, the space between, a row, and an edge that passes by

SHRINK = 0.7  # the least share of its width that a narrow window shows; below, its names cannot be read
LEGEND_WIDTH = 460  # px; a narrower picture would cut its legend off


def latents_of(gates: Mapping[str, float]) -> list[dict[str, Any]]:
    """The latents that a table of gates tells of, without their modules: for a run without graph.json."""
    reads: dict[str, list[str]] = {}
    for edge in gates:
        source, _, target = edge.partition("->")
        reads.setdefault(source, [])
        reads.setdefault(target, []).append(source)
    order: list[str] = []
    while len(order) < len(reads):  # what is read comes before what reads it, wherever its edge stands
        order += [n for n, sources in reads.items() if n not in order and set(sources) <= set(order)]
    return [{"name": name, "reads": reads[name], "trains": []} for name in order]


def graph_svg(
    graph: Graph | Sequence[Mapping[str, Any]], gates: Mapping[str, float], wanted: Collection[str] = ()
) -> str:
    """A picture of the graph that follows the reader's light or dark scheme and needs no other file.

    graph: a `Graph` (whole, or what is `wanted` of it), or the `latents` of a graph.json. Solid edges
    pass the gradient, dashed ones with a bar cut it, a number is the share that passes.
    """
    latents = graph_json(graph, gates, wanted)["latents"] if isinstance(graph, Graph) else list(graph)
    rows, chains = _layers(latents)
    order = _ordered(rows, chains)
    place, width = _placed(order, chains)
    width = max(width, LEGEND_WIDTH)
    height = (len(order) - 1) * DROP + HEIGHT
    family = _families(latents)
    shift = _ports(chains, place)
    edges = [
        _edge([place[stop] for stop in chain], shift[name], gates.get(name, 1.0))
        for name, chain in chains.items()
    ]
    nodes = [_node(latent, place[latent["name"]], family[latent["name"]]) for latent in latents]
    key = _key(height + 40)
    return (
        '<svg class="latent-graph" xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="-8 -8 {width + 16:.0f} {height + 68}" '
        f'width="{width + 16:.0f}" height="{height + 68}" style="min-width:{SHRINK * (width + 16):.0f}px" '
        'role="img" aria-label="latent graph">'
        f"<style>{STYLE}</style>{''.join(edges)}{''.join(nodes)}{key}</svg>"
    )


def _layers(latents: Sequence[Mapping[str, Any]]) -> tuple[list[list[str]], dict[str, list[str]]]:
    """Rows of names by the longest way from a source, and each edge as the chain of places it passes."""
    depth: dict[str, int] = {}
    for latent in latents:
        depth[latent["name"]] = 1 + max((depth[read] for read in latent["reads"]), default=-1)
    used = {read for latent in latents for read in latent["reads"]}
    for latent in latents:
        if not latent["reads"] and latent["name"] not in used:  # alone: it stands with the last results
            depth[latent["name"]] = max(depth.values())
    rows: list[list[str]] = [[] for _ in range(max(depth.values()) + 1)]
    for name, level in depth.items():
        rows[level].append(name)
    chains = {}
    for latent in latents:
        for read in latent["reads"]:
            edge = f"{read}->{latent['name']}"
            between = [f"{edge}@{level}" for level in range(depth[read] + 1, depth[latent["name"]])]
            for level, stop in enumerate(between, depth[read] + 1):
                rows[level].append(stop)
            chains[edge] = [read, *between, latent["name"]]
    return rows, chains


def _ordered(rows: list[list[str]], chains: Mapping[str, list[str]]) -> list[list[str]]:
    """The rows with few crossings: each name between its neighbours, sweeping down and up."""
    links = [(a, b) for chain in chains.values() for a, b in pairwise(chain)]
    best, least = rows, _crossings(rows, links)
    for sweep in range(12):
        rows = [list(row) for row in rows]
        down = sweep % 2 == 0
        span = range(1, len(rows)) if down else range(len(rows) - 2, -1, -1)
        for level in span:
            other = {name: i for i, name in enumerate(rows[level - 1 if down else level + 1])}
            pairs = [(b, a) if down else (a, b) for a, b in links]
            weight = {}
            for i, name in enumerate(rows[level]):
                near = [other[b] for a, b in pairs if a == name and b in other]
                weight[name] = sum(near) / len(near) if near else i
            rows[level].sort(key=weight.__getitem__)
        count = _crossings(rows, links)
        if count < least:
            best, least = rows, count
    return best


def _crossings(rows: list[list[str]], links: Sequence[tuple[str, str]]) -> int:
    at = {name: (level, i) for level, row in enumerate(rows) for i, name in enumerate(row)}
    ends = [(at[a][0], at[a][1], at[b][1]) for a, b in links]
    return sum(
        one[0] == two[0] and (one[1] - two[1]) * (one[2] - two[2]) < 0
        for i, one in enumerate(ends)
        for two in ends[:i]
    )


def _wide(name: str) -> int:
    return PASS if "@" in name else WIDTH


def _placed(
    rows: list[list[str]], chains: Mapping[str, list[str]]
) -> tuple[dict[str, tuple[float, float]], float]:
    """Each name's centre, as near to its neighbours as its row allows, and the width of the whole."""
    near: dict[str, list[str]] = {name: [] for row in rows for name in row}
    for chain in chains.values():
        for one, other in pairwise(chain):
            near[one].append(other)
            near[other].append(one)
    x: dict[str, float] = {}
    for row in rows:
        for name, offset in zip(row, _offsets(row), strict=True):
            x[name] = offset - _offsets(row)[-1] / 2
    for sweep in range(24):
        for row in rows if sweep % 2 == 0 else rows[::-1]:
            wish = [
                sum(x[n] for n in near[name]) / len(near[name]) if near[name] else x[name] for name in row
            ]
            weight = [
                4.0 if "@" in name else 1.0 for name in row
            ]  # an edge that passes by should be straight
            x |= dict(zip(row, _spaced(wish, weight, _offsets(row)), strict=True))
    left = min(x[row[0]] - _wide(row[0]) / 2 for row in rows)
    right = max(x[row[-1]] + _wide(row[-1]) / 2 for row in rows)
    place = {
        name: (x[name] - left, level * DROP + HEIGHT / 2) for level, row in enumerate(rows) for name in row
    }
    return place, right - left


def _offsets(row: list[str]) -> list[float]:
    """The centres of a row's names when they stand as close as they may, from the first one's."""
    found = [0.0]
    for one, other in pairwise(row):
        found.append(found[-1] + (_wide(one) + _wide(other)) / 2 + GAP)
    return found


def _spaced(wish: list[float], weight: list[float], offset: list[float]) -> list[float]:
    """The places nearest to the wishes that keep order and distance; those that collide share a mean."""
    blocks: list[list[float]] = []  # [sum of weighted wishes less offsets, weight, count]
    for w, k, o in zip(wish, weight, offset, strict=True):
        blocks.append([k * (w - o), k, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            last = blocks.pop()
            blocks[-1] = [a + b for a, b in zip(blocks[-1], last, strict=True)]
    bases = [total / mass for total, mass, count in blocks for _ in range(int(count))]
    return [base + o for base, o in zip(bases, offset, strict=True)]


def _families(latents: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """x, z, h or p: the first of these letters in a name, or else that of the last latent it reads."""
    family: dict[str, str] = {}
    for latent in latents:
        letters = [part for part in re.split("_", latent["name"]) if part in ("x", "z", "h", "p")]
        inherited = [family[read] for read in latent["reads"]]
        family[latent["name"]] = (letters + inherited[::-1] + ["x"])[0]
    return family


def _ports(
    chains: Mapping[str, list[str]], place: Mapping[str, tuple[float, float]]
) -> dict[str, list[float]]:
    """How far from the middle of a node each edge leaves and arrives, so that none lies on another."""
    shift: dict[str, list[float]] = {edge: [0.0, 0.0] for edge in chains}
    for end in (0, -1):
        sides: dict[str, list[str]] = {}
        for edge, chain in chains.items():
            sides.setdefault(chain[end], []).append(edge)
        for edges in sides.values():
            edges.sort(key=lambda edge: place[chains[edge][1 if end == 0 else -2]][0])
            for i, edge in enumerate(edges):
                shift[edge][end] = (i - (len(edges) - 1) / 2) * min(22, 100 / len(edges))
    return shift


def _edge(stops: Sequence[tuple[float, float]], shift: Sequence[float], keep: float) -> str:
    half = HEIGHT / 2
    points = [(stops[0][0] + shift[0], stops[0][1] + half)]
    for x, y in stops[1:-1]:  # straight past the nodes of a row in between
        points += [(x, y - half), (x, y + half)]
    points.append((stops[-1][0] + shift[-1], stops[-1][1] - half - 5))
    path = f"M{points[0][0]:.0f} {points[0][1]:.0f}"
    for i, ((ax, ay), (bx, by)) in enumerate(pairwise(points)):
        middle = (ay + by) / 2
        curve = f"C{ax:.0f} {middle:.0f} {bx:.0f} {middle:.0f} {bx:.0f} {by:.0f}"
        path += curve if i % 2 == 0 else f"V{by:.0f}"
    x, y = points[-1]
    head = f'<path class="tip" d="M{x - 4:.0f} {y - 2:.0f}h8l-4 7z"/>'
    (ax, ay), (bx, by) = points[-2:]
    middle, kind, mark = ((ax + bx) / 2, (ay + by) / 2), "open", ""
    if keep == 0:
        kind = "cut"
        dx, dy = (bx - ax) * 1.5, (by - ay) * 0.75  # across the curve where it is steepest
        size = (dx * dx + dy * dy) ** 0.5 / 7
        mark = (
            f'<path class="bar" d="M{middle[0] - dy / size:.1f} {middle[1] + dx / size:.1f}'
            f'L{middle[0] + dy / size:.1f} {middle[1] - dx / size:.1f}"/>'
        )
    elif keep < 1:
        kind = "part"
        mark = f'<text class="share" x="{middle[0] + 7:.0f}" y="{middle[1] + 4:.0f}">{keep:g}</text>'
    return f'<g class="{kind}"><path d="{path}"/>{head}{mark}</g>'


def _node(latent: Mapping[str, Any], at: tuple[float, float], family: str) -> str:
    x, y = at[0] - WIDTH / 2, at[1] - HEIGHT / 2
    trains, name = latent["trains"], escape(latent["name"])
    words = " + ".join(trains) if sum(map(len, trains)) < 26 else " + ".join(part[:12] for part in trains)
    small = (
        f'<text class="module" x="{at[0]:.0f}" y="{at[1] + 13:.0f}">{escape(words)}</text>' if trains else ""
    )
    return (
        f'<g class="node {family}"><rect x="{x:.0f}" y="{y:.0f}" width="{WIDTH}" height="{HEIGHT}" rx="7"/>'
        f'<text class="name" x="{at[0]:.0f}" y="{at[1] + (-2 if trains else 5):.0f}">{name}</text>'
        f"{small}</g>"
    )


def _key(y: float) -> str:
    return (
        f'<g class="open"><path d="M0 {y}h34"/></g>'
        f'<text class="key" x="42" y="{y + 4}">gradient passes</text>'
        f'<g class="cut"><path d="M160 {y}h34"/><path class="bar" d="M177 {y - 7}v14"/></g>'
        f'<text class="key" x="202" y="{y + 4}">values only: the gate is closed</text>'
    )


STYLE = """
.latent-graph{--paper:#fff;--ink:#1c2026;--soft:#626b78;--cut:#c4372c;--x:#7a828e;--z:#2f66b3;--h:#b06f12;
--p:#26805b;
font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
@media (prefers-color-scheme:dark){.latent-graph{--paper:#14171b;--ink:#e5e8ec;--soft:#98a1ad;--cut:#f0766b;
--x:#8f98a5;
--z:#78a9ec;--h:#dba255;--p:#5cbd93}}
.latent-graph path{fill:none;stroke:var(--soft);stroke-width:1.4}
.latent-graph .tip{fill:var(--soft);stroke:none}
.latent-graph .cut path{stroke:var(--cut);stroke-dasharray:4 4}.latent-graph .cut .tip{fill:var(--cut)}
.latent-graph .cut .bar{stroke-dasharray:none;stroke-width:2.6}
.latent-graph .part path{stroke-dasharray:9 3}
.latent-graph rect{fill:var(--paper);stroke-width:1.6}
.latent-graph .x rect{stroke:var(--x)}.latent-graph .z rect{stroke:var(--z)}
.latent-graph .h rect{stroke:var(--h)}.latent-graph .p rect{stroke:var(--p)}
.latent-graph .name{font-size:13.5px;font-weight:600;text-anchor:middle;fill:var(--ink)}
.latent-graph .module{font-size:9.6px;text-anchor:middle;fill:var(--soft)}
.latent-graph .share{font-size:11px;fill:var(--ink);stroke:var(--paper);stroke-width:4px;paint-order:stroke}
.latent-graph .key{font-size:12px;fill:var(--soft);font-family:system-ui,sans-serif}
"""
