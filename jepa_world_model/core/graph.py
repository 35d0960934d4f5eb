"""Latents, edges and contracts: who may read what, who may move what, and the forward pass that follows from it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from jepa_world_model.core.barrier import check_keep, frozen, gate, map_tree, stop
from jepa_world_model.core.distributed import ALONE, World
from jepa_world_model.core.errors import ContractError, UserError


@dataclass(frozen=True)
class Latent:
    """A row of the forward pass: how a state is made, from which states, with which parameter groups.

    `compute` receives a `Scope`: it may read the declared latents (through their edges' barriers) and call the declared
    modules; anything else is a ContractError. `shape` is written "B T-1 Dz"; names bind at the first latent that bears them.
    """

    name: str
    compute: Callable[[Scope], Any]
    reads: tuple[str, ...] = ()
    trains: tuple[str, ...] = ()
    shape: str = ""
    # cast the result to fp32 under autocast; off for large caches that are read in low precision
    fp32: bool = True


@dataclass(frozen=True)
class Edge:
    """Latent to latent, with the share of the gradient that passes when nobody says otherwise."""

    source: str
    target: str
    keep: float = 1.0

    @property
    def name(self) -> str:
        """The edge as users write it: "z->h"."""
        return f"{self.source}->{self.target}"


@dataclass(frozen=True)
class Contract:
    """What a loss moves, what it reads as constants, and which parameter groups it uses besides."""

    moves: tuple[str, ...] = ()  # latents the gradient flows into
    fixed: tuple[str, ...] = ()  # latents read as constants
    heads: tuple[str, ...] = ()  # parameter groups of its own, trained by it
    frozen: tuple[str, ...] = ()  # parameter groups it calls without moving them


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """One sentence for a name that does not exist: what was meant, perhaps, and what there is."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    guess = f"; did you mean {near[0]!r}?" if near else ""
    return f"there is no {kind} {name!r}{guess} (known: {', '.join(known) or 'none'})"


class _Modules:
    """The declared modules, by attribute; `wrap` decides how they are called."""

    def __init__(
        self, owner: str, model: nn.Module, allowed: tuple[str, ...], word: str, wrap: Callable | None
    ):
        self._parts = (owner, model, allowed, word, wrap)

    def __getattr__(self, name: str) -> Any:
        owner, model, allowed, word, wrap = self._parts
        if name not in allowed:
            declared = ", ".join(allowed) or "nothing"
            raise ContractError(f"{owner} calls the module {name!r}, but declares {word}: {declared}")
        module = getattr(model, name)
        return wrap(module) if wrap else module


class _Constants:
    """The latents that a contract declares as fixed, by attribute."""

    def __init__(self, owner: str, states: Mapping[str, Any], allowed: tuple[str, ...]):
        self._parts = (owner, states, allowed)

    def __getattr__(self, name: str) -> Any:
        owner, states, allowed = self._parts
        if name not in allowed:
            raise ContractError(
                f"{owner} reads the latent {name!r} as a constant, but declares fixed: {', '.join(allowed) or 'nothing'}"
            )
        return stop(states[name])


@dataclass(frozen=True)
class Context:
    """What every latent and every loss of one step may read besides latents."""

    model: nn.Module
    batch: Any
    settings: Any = None  # the pipeline's own constants: sizes, horizons, switches
    generator: Callable[[str], torch.Generator] | None = None  # name -> random stream of this step
    world: World = ALONE  # the processes that share the batch


class Scope:
    """What the compute function of a latent sees: `scope.z` through its edge, `scope.model.encoder`, `scope.batch`."""

    def __init__(
        self, latent: Latent, states: Mapping[str, Any], gates: Mapping[str, float], context: Context
    ):
        self._parts = (latent, states, gates)
        self.batch, self.settings, self.generator = context.batch, context.settings, context.generator
        self.world = context.world
        self.model = _Modules(f"the latent {latent.name!r}", context.model, latent.trains, "trains", None)

    def __getattr__(self, name: str) -> Any:
        latent, states, gates = self._parts
        if name not in latent.reads:
            raise ContractError(
                f"the latent {latent.name!r} reads {name!r}, but declares reads: {', '.join(latent.reads) or 'nothing'}"
            )
        return gate(states[name], gates[f"{name}->{latent.name}"])


class View:
    """What a loss sees: `view.h` live if its contract moves h, `view.fixed.h` constant if it fixes h; nothing else."""

    def __init__(
        self, loss: str, contract: Contract, states: Mapping[str, Any], context: Context, options: Any = None
    ):
        owner = f"the loss {loss!r}"
        self._parts = (owner, contract, states)
        self.batch, self.settings, self.options = context.batch, context.settings, options
        self.generator, self.world = context.generator, context.world
        self.fixed = _Constants(owner, states, contract.fixed)
        self.model = _Modules(owner, context.model, contract.heads, "heads", None)
        self.frozen = _Modules(owner, context.model, contract.frozen, "frozen", frozen)

    def __getattr__(self, name: str) -> Any:
        owner, contract, states = self._parts
        if name not in contract.moves:
            raise ContractError(
                f"{owner} reads the latent {name!r} live, but declares moves: {', '.join(contract.moves) or 'nothing'}"
            )
        return states[name]


@dataclass(frozen=True)
class Graph:
    """The latent table of a pipeline, in computing order, with the edges whose barrier is part of the design.

    Errors: ContractError at construction for a name used twice, or a read of a latent that is not declared before.
    """

    latents: tuple[Latent, ...]
    edges: tuple[Edge, ...] = ()  # only those whose default differs from open
    table: dict[str, Latent] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        for latent in self.latents:
            if latent.name in self.table:
                raise ContractError(f"the latent {latent.name!r} is declared twice")
            for read in latent.reads:
                if read not in self.table:
                    raise ContractError(
                        f"the latent {latent.name!r} reads: {unknown('earlier latent', read, self.table)}"
                    )
            self.table[latent.name] = latent
        names = self.edge_names
        for edge in self.edges:
            if edge.name not in names:
                raise ContractError(unknown("edge", edge.name, names))

    @property
    def edge_names(self) -> tuple[str, ...]:
        """Every edge, written "z->h"."""
        return tuple(f"{read}->{latent.name}" for latent in self.latents for read in latent.reads)

    def gates(self, *settings: Mapping[str, float]) -> dict[str, float]:
        """Every edge's share of the gradient: open, then the table's own edges, then each of `settings`, later ones win.

        Errors: UserError for an edge that does not exist (with the real ones) or a share outside [0, 1].
        """
        gates = dict.fromkeys(self.edge_names, 1.0) | {edge.name: edge.keep for edge in self.edges}
        for setting in settings:
            for name, keep in setting.items():
                if name not in gates:
                    raise UserError(f"gates: {unknown('edge', name, gates)}")
                try:
                    gates[name] = check_keep(keep, f"gates.{name!r}")
                except ValueError as error:
                    raise UserError(str(error)) from None
        return gates

    def closure(self, names: Iterable[str]) -> tuple[Latent, ...]:
        """The latents that must be computed for `names`, in order. Errors: ContractError for an unknown name."""
        needed, stack = set(), list(names)
        while stack:
            name = stack.pop()
            if name not in self.table:
                raise ContractError(unknown("latent", name, self.table))
            if name not in needed:
                needed.add(name)
                stack.extend(self.table[name].reads)
        return tuple(latent for latent in self.latents if latent.name in needed)

    def run(
        self,
        context: Context,
        wanted: Collection[str],
        gates: Mapping[str, float],
        autocast: Callable[[], AbstractContextManager] = nullcontext,
    ) -> dict[str, Any]:
        """The wanted latents and all they need, each computed once, every read through its edge's barrier."""
        states: dict[str, Any] = {}
        sizes: dict[str, int] = {}
        with autocast():
            for latent in self.closure(wanted):
                value = latent.compute(Scope(latent, states, gates, context))
                states[latent.name] = map_tree(_to_fp32, value) if latent.fp32 else value
                if latent.shape:
                    _bind(latent, states[latent.name], sizes)
        return states

    def reach(self, name: str, gates: Mapping[str, float]) -> frozenset[str]:
        """The parameter groups that a gradient into this latent reaches, by the declarations alone."""
        latent = self.table[name]
        groups = set(latent.trains)
        for read in latent.reads:
            if gates[f"{read}->{name}"] > 0:
                groups |= self.reach(read, gates)
        return frozenset(groups)

    def contract_reach(self, contract: Contract, gates: Mapping[str, float]) -> frozenset[str]:
        """The parameter groups that a loss with this contract moves, by the declarations alone."""
        return frozenset(contract.heads).union(*(self.reach(name, gates) for name in contract.moves))

    def contract_needs(self, contract: Contract) -> frozenset[str]:
        """The parameter groups that must exist to evaluate a loss with this contract."""
        latents = self.closure(contract.moves + contract.fixed)
        return frozenset(contract.heads + contract.frozen).union(*(latent.trains for latent in latents))

    def __iter__(self) -> Iterator[Latent]:
        return iter(self.latents)


def _to_fp32(x: Tensor) -> Tensor:
    return x.float() if x.is_floating_point() else x


def _bind(latent: Latent, value: Any, sizes: dict[str, int]) -> None:
    """Check a latent against its declared shape. Errors: ContractError with the shape and the sizes bound so far."""
    words = latent.shape.split()
    shape = tuple(value.shape) if isinstance(value, Tensor) else None
    good = shape is not None and len(shape) == len(words)
    for word, size in zip(words, shape or (), strict=False):
        base, minus, offset = word.partition("-")
        bound = int(base) if base.isdigit() else sizes.setdefault(base, size + (int(offset) if minus else 0))
        good = good and size == bound - (int(offset) if minus else 0)
    if not good:
        got = shape if shape is not None else type(value).__name__
        raise ContractError(
            f"the latent {latent.name!r} declares the shape [{latent.shape}] with {sizes}, but is {got}"
        )


def graph_json(graph: Graph, gates: Mapping[str, float], wanted: Collection[str] = ()) -> dict[str, Any]:
    """What graph.json holds: `latents` (name, reads, trains, in computing order) and `gates` (edge to share).

    wanted: keep to these latents and all they need, such as a task's `wanted`; empty: all.
    """
    rows = graph.closure(wanted) if wanted else graph.latents
    latents = [{"name": x.name, "reads": list(x.reads), "trains": list(x.trains)} for x in rows]
    edges = [f"{read}->{x.name}" for x in rows for read in x.reads]
    return {"latents": latents, "gates": {edge: gates[edge] for edge in edges}}
