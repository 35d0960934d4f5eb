"""Several processes as one: what a loss may ask of the whole batch, and gradients that are those of it.

Each of W processes holds an equal share of the rows of one global batch and computes its losses on them. What is
trained is the mean over processes of what each one computes, and every exchange here carries its exact adjoint
back, so a loss that is written with `gather`, `total` and `average` has the value and the gradient that one
process would have on the whole batch. A plain mean over rows needs none of them: the mean of equal shares' means
is the mean. A process that is alone (`ALONE`) gets everything back as it is, and pays nothing.

Gradients are averaged by hand after the backward pass, in buckets, and not by DistributedDataParallel: DDP
prepares a step in `model.forward`, and a task calls the modules of its latents instead, one of them perhaps many
times (a rollout), another not at all; DDP would have to search the graph for unused parameters every step, and its
clipping and hooks know nothing of groups. Here, which parameters get a gradient is agreed once, before anything is
sent: a group that no loss moves is left out by all, so nothing waits for it. What is given up is that DDP sends while
the backward pass still runs; docs/scaling.md says what that costs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

CPU = torch.device("cpu")
BUCKET_BYTES = 32 << 20  # sent while the next one is being filled


class _Gather(torch.autograd.Function):
    """Equal parts of all processes, one after the other; back goes the sum of what every process found."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, world: World) -> Tensor:
        ctx.world, ctx.rows = world, x.shape[0]
        out = x.new_empty(world.size, *x.shape)
        dist.all_gather(list(out.unbind()), x.contiguous())
        return out.flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        whole = grad.contiguous().clone()
        dist.all_reduce(whole)
        return ctx.world.mine(whole), None


