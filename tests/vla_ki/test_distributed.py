"""Two processes, one of them without robot rows: both finish, and hold the same weights."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from jepa_world_model.core.optim import OptimConfig, build_optimizer
from jepa_world_model.vla_ki.proofs import Kit
from tests.vla_ki.tiny import CFG, tiny_batch, tiny_model

pytestmark = pytest.mark.skipif(
    sys.platform == "win32" or not dist.is_gloo_available(), reason="needs gloo, torch's CPU collectives"
)


def work(rank: int, folder: str) -> None:
    """Three steps on rows of one's own; gradients are averaged over both processes."""
    torch.set_num_threads(1)
    store = dist.FileStore(os.path.join(folder, "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    batch = tiny_batch(robot=(True, True) if rank == 0 else (False, False), seed=rank)
    kit = Kit(cfg=CFG, model=tiny_model(), batch=batch)
    task = kit.task("insulated", text_ce=1.0)
    optimizer = build_optimizer(task.groups, OptimConfig(lr=1e-3))
    for step in range(3):
        optimizer.zero_grad()
        task.total(task.terms(batch, step))[0].backward()
        for _, parameter in task.model.named_parameters():
            if parameter.grad is not None:  # a process that skipped one here would leave the other waiting
                dist.all_reduce(parameter.grad)
        optimizer.step()
    torch.save(task.model.state_dict(), os.path.join(folder, f"{rank}.pt"))
    dist.destroy_process_group()


def test_a_process_without_robot_rows_does_not_hold_up_the_other(tmp_path: Path):
    mp.spawn(work, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
