"""A model too large for one device: each process holds a part of every parameter (PyTorch FSDP2).

A block's whole weights are gathered just before it runs and let go after; gradients are averaged as they are handed
back. What is saved is whole again: the same file as from one process.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from jepa_world_model.core.distributed import World
from jepa_world_model.core.errors import UserError


def shard(model: nn.Module, blocks: Iterable[nn.Module], world: World) -> None:
    """Replace every parameter of the model by this process's part of it; what is in no block is gathered for a whole step.

    The model must then be entered by its own `forward` (a task does so by `inside`). Buffers stay whole everywhere.
    Errors: UserError where torch is too old.
    """
    try:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard
    except ImportError:
        raise UserError(f"sharding needs torch 2.6 or newer, this is {torch.__version__}") from None
    # Keys and values leave a block as views; nothing writes into them.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
    mesh = init_device_mesh(world.device.type, (world.size,))
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def entering(model: nn.Module) -> Callable[[Callable[[], Any]], Any]:
    """How a task does its work in a sharded model: with the weights at hand, and let go when no backward pass follows."""

    def inside(work: Callable[[], Any]) -> Any:
        found = model(work)
        if not torch.is_grad_enabled():
            model.reshard()
        return found

    return inside


def shard_moments(whole: torch.optim.Optimizer, sharded: torch.optim.Optimizer) -> None:
    """Give an optimizer of sharded parameters the state of one of the whole parameters, in the same order."""
    parameters = [p for part in sharded.param_groups for p in part["params"]]
    state = {
        number: {name: part_of(value, parameters[number]) for name, value in entry.items()}
        for number, entry in whole.state_dict()["state"].items()
    }
    sharded.load_state_dict({"state": state, "param_groups": sharded.state_dict()["param_groups"]})


def part_of(value: Any, like: Tensor) -> Any:
    """This process's part of a whole tensor, cut as `like` is; the value itself where that is whole, or a single number."""
    if not isinstance(value, Tensor) or value.ndim == 0 or not hasattr(like, "full_tensor"):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


@dataclass(frozen=True)
class Whole:
    """The state of a sharded model or optimizer put together again, as an object that has it."""

    state: dict[str, Any]

    def state_dict(self) -> dict[str, Any]:
        """The whole tensors on the CPU of process 0; empty ones elsewhere."""
        return self.state


def whole(holder: Any, world: World) -> Any:
    """What a checkpoint of one process would hold; every process must call it. Alone, the holder itself.

    One tensor after the other is put together, so that a device never holds more than one whole.
    """
    return holder if world.size == 1 else Whole(whole_tensors(holder.state_dict(), world))


def whole_tensors(tree: Any, world: World) -> Any:
    """The same for tensors in nested dicts."""
    if world.size == 1:
        return tree
    if isinstance(tree, Mapping):
        return {key: whole_tensors(value, world) for key, value in tree.items()}
    if not isinstance(tree, Tensor):
        return tree
    full = tree.detach()
    full = full.full_tensor() if hasattr(full, "full_tensor") else full
    return full.cpu() if world.leads else torch.empty(0)
