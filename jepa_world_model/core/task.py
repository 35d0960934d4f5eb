"""What an engine trains: a model, a latent table, the losses that are on, and the gates between them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from jepa_world_model.core.barrier import stop
from jepa_world_model.core.distributed import ALONE, World
from jepa_world_model.core.errors import UserError
from jepa_world_model.core.graph import Context, Graph, View
from jepa_world_model.core.losses import Loss, Registry, Schedule, Sizes, evaluate, weighted_sum
from jepa_world_model.core.rng import Streams


def needed_groups(graph: Graph, losses: Collection[Loss]) -> frozenset[str]:
    """The parameter groups that these losses need; nothing else has to be built."""
    return frozenset().union(*(graph.contract_needs(loss.contract) for loss in losses))


def parameter_groups(model: nn.Module) -> dict[str, dict[str, nn.Parameter]]:
    """Parameters by group: one group a child module, its name first in every parameter's name."""
    groups: dict[str, dict[str, nn.Parameter]] = {name: {} for name, _ in model.named_children()}
    for name, parameter in model.named_parameters():
        group = name.partition(".")[0]
        if group not in groups:
            raise UserError(
                f"the parameter {name!r} belongs to no group; every parameter must live in a child module"
            )
        groups[group][name] = parameter
    return groups


def _call(work: Callable[[], Any]) -> Any:
    return work()


class Task:
    """Model, latent table, active losses with weights, and gates: everything a step needs except the data.

    graph: the latent table; gates: every edge's share, as `Graph.gates` returns it. settings: passed to latents and
    losses as they are. options: an object with one attribute a loss that has options. streams: the random streams;
    a loss that draws takes `view.generator(name)`, a function of (seed, name, step) alone. schedules: the share of a
    loss's weight over the steps. normalize: divide each loss by a running mean of its own size. world: the processes that
    share each batch; the terms are then those of this process, and their mean over processes is that of the whole batch.
    inside: calls the work of a step; a sharded model does it in its own forward pass, where its weights are at hand.
    Errors: UserError when no loss is on; ContractError when a contract names what does not exist.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: Graph,
        registry: Registry,
        *,
        weights: Mapping[str, float],
        gates: Mapping[str, float],
        settings: Any = None,
        options: Any = None,
        streams: Streams | None = None,
        autocast: Callable[[], AbstractContextManager] = nullcontext,
        schedules: Mapping[str, Schedule] | None = None,
        normalize: bool = False,
        world: World = ALONE,
        inside: Callable[[Callable[[], Any]], Any] = _call,
    ) -> None:
        registry.check(graph)
        self.model, self.graph, self.registry = model, graph, registry
        self.weights = {name: float(weight) for name, weight in weights.items()}
        self.gates, self.settings, self.options = dict(gates), settings, options
        self.streams, self.autocast = streams or Streams(0), autocast
        self.world, self.inside = world, inside
        self.losses = registry.active(self.weights)
        if not self.losses:
            raise UserError(
                "every loss weight is 0: nothing would train; set at least one of --loss-weights.* above 0"
            )
        self.groups = parameter_groups(model)
        self.wanted = tuple(
            dict.fromkeys(n for x in self.losses for n in x.contract.moves + x.contract.fixed)
        )
        self.schedules = dict(schedules or {})
        for name in self.schedules:
            registry[name]  # an unknown name is an error here, not a schedule without effect
        self.sizes = Sizes(len(self.losses)) if normalize else None
        self._weight_row: tuple[tuple[float, ...], Tensor] | None = None

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return next(self.model.parameters()).device

    def alone(self) -> Task:
        """The same task without other processes: for what one of them measures by itself."""
        twin = copy.copy(self)
        twin.world = ALONE
        return twin

    def with_model(self, model: nn.Module) -> Task:
        """The same task on another model of the same shape."""
        parts = {
            key: getattr(self, key)
            for key in ("weights", "gates", "settings", "options", "streams", "autocast", "schedules")
        }
        return Task(model, self.graph, self.registry, **parts)

    def context(self, batch: Any, step: int = 0) -> Context:
        """What latents and losses of one step may read besides latents."""
        return Context(self.model, batch, self.settings, self.draws(step), self.world)

    def draws(self, step: int) -> Callable[[str], torch.Generator]:
        """Each name's random stream of one step."""
        return partial(self.streams.torch, step=step, device=self.device)

    def states(self, batch: Any, names: Collection[str], step: int = 0) -> dict[str, Any]:
        """The named latents and all they need, under this task's gates."""
        return self.graph.run(self.context(batch, step), names, self.gates, self.autocast)

    def terms(self, batch: Any, step: int = 0) -> dict[str, Tensor]:
        """Every active loss as a scalar: latents under autocast, losses in fp32, each latent computed once."""

        return self.inside(lambda: self.terms_in(self.context(batch, step)))

    def terms_in(self, context: Context) -> dict[str, Tensor]:
        """The same in a given context."""
        states = self.graph.run(context, self.wanted, self.gates, self.autocast)
        return evaluate(self.losses, lambda loss: self.view(loss, states, context))

    def view(self, loss: Loss, states: Mapping[str, Any], context: Context) -> View:
        """What one loss may see of these states."""
        return View(loss.name, loss.contract, states, context, getattr(self.options, loss.name, None))

    def total(self, terms: Mapping[str, Tensor], step: int = 0) -> tuple[Tensor, Tensor]:
        """The weighted sum that is differentiated, and the weighted terms as constants [len(terms)]."""
        raw = torch.stack([term.float() for term in terms.values()])
        weights = self.weight_row(tuple(terms), step, raw.device)
        if self.sizes:
            weights = weights / self.sizes.update(self.world.average(stop(raw)))
        return weighted_sum(raw, weights)

    def weight(self, name: str, step: int = 0) -> float:
        """The weight of a loss at a step."""
        return self.weights[name] * (self.schedules[name].share(step) if name in self.schedules else 1.0)

    def weight_row(self, names: tuple[str, ...], step: int, device: torch.device) -> Tensor:
        """The weights at a step [len(names)], sent to the device only when they change."""
        row = tuple(self.weight(name, step) for name in names)
        if self._weight_row is None or self._weight_row[0] != row or self._weight_row[1].device != device:
            self._weight_row = (row, torch.tensor(row, device=device))
        return self._weight_row[1]

    def derived(self) -> dict[str, frozenset[str]]:
        """The parameter groups each active loss moves, by the declarations and gates alone."""
        return {loss.name: self.graph.contract_reach(loss.contract, self.gates) for loss in self.losses}
