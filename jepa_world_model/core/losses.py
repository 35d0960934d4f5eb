"""The registry of losses: a contract, a function and options, side by side; and their weighted sum."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jepa_world_model.core.barrier import stop
from jepa_world_model.core.errors import ContractError, UserError
from jepa_world_model.core.graph import Contract, Graph, View, unknown


@dataclass(frozen=True)
class Loss:
    """One row of the loss table."""

    name: str
    family: str
    contract: Contract
    function: Callable[[View], Tensor]  # View -> scalar
    options: type | None = None  # a frozen dataclass of the loss's own settings
    trivial: str = ""  # the score of a model that solves it without learning, where there is one

    @property
    def claim(self) -> str:
        """The first line of the function's docstring."""
        return (inspect.getdoc(self.function) or "").split("\n")[0]


class Registry(Mapping[str, Loss]):
    """Losses by name, in the order of declaration. Use as a decorator:

    @LOSSES("jepa", family="core", moves=("z_hat",), fixed=("z",))
    def jepa(view): ...
    """

    def __init__(self) -> None:
        self._losses: dict[str, Loss] = {}

    def __call__(
        self,
        name: str,
        *,
        family: str,
        options: type | None = None,
        trivial: str = "",
        **contract: tuple[str, ...],
    ) -> Callable[[Callable[[View], Tensor]], Callable[[View], Tensor]]:
        """Register the decorated function under `name`; `contract` holds moves, fixed, heads, frozen."""

        def register(function: Callable[[View], Tensor]) -> Callable[[View], Tensor]:
            if name in self._losses:
                raise ContractError(f"the loss {name!r} is declared twice")
            for key, value in contract.items():
                if not isinstance(value, tuple):
                    raise ContractError(f"the loss {name!r} declares {key}={value!r}; write a tuple of names")
            loss = Loss(name, family, Contract(**contract), function, options, trivial)
            if not loss.claim:
                raise ContractError(
                    f"the loss {name!r} needs a docstring: its first line is its claim in every table"
                )
            self._losses[name] = loss
            return function

        return register

    def __getitem__(self, name: str) -> Loss:
        if name not in self._losses:
            raise UserError(unknown("loss", name, self._losses))
        return self._losses[name]

    def __contains__(self, name: object) -> bool:
        return name in self._losses

    def __iter__(self) -> Iterator[str]:
        return iter(self._losses)

    def __len__(self) -> int:
        return len(self._losses)

    def check(self, graph: Graph) -> None:
        """Hold every contract against the latent table. Errors: ContractError naming loss and latent."""
        for loss in self._losses.values():
            for latent in loss.contract.moves + loss.contract.fixed:
                if latent not in graph.table:
                    raise ContractError(f"the loss {loss.name!r}: {unknown('latent', latent, graph.table)}")

    def active(self, weights: Mapping[str, float | Callable]) -> tuple[Loss, ...]:
        """The losses with a weight above 0, in the order of `weights`.

        Errors: UserError for an unknown name, a negative or non-finite weight.
        """
        for name, weight in weights.items():
            if name not in self._losses:
                raise UserError(f"loss_weights: {unknown('loss', name, self._losses)}")
            if isinstance(weight, bool) or not math.isfinite(weight) or weight < 0:
                raise UserError(
                    f"loss_weights.{name} must be a finite number, 0 (off) or above, got {weight}"
                )
        return tuple(self._losses[name] for name, weight in weights.items() if weight > 0)

    def options_type(self, name: str) -> type:
        """A frozen dataclass with one field a loss that has options, each defaulting to that loss's own defaults."""
        fields = [
            (loss.name, loss.options, dataclasses.field(default_factory=loss.options))
            for loss in self._losses.values()
            if loss.options is not None
        ]
        made = dataclasses.make_dataclass(name, fields, frozen=True, kw_only=True)
        made.__doc__ = "The options of the losses that have any; one table a loss."
        return made


def evaluate(losses: tuple[Loss, ...], view_of: Callable[[Loss], View]) -> dict[str, Tensor]:
    """Every loss as a scalar tensor. Errors: ContractError for a result that is not a scalar."""
    terms: dict[str, Any] = {}
    for loss in losses:
        terms[loss.name] = term = loss.function(view_of(loss))
        if not isinstance(term, Tensor) or term.dim() != 0:
            shape = tuple(term.shape) if isinstance(term, Tensor) else type(term).__name__
            raise ContractError(f"the loss {loss.name!r} must return a scalar tensor, got {shape}")
    return terms


SCHEDULES = ("constant", "ramp", "cosine")


@dataclass(frozen=True)
class Schedule:
    """The share of a loss's weight over the steps: `begin` until `start`, 1 from `end` on, between them by `kind`."""

    kind: str = "constant"
    start: int = 0
    end: int = 0
    begin: float = 0.0

    @classmethod
    def parse(cls, text: str, where: str = "schedule") -> Schedule:
        """From "constant", "ramp:START:END" or "cosine:START:END", with an optional ":BEGIN" share. Errors: UserError."""
        kind, *numbers = text.split(":")
        try:
            if kind not in SCHEDULES or len(numbers) != (
                0 if kind == "constant" else max(2, min(3, len(numbers)))
            ):
                raise ValueError
            made = cls(kind, *(int(n) for n in numbers[:2]), *(float(n) for n in numbers[2:]))
            if not (0 <= made.start <= made.end and math.isfinite(made.begin) and made.begin >= 0):
                raise ValueError
        except ValueError:
            raise UserError(
                f"{where} is {text!r}; write constant, ramp:START:END or cosine:START:END in steps, START <= END, "
                "and the share to begin with as a fourth part if it is not 0"
            ) from None
        return made

    def share(self, step: int) -> float:
        """The factor on the weight at this step."""
        if self.kind == "constant" or step >= self.end:
            return 1.0
        done = max(0.0, (step - self.start) / max(1, self.end - self.start))
        if self.kind == "cosine":
            done = (1 - math.cos(math.pi * done)) / 2
        return self.begin + (1 - self.begin) * done


class Sizes:
    """A running mean of each loss's own size, on the device: divided by it, losses of unlike scale weigh alike."""

    def __init__(self, count: int, decay: float = 0.99) -> None:
        self.mean, self.seen, self.decay = torch.zeros(count), torch.zeros(count), decay

    def update(self, raw: Tensor) -> Tensor:
        """Take in the raw losses [n] of a step; the sizes [n] so far, free of the bias of the zero start."""
        mean, seen = self.mean.to(raw.device), self.seen.to(raw.device)
        self.mean, self.seen, sizes = self.after(mean, seen, stop(raw))
        return sizes

    def after(self, mean: Tensor, seen: Tensor, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What `mean` and `seen` become with the raw losses [n] of one more step, and the sizes [n] by then."""
        sound = torch.isfinite(raw).all()  # a step that will be skipped must not poison the mean
        mean = torch.where(sound, mean.lerp(raw.abs(), 1 - self.decay), mean)
        seen = seen + sound
        return mean, seen, (mean / (1 - self.decay ** seen.clamp(min=1))).clamp(min=1e-8)

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint holds."""
        return {"mean": self.mean, "seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up where a checkpoint left off."""
        self.mean, self.seen = state["mean"].clone(), state["seen"].clone()


def weighted_sum(raw: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The total that is differentiated, and the weighted terms as constants.

    Shapes: raw, weights [n], on one device -> total [], weighted [n]. One product, however many losses: the gradient of
    term i is exactly its weight.
    """
    weighted = raw * weights
    return weighted.sum(), stop(weighted)
