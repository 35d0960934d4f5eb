"""The latent table: names, shapes, barriers on edges, and what may be read."""

from __future__ import annotations

import pytest
import torch

from jepa_world_model.core.errors import ContractError, UserError
from jepa_world_model.core.graph import Context, Contract, Edge, Graph, Latent, View

from .toy import Model, toy_batch, toy_graph, toy_task


def constant(shape: tuple[int, ...] = (2, 3)):
    return lambda at: torch.zeros(shape)


def run(graph: Graph, wanted, **gates):
    return graph.run(Context(Model(), toy_batch()), wanted, graph.gates(gates))


def test_a_latent_cannot_read_what_comes_later_or_does_not_exist():
    with pytest.raises(ContractError, match="did you mean 'zeta'"):
        Graph((Latent("zeta", constant()), Latent("h", constant(), reads=("zet",))))


def test_a_name_is_declared_once():
    with pytest.raises(ContractError, match="twice"):
        Graph((Latent("z", constant()), Latent("z", constant())))


def test_an_edge_with_a_typo_lists_the_real_ones():
    graph = toy_graph()
    with pytest.raises(UserError, match=r"did you mean 'features->reading'"):
        graph.gates({"feature->reading": 0.0})
    with pytest.raises(ContractError, match="features->reading"):
        Graph(graph.latents, (Edge("features", "readin", 0.0),))


@pytest.mark.parametrize("keep", [-1, 2, float("nan"), "0"])
def test_a_gate_outside_zero_to_one_names_the_edge(keep):
    with pytest.raises(UserError, match=r"features->reading.*\[0, 1\]"):
        toy_graph().gates({"features->reading": keep})


def test_later_gate_settings_win():
    gates = toy_graph().gates({"features->reading": 0.0}, {"features->reading": 0.5})
    assert gates == {"features->reading": 0.5}


def test_an_undeclared_read_in_a_latent_names_latent_and_declaration():
    graph = Graph((Latent("z", constant()), Latent("h", lambda at: at.z)))
    with pytest.raises(ContractError, match=r"'h' reads 'z', but declares reads: nothing"):
        run(graph, ["h"])


def test_an_undeclared_module_in_a_latent_is_refused():
    graph = Graph((Latent("z", lambda at: at.model.head(at.batch), trains=("body",)),))
    with pytest.raises(ContractError, match="'head', but declares trains: body"):
        run(graph, ["z"])


@pytest.mark.parametrize(("read", "words"), [
    (lambda view: view.h, "reads the latent 'h' live, but declares moves: z"),
    (lambda view: view.fixed.z, "reads the latent 'z' as a constant, but declares fixed: h"),
    (lambda view: view.model.head, "'head', but declares heads: nothing"),
    (lambda view: view.frozen.head, "'head', but declares frozen: body"),
])  # fmt: skip
def test_an_undeclared_read_in_a_loss_names_loss_and_declaration(read, words):
    states = {"z": torch.zeros(1), "h": torch.zeros(1)}
    contract = Contract(moves=("z",), fixed=("h",), frozen=("body",))
    view = View("jepa", contract, states, Context(Model(), None))
    with pytest.raises(ContractError, match="the loss 'jepa'.*" + words):
        read(view)


def test_a_fixed_latent_is_a_constant_and_a_moved_one_is_live():
    z = torch.zeros(1, requires_grad=True) * 1
    view = View("jepa", Contract(moves=("z",), fixed=("z",)), {"z": z}, Context(Model(), None))
    assert view.z.requires_grad
    assert not view.fixed.z.requires_grad


@pytest.mark.parametrize("shape", [(2, 4), (2, 3, 1), (3, 3)])
def test_a_latent_of_another_shape_is_refused(shape):
    graph = Graph((Latent("z", constant((2, 3)), shape="B T"), Latent("h", constant(shape), shape="B T")))
    with pytest.raises(ContractError, match=r"'h' declares the shape \[B T\]"):
        run(graph, ["z", "h"])


def test_offsets_in_shapes_bind_to_the_same_size():
    graph = Graph((Latent("a", constant((2, 6)), shape="B T-1"), Latent("b", constant((2, 7)), shape="B T")))
    assert set(run(graph, ["a", "b"])) == {"a", "b"}


def test_only_what_is_wanted_is_computed():
    def never(at):
        raise AssertionError("computed")

    assert set(run(Graph((Latent("z", constant()), Latent("h", never))), ["z"])) == {"z"}


def test_derived_reach_stops_at_cut_edges():
    graph = toy_graph()
    assert graph.reach("reading", graph.gates()) == {"head", "body"}
    assert graph.reach("reading", graph.gates({"features->reading": 0})) == {"head"}
    assert graph.reach("reading", graph.gates({"features->reading": 0.1})) == {"head", "body"}
    assert graph.contract_needs(Contract(moves=("reading",))) == {"head", "body"}


@pytest.mark.parametrize("keep", [0.0, 1.0])
def test_states_are_bitwise_the_same_whatever_the_gate(keep):
    assert torch.equal(
        toy_task(keep).states(toy_batch(), ["reading"])["reading"],
        toy_task(0.5).states(toy_batch(), ["reading"])["reading"],
    )
