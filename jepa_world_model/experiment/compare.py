"""What two configurations differ in: which loss moves which module, and every setting. No model is built."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jepa_world_model.core.config import flatten
from jepa_world_model.core.graph import Contract, Graph
from jepa_world_model.experiment.config import TrainConfig
from jepa_world_model.losses import LOSSES

APART = ("name", "output_dir", "resume", "fork")  # where a run lies and how it was started, not what it is
FROM_DATA = {"model.action_dim": 0, "model.action_kind": ""}  # the values that leave them to the data


@dataclass(frozen=True)
class Routing:
    """The routing that follows from a configuration's declarations and gates."""

    graph: Graph
    gates: dict[str, float]  # of the edges that the active losses use
    weights: dict[str, float]  # of the active losses
    reach: dict[str, frozenset[str]]  # loss -> groups it moves

    @property
    def moved(self) -> frozenset[str]:
        """The groups that any loss moves."""
        return frozenset().union(*self.reach.values())


def routing(cfg: TrainConfig) -> Routing:
    """The routing of a configuration, from its declarations alone."""
    graph, gates = cfg.graph(), cfg.edge_gates()
    losses = LOSSES.active(dataclasses.asdict(cfg.loss_weights))
    wanted = [name for loss in losses for name in loss.contract.moves + loss.contract.fixed]
    used = {f"{read}->{latent.name}" for latent in graph.closure(wanted) for read in latent.reads}
    return Routing(
        graph=graph,
        gates={edge: keep for edge, keep in gates.items() if edge in used},
        weights={loss.name: getattr(cfg.loss_weights, loss.name) for loss in losses},
        reach={loss.name: graph.contract_reach(loss.contract, gates) for loss in losses},
    )


def passages(graph: Graph, contract: Contract, gates: dict[str, float], groups: frozenset[str]) -> set[str]:
    """The open edges through which a gradient of this contract passes on its way to any of the groups."""
    found, seen, stack = set(), set(), list(contract.moves)
    while stack:
        name = stack.pop()
        if name in seen:
            continue
        seen.add(name)
        for read in graph.table[name].reads:
            edge = f"{read}->{name}"
            if gates.get(edge, 1.0) > 0 and graph.reach(read, _whole(graph, gates)) & groups:
                found.add(edge)
                stack.append(read)
    return found


def _whole(graph: Graph, gates: dict[str, float]) -> dict[str, float]:
    return dict.fromkeys(graph.edge_names, 1.0) | gates


def routing_sentences(a: TrainConfig, b: TrainConfig, names: tuple[str, str] = ("A", "B")) -> list[str]:
    """How the routing of B differs from that of A, one sentence a difference; empty when it does not."""
    one, two = routing(a), routing(b)
    second = names[1]
    found = []
    for loss in (name for name in LOSSES if name in two.reach and name not in one.reach):
        weight = two.weights[loss]
        found.append(f"{second} adds {loss} (weight {weight:g}): it moves {_list(two.reach[loss])}")
    for loss in (name for name in LOSSES if name in one.reach and name not in two.reach):
        found.append(f"{second} leaves out {loss}, which moves {_list(one.reach[loss])}")
    found += _changed(one, two, second)
    found += _narrowed(one, two, names)
    if gone := one.moved - two.moved:
        found.append(f"with {second}, no loss moves {_list(gone)} any more")
    if new := two.moved - one.moved:
        found.append(f"only with {second} does a loss move {_list(new)}")
    return found


def _changed(one: Routing, two: Routing, second: str) -> Iterable[str]:
    """Sentences for the losses that both have and that reach other modules; what differs alike shares one."""
    alike: dict[tuple[str, str, str], list[str]] = {}
    for loss in (name for name in LOSSES if name in one.reach and name in two.reach):
        contract = LOSSES[loss].contract
        if more := two.reach[loss] - one.reach[loss]:
            ways = sorted(passages(two.graph, contract, two.gates, more))
            words = [f"{edge} {_opened(edge, one, two)}" for edge in ways if one.gates.get(edge, 0.0) == 0]
            alike.setdefault(("also reach", _list(more), _brackets(words)), []).append(loss)
        if less := one.reach[loss] - two.reach[loss]:
            ways = sorted(passages(one.graph, contract, one.gates, less))
            ways = [edge for edge in ways if two.gates.get(edge, 0.0) == 0]
            words = [f"{edge} {'cut' if edge in two.gates else 'not there'}" for edge in ways]
            alike.setdefault(("no longer reach", _list(less), _brackets(words)), []).append(loss)
    for (verb, groups, why), losses in alike.items():
        yield f"with {second}, {', '.join(losses)} {verb}{'es' if len(losses) == 1 else ''} {groups}{why}"


def _opened(edge: str, one: Routing, two: Routing) -> str:
    """How an edge that lets nothing pass in the one came to let something pass in the other."""
    keep = two.gates[edge]
    return ("opened" if edge in one.gates else "new") + (f" to {keep:g}" if keep < 1 else "")


def _brackets(words: Sequence[str]) -> str:
    return f" ({', '.join(words)})" if words else ""


def _narrowed(one: Routing, two: Routing, names: tuple[str, str]) -> Iterable[str]:
    """Sentences for edges that are open in both, but let another share pass."""
    for edge, keep in two.gates.items():
        before = one.gates.get(edge, 0.0)
        if before > 0 and keep > 0 and before != keep:
            yield f"{edge} passes {keep:g} of the gradient in {names[1]}, {before:g} in {names[0]}"


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def settings_difference(a: TrainConfig, b: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """Dotted path -> (value in A, value in B) of every setting that differs.

    The place of the run does not count, nor a size that one of them leaves to the data.
    """
    one, two = flatten(a), flatten(b)
    differing = {
        path: (one.get(path), two.get(path))
        for path in dict.fromkeys([*one, *two])
        if path not in APART and one.get(path) != two.get(path)
    }
    return {path: values for path, values in differing.items() if FROM_DATA.get(path, ...) not in values}
