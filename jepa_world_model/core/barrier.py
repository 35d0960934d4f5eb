"""Gradient barriers, and the measurements that show what they let through. Shared by every pipeline."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

Groups = Mapping[str, Mapping[str, nn.Parameter]]  # group -> parameter name -> parameter

_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device)


def map_tree(function: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """The same tree with `function` applied to every tensor in it.

    Trees are tensors, tuples (named ones too), lists, dicts and dataclasses of trees; plain values pass as they are.
    Errors: TypeError for any other object, since a tensor hidden in it would slip through a barrier unseen.
    """
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, _PLAIN):
        return tree
    if isinstance(tree, tuple):
        mapped = [map_tree(function, item) for item in tree]
        return type(tree)(*mapped) if hasattr(tree, "_fields") else tuple(mapped)
    if isinstance(tree, list):
        return [map_tree(function, item) for item in tree]
    if isinstance(tree, Mapping):
        return {key: map_tree(function, item) for key, item in tree.items()}
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        fields = {
            f.name: map_tree(function, getattr(tree, f.name)) for f in dataclasses.fields(tree) if f.init
        }
        return dataclasses.replace(tree, **fields)
    raise TypeError(
        f"a barrier cannot look inside a {type(tree).__name__}; pass tensors, tuples, lists, dicts or dataclasses"
    )


def stop(tree: Any) -> Any:
    """The same values as constants: no gradient passes. Works on any tree of `map_tree`."""
    return map_tree(Tensor.detach, tree)


class _ScaleGradient(torch.autograd.Function):
    generate_vmap_rule = True  # so that several losses can be differentiated in one batched call

    @staticmethod
    def forward(x: Tensor, keep: float) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        ctx.keep = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.keep, None


def check_keep(keep: float, where: str) -> float:
    """`keep` as a float in [0, 1]. Errors: ValueError that names `where` the value was set."""
    if isinstance(keep, bool) or not isinstance(keep, (int, float)) or not 0 <= keep <= 1:
        raise ValueError(f"{where}: a gate must lie in [0, 1] (0 cuts, 1 opens), got {keep!r}")
    return float(keep)


def gate(tree: Any, keep: float) -> Any:
    """The same values, bitwise, with the share `keep` of the gradient passing.

    keep 1 returns the tree itself; keep 0 takes the plain `stop` path, so nothing upstream is even visited.
    Errors: ValueError for keep outside [0, 1].
    """
    keep = check_keep(keep, "gate")
    if keep == 1.0:
        return tree
    if keep == 0.0:
        return stop(tree)
    return map_tree(lambda x: _ScaleGradient.apply(x, keep) if x.is_floating_point() else x, tree)


def frozen(module: nn.Module) -> Callable[..., Any]:
    """A call of `module` whose gradient reaches the inputs and never the parameters.

    By `torch.func.functional_call` on constants: `requires_grad` is never toggled, so other uses of the module in the
    same graph keep their gradients. Buffers are copied, so a frozen call never changes the module's state.
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        constants = {name: parameter.detach() for name, parameter in module.named_parameters()}
        constants |= {name: buffer.clone() for name, buffer in module.named_buffers()}
        return functional_call(module, constants, args, kwargs)

    return call


@dataclass(frozen=True)
class Reach:
    """What one loss reaches, measured two ways."""

    structural: frozenset[
        str
    ]  # groups with a leaf in the autograd graph: immune to weights that happen to be zero
    numeric: dict[
        str, float | None
    ]  # gradient norm a group; None: no path, 0.0: a path that carries exactly nothing
    untouched: dict[str, tuple[str, ...]]  # parameters without a path, in groups that have one
    strangers: tuple[tuple[int, ...], ...]  # shapes of the leaves that want a gradient but are in no group

    @property
    def moved(self) -> frozenset[str]:
        """The groups whose gradient norm is not zero."""
        return frozenset(name for name, norm in self.numeric.items() if norm)


def leaves(loss: Tensor) -> set[Tensor]:
    """The tensors that a backward pass from `loss` would write a gradient to, by walking the autograd graph."""
    found: set[Tensor] = set()
    if loss.grad_fn is None:
        return {loss} if loss.requires_grad else found
    seen, stack = {loss.grad_fn}, [loss.grad_fn]
    while stack:
        node = stack.pop()
        variable = getattr(node, "variable", None)
        if variable is not None:
            found.add(variable)
        for child, _ in node.next_functions:
            if child is not None and child not in seen:
                seen.add(child)
                stack.append(child)
    return found


def joint_norm(tensors: Iterable[Tensor]) -> Tensor:
    """The 2-norm of several tensors as one vector, in fp32, on the device; of all parts where they are sharded."""
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm([t.float() for t in tensors])))
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm


def reach(losses: Mapping[str, Tensor], groups: Groups, *, numeric: bool = True) -> dict[str, Reach]:
    """What each loss reaches among the parameter groups, structurally and, with `numeric`, by gradient norms.

    Takes scalar losses of one forward pass (their graphs are kept), changes no `.grad`. Cost: one backward a loss,
    none without `numeric`, whose norms are then all None.
    """
    flat = [(group, name, p) for group, members in groups.items() for name, p in members.items()]
    known = {id(p) for _, _, p in flat}
    result = {}
    for loss_name, loss in losses.items():
        found = leaves(loss)
        hit = {id(leaf) for leaf in found}
        structural = frozenset(group for group, _, p in flat if id(p) in hit)
        grads: Sequence[Tensor | None] = [None] * len(flat)
        if numeric and found and flat:
            grads = torch.autograd.grad(loss, [p for *_, p in flat], retain_graph=True, allow_unused=True)
        norms: dict[str, float | None] = {}
        for group in groups:
            mine = [g for (owner, *_), g in zip(flat, grads, strict=True) if owner == group and g is not None]
            norms[group] = float(joint_norm(mine)) if mine else None
        untouched = {
            group: names
            for group in groups
            if group in structural
            and (names := tuple(name for owner, name, p in flat if owner == group and id(p) not in hit))
        }
        strangers = tuple(tuple(leaf.shape) for leaf in found if id(leaf) not in known)
        result[loss_name] = Reach(structural, norms, untouched, strangers)
    return result


def _present(members: Mapping[str, nn.Parameter]) -> list[Tensor]:
    return [p.grad for p in members.values() if p.grad is not None]


def grad_norms(groups: Groups) -> dict[str, Tensor]:
    """The 2-norm of `.grad` of each group that has one: scalars in fp32, on the device, no synchronisation."""
    return {name: joint_norm(grads) for name, members in groups.items() if (grads := _present(members))}


def clip_grad_groups(groups: Groups, max_norm: float) -> dict[str, Tensor]:
    """Scale the gradients of each group so that its own norm is at most `max_norm`; the norms before are returned.

    Per group, never global: one norm over all groups would couple parts that a barrier has just separated.
    max_norm: a positive number; math.inf measures without clipping. No synchronisation with the host.
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm must be above 0 (inf: no clipping), got {max_norm}")
    norms = grad_norms(groups)
    if math.isinf(max_norm):
        return norms
    for name, norm in norms.items():
        torch._foreach_mul_(_present(groups[name]), (max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norms
