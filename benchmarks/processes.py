"""What several processes cost: our gradient exchange against DistributedDataParallel's, and against none.

Command: python benchmarks/processes.py [--processes 2] [--batch 8] [--steps 15] [--precision fp32]

Every process trains the default world model on `batch` windows of its own, one thread each. The ways take turns step by
step, so that a drift of the machine hits all; figures are medians over steps of the slowest process, with the processor
time of one process beside the clock, which a busy machine disturbs more. "alone" is one process while the others wait.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from flags import flags_of
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from jepa_world_model.commands.gradients import synthetic_batch, with_actions
from jepa_world_model.core.distributed import ALONE, World
from jepa_world_model.core.optim import build_optimizer
from jepa_world_model.core.step import train_step
from jepa_world_model.core.task import Task
from jepa_world_model.experiment import TrainConfig, build_task
from jepa_world_model.experiment.build import no_decay

WARM_UP = 3


class Entered(nn.Module):
    """A model as DDP wants it: entered by its forward pass, which does the work of the step."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, work: Callable[[], Any]) -> Any:
        return work()


class Averaging(World):
    """A world whose gradients somebody else averages, or nobody."""

    def average_gradients(self, groups: Any) -> None:
        """Nothing: they are left as they are."""


def ways(args: argparse.Namespace, rank: int) -> dict[str, Callable[[], object]]:
    """One training step of each kind, on a model of its own."""
    cfg = with_actions(TrainConfig(batch_size=args.batch, precision=args.precision))
    batch = synthetic_batch(cfg, args.batch)
    worlds = {
        "alone": ALONE, "no exchange": Averaging(rank, args.processes), "buckets": World(rank, args.processes),
        "DDP": Averaging(rank, args.processes),
    }  # fmt: skip
    made = {}
    for name, world in worlds.items():
        task: Task = build_task(cfg, world=world)
        if name == "DDP":
            task.inside = DistributedDataParallel(Entered(task.model), gradient_as_bucket_view=True)
        optimizer = build_optimizer(task.groups, cfg.optim, no_decay)
        made[name] = lambda t=task, o=optimizer: train_step(t, o, batch, 0, max_grad_norm=1.0)
    return made


def work(rank: int, port: int, args: argparse.Namespace) -> None:
    """Time every way in turns; process 0 prints."""
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=args.processes)
    steps = ways(args, rank)
    clock: dict[str, list[float]] = {name: [] for name in steps}
    busy: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(WARM_UP + args.steps):
        for name, step in steps.items():
            dist.barrier()
            begin, used = time.perf_counter(), time.process_time()
            if name != "alone" or rank == 0:
                step()
            spent = torch.tensor([time.perf_counter() - begin, time.process_time() - used])
            dist.all_reduce(spent, dist.ReduceOp.MAX)
            clock[name].append(1e3 * float(spent[0]))
            busy[name].append(1e3 * float(spent[1]))
    if rank == 0:
        print(f"{args.processes} processes, {args.batch} windows each, {args.precision}, {args.steps} steps")
        print("| way | step, ms | processor, ms | to no exchange |\n|---|---|---|---|")
        base = statistics.median(busy["no exchange"][WARM_UP:])
        for name in steps:
            wall, cpu = (statistics.median(times[name][WARM_UP:]) for times in (clock, busy))
            print(f"| {name} | {wall:.1f} | {cpu:.1f} | {cpu / base:.3f} |")
    dist.destroy_process_group()


def main() -> None:
    """Start the processes."""
    parser = flags_of(__doc__)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--precision", default="fp32")
    args = parser.parse_args()
    with socket.socket() as at:
        at.bind(("127.0.0.1", 0))
        port = at.getsockname()[1]
    mp.spawn(work, args=(port, args), nprocs=args.processes)


if __name__ == "__main__":
    main()
