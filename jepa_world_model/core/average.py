"""A moving average of the weights: what is evaluated and kept beside the weights that are trained."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from jepa_world_model.core.errors import UserError


class Average:
    """Exponential moving average of a model's parameters: after each step, average += (1 - decay) * (weights - average).

    decay: in (0, 1); 0.999 remembers about 1,000 steps. It starts as a copy of the weights. Buffers are not averaged.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"the decay of the weight average must lie in (0, 1), got {decay}")
        self.decay = decay
        self.values = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """One step further."""
        own = dict(model.named_parameters())
        torch._foreach_lerp_(
            list(self.values.values()), [own[name].detach() for name in self.values], 1 - self.decay
        )

    @torch.no_grad()
    def swap(self, model: nn.Module) -> None:
        """Exchange the model's weights and the averaged ones; twice is as before, bit for bit."""
        for name, parameter in model.named_parameters():
            held = parameter.detach().clone()
            parameter.copy_(self.values[name])
            self.values[name].copy_(held)

    @contextlib.contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Inside, the model has the averaged weights."""
        self.swap(model)
        try:
            yield
        finally:
            self.swap(model)

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint holds: the averaged weights by parameter name."""
        return dict(self.values)

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up where a checkpoint left off. Errors: UserError for the weights of another model."""
        odd = sorted(set(state) ^ set(self.values))
        odd += [
            name for name in self.values if name in state and state[name].shape != self.values[name].shape
        ]
        if odd:
            raise UserError(f"the averaged weights are of another model: {', '.join(odd[:8])}")
        for name, value in self.values.items():
            value.copy_(state[name])
