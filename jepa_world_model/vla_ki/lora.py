"""Low-rank adapters: frozen weights become buffers, unseen by optimizers and kept in checkpoints."""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_world_model.core.errors import UserError

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class LoraLinear(nn.Module):
    """weight x + scale * B A x, `weight` and bias as buffers, B zero at the start: the same function."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.register_buffer("weight", base.weight.detach())
        self.register_buffer("bias", None if base.bias is None else base.bias.detach())
        options = {"device": base.weight.device, "dtype": torch.float32}
        self.lora_a = nn.Parameter(torch.empty(rank, base.in_features, **options))
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, rank, **options))
        nn.init.normal_(self.lora_a, std=base.in_features**-0.5)
        self.scale = alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: [...,in] -> [...,out]."""
        y = F.linear(x, self.weight, self.bias)
        return y + self.scale * F.linear(F.linear(x, self.lora_a.to(x.dtype)), self.lora_b.to(x.dtype))

    def merged(self) -> nn.Linear:
        """One plain layer with the adapter folded in."""
        out, inputs = self.weight.shape
        plain = nn.Linear(inputs, out, bias=self.bias is not None, device=self.weight.device)
        with torch.no_grad():
            delta = self.scale * (self.lora_b @ self.lora_a)
            plain.weight = nn.Parameter((self.weight.float() + delta).to(self.weight.dtype))
            if self.bias is not None:
                plain.bias = nn.Parameter(self.bias.clone())
        return plain


def add_lora(
    module: nn.Module, *, rank: int = 16, alpha: float = 16.0, targets: Collection[str] = TARGETS
) -> list[str]:
    """Give the named linear layers below `module` adapters, freeze all the rest of it; the adapted names.

    Frozen parameters become buffers of the same name: same values, same checkpoint keys, no optimizer state.
    """
    if rank < 1:
        raise UserError(f"the rank of an adapter must be at least 1, got {rank}")
    chosen = [
        name
        for name, child in module.named_modules()
        if name.rpartition(".")[2] in targets and isinstance(child, nn.Linear)
    ]
    if not chosen:
        raise UserError(f"no linear layer is named {', '.join(sorted(targets))}: nothing to adapt")
    for name in chosen:
        parent, _, leaf = name.rpartition(".")
        owner = module.get_submodule(parent)
        setattr(owner, leaf, LoraLinear(getattr(owner, leaf), rank, alpha))
    freeze(module, keep=("lora_a", "lora_b"))
    return chosen


def freeze(module: nn.Module, *, keep: Collection[str] = ()) -> None:
    """Turn the parameters below `module` into buffers of the same name, except those named in `keep`."""
    for child in module.modules():
        for name, parameter in list(child._parameters.items()):
            if parameter is not None and name not in keep:
                del child._parameters[name]
                child.register_buffer(name, parameter.detach())


def merge_lora(module: nn.Module) -> None:
    """Fold every adapter below `module` into a plain layer with the same outputs."""
    for name, child in list(module.named_modules()):
        if isinstance(child, LoraLinear):
            parent, _, leaf = name.rpartition(".")
            setattr(module.get_submodule(parent), leaf, child.merged())
