"""The latent graph as a picture."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from jepa_world_model.core.graph import Graph, Latent
from jepa_world_model.diagnostics.graph_picture import _crossings, _spaced, graph_json, graph_svg, latents_of
from jepa_world_model.latents import Settings, world_graph
from jepa_world_model.model_config import ModelConfig

GRAPH = Graph((
    Latent("x", None), Latent("z", None, ("x",), ("encoder",)), Latent("h", None, ("z",), ("predictor",)),
    Latent("p", None, ("z", "h")), Latent("alone", None),
))  # fmt: skip


def test_edges_are_drawn_open_cut_or_in_part():
    picture = graph_svg(GRAPH, GRAPH.gates({"z->h": 0.0, "h->p": 0.25}))
    ElementTree.fromstring(picture)
    kinds = re.findall(r'<g class="(open|cut|part)"><path', picture)
    assert sorted(kinds) == ["cut", "cut", "open", "open", "open", "part"]  # one of each kind is the key's
    assert ">0.25<" in picture
    assert all(f">{latent.name}<" in picture for latent in GRAPH)


def test_only_what_is_wanted_is_drawn():
    picture = graph_svg(GRAPH, GRAPH.gates(), wanted=("z",))
    assert ">z<" in picture
    assert ">p<" not in picture
    assert graph_json(GRAPH, GRAPH.gates(), ("z",))["gates"] == {"x->z": 1.0}


def test_a_table_of_gates_is_enough():
    told = latents_of(GRAPH.gates())
    assert {row["name"]: row["reads"] for row in told} == {"x": [], "z": ["x"], "h": ["z"], "p": ["z", "h"]}
    ElementTree.fromstring(graph_svg(told, GRAPH.gates()))


def test_the_world_graph_has_a_picture():
    graph = world_graph(Settings(model=ModelConfig()))
    root = ElementTree.fromstring(graph_svg(graph, graph.gates()))
    boxes = root.findall(".//{http://www.w3.org/2000/svg}rect")
    assert len(boxes) == len(graph.latents)
    spots = [(float(b.get("x")), float(b.get("y"))) for b in boxes]
    for i, (x, y) in enumerate(spots):  # no box lies on another
        assert all(abs(x - u) >= 150 or abs(y - v) >= 40 for u, v in spots[:i])


def test_crossings_are_counted():
    assert _crossings([["a", "b"], ["c", "d"]], [("a", "d"), ("b", "c")]) == 1
    assert _crossings([["a", "b"], ["c", "d"]], [("a", "c"), ("b", "d")]) == 0


@pytest.mark.parametrize(
    ("wish", "expected"), [([0, 100], [0, 100]), ([50, 50], [40, 60]), ([100, 0], [40, 60])]
)
def test_places_keep_their_distance(wish, expected):
    assert _spaced(wish, [1.0, 1.0], [0.0, 20.0]) == expected