class _Total(torch.autograd.Function):
    """The sum over processes; its adjoint is the same sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        out = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(out)
        return out


@dataclass(frozen=True)
class World:
    """The processes of a training, seen from one of them. They all call the same methods in the same order."""

    rank: int = 0  # 0 writes
    size: int = 1
    local_rank: int = 0  # number on this machine; its GPU has the same
    device: torch.device = CPU
    _buckets: list[_Bucket] = field(default_factory=list, repr=False, compare=False)
    _asked: list[tuple[Tensor, Any]] = field(default_factory=list, repr=False, compare=False)

    @property
    def leads(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    # ---- for losses: with gradient ----

    def gather(self, x: Tensor) -> Tensor:
        """The rows of all processes in the order of the global batch: [n,...] -> [W*n,...]."""
        return x if self.size == 1 else _Gather.apply(x, self)

    def total(self, x: Tensor) -> Tensor:
        """The sum over processes, of the same shape."""
        return x if self.size == 1 else _Total.apply(x)

    def average(self, x: Tensor) -> Tensor:
        """The mean over processes, of the same shape."""
        return x if self.size == 1 else _Total.apply(x) / self.size

    def mine(self, x: Tensor) -> Tensor:
        """This process's rows of what was made for the whole batch: [W*n,...] -> [n,...]."""
        share = x.shape[0] // self.size
        return x if self.size == 1 else x[self.rank * share : (self.rank + 1) * share]

    def split(self, x: Tensor) -> tuple[Tensor, float]:
        """This process's columns of what every process holds alike, and the weight of a mean over them.

        For work on the whole batch that would otherwise be done W times over: [...,M] -> [...,about M/W]. Where there are
        fewer columns than processes, each does it all.
        """
        if self.size == 1 or x.shape[-1] < self.size:
            return x, 1.0
        part = x.tensor_split(self.size, -1)[self.rank]
        return part, part.shape[-1] * self.size / x.shape[-1]

    # ---- for the step ----

    def average_gradients(self, groups: Mapping[str, Mapping[str, nn.Parameter]]) -> None:
        """Every `.grad` becomes its mean over processes: the gradient of the global batch, the same bits everywhere.

        A parameter that gets a gradient on any process gets one on all. Of one world only one model is trained. Sharded
        parameters (core/sharding.py) are left out: theirs are averaged already.
        Errors: RuntimeError for a parameter that gets its first gradient after the first step.
        """
        if self.size == 1:
            return
        named = {
            name: p
            for members in groups.values()
            for name, p in members.items()
            if not hasattr(p, "full_tensor")
        }
        if not named:
            return
        if not self._buckets:
            self._buckets.extend(_agreed(named))
        known = {name for bucket in self._buckets for name in bucket.members}
        late = [name for name, p in named.items() if p.grad is not None and name not in known]
        if late:
            raise RuntimeError(
                f"{late[0]} got its first gradient after the first step, on process {self.rank}"
            )
        for bucket in self._buckets:
            bucket.send()
        for bucket in self._buckets:
            bucket.receive(self.size)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any process: the same answer on all.

        On the CPU at once; on a GPU the answer is that of the call before, so that no host waits for another.
        """
        if self.size == 1:
            return flag
        asked = torch.tensor([int(flag)], dtype=torch.int32)
        self._asked.append((asked, dist.all_reduce(asked, dist.ReduceOp.MAX, async_op=True)))
        if self.device.type != "cpu" and len(self._asked) == 1:
            return False
        answer, work = self._asked.pop(0)
        work.wait()
        return bool(answer)

    # ---- around it ----

    def barrier(self) -> None:
        """Wait until every process is here."""
        while self._asked:
            self._asked.pop()[1].wait()
        if self.size > 1:
            dist.all_reduce(torch.zeros(1))

    @contextlib.contextmanager
    def leading(self) -> Iterator[None]:
        """The first process of each machine goes through the block alone, then the others: for files made on first use."""
        if self.local_rank:
            self.barrier()
        yield
        if not self.local_rank:
            self.barrier()

    def told(self, text: str) -> str:
        """The text of process 0, on every process."""
        if self.size == 1:
            return text
        data = (
            torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8) if text else torch.zeros(0).byte()
        )
        length = torch.tensor([len(data)])
        dist.broadcast(length, 0)
        data = data if self.leads else torch.zeros(int(length), dtype=torch.uint8)
        if int(length):
            dist.broadcast(data, 0)
        return data.numpy().tobytes().decode()

    @torch.no_grad()
    def align(self, model: nn.Module) -> None:
        """Give every process the weights and buffers of process 0, bit for bit."""
        if self.size > 1:
            for tensor in model.state_dict().values():
                sent = tensor.contiguous()
                dist.broadcast(sent, 0)
                tensor.copy_(sent)


class _Bucket:
    """Parameters whose gradients travel together, each laid out in memory as its parameter is."""

    def __init__(self, members: dict[str, nn.Parameter]) -> None:
        self.members = members
        first, sizes = next(iter(members.values())), [p.numel() for p in members.values()]
        self.flat = torch.empty(sum(sizes), dtype=first.dtype, device=first.device)
        # An optimizer's fused kernel walks parameter and gradient side by side: the strides must agree.
        self.places = [
            part.as_strided(p.shape, p.stride())
            for part, p in zip(self.flat.split(sizes), members.values(), strict=True)
        ]
        self._work: Any = None

    @torch.no_grad()
    def send(self) -> None:
        """Fill in what there is, zeros for what this process alone has not, and start to send."""
        here = [(place, p.grad) for place, p in zip(self.places, self.members.values(), strict=True)]
        absent = [place for place, grad in here if grad is None]
        if absent:
            torch._foreach_zero_(absent)
        present = [(place, grad) for place, grad in here if grad is not None]
        if present:
            torch._foreach_copy_(*map(list, zip(*present, strict=True)))
        self._work = dist.all_reduce(self.flat, async_op=True)

    @torch.no_grad()
    def receive(self, size: int) -> None:
        """Wait, and put the mean where the optimizer looks for it."""
        self._work.wait()
        self.flat.div_(size)
        for place, p in zip(self.places, self.members.values(), strict=True):
            p.grad = place


def _agreed(named: Mapping[str, nn.Parameter]) -> list[_Bucket]:
    """Buckets of the parameters that get a gradient on any process, in the order of their names in the groups."""
    got = torch.tensor([p.grad is not None for p in named.values()], dtype=torch.int32)
    dist.all_reduce(got, dist.ReduceOp.MAX)
    buckets: list[_Bucket] = []
    members: dict[str, nn.Parameter] = {}
    kind, held = None, 0
    for (name, p), wanted in zip(named.items(), got.tolist(), strict=True):
        if not wanted:
            continue
        if members and (held >= BUCKET_BYTES or (p.dtype, p.device) != kind):
            buckets.append(_Bucket(members))
            members, held = {}, 0
        kind, held = (p.dtype, p.device), held + p.numel() * p.element_size()
        members[name] = p
    return [*buckets, _Bucket(members)] if members else buckets


ALONE = World()
