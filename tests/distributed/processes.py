"""Start a few processes that talk by gloo, once, and collect what each of them returns."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from jepa_world_model.core.distributed import World

needs_gloo = pytest.mark.skipif(not dist.is_gloo_available(), reason="needs gloo, torch's CPU collectives")

# The losses of which a mean of means is not the mean.
CONTROL = {
    "sigreg", "sliced_w2", "vicreg_var", "vicreg_cov", "noop_still_h", "scale_dh", "action_consistency_h",
    "action_separation_h", "scale_dp", "noop_still_dp", "inverse_cycle_dp", "geometry_rank_p", "loop_closure_p",
    "distance_corr_p", "temporal_distance",
}  # fmt: skip


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as at:
        at.bind(("127.0.0.1", 0))
        return at.getsockname()[1]


def _work(rank: int, size: int, folder: str, function: Callable[[World], Any]) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(os.path.join(folder, "store"), size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timedelta(minutes=5))
    torch.save(function(World(rank=rank, size=size, local_rank=rank)), os.path.join(folder, f"{rank}.pt"))
    dist.destroy_process_group()


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that `make` fills once, however many workers share out the tests."""
    base = factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, made = root / name, root / f"{name}.made"
    try:
        folder.mkdir()
    except FileExistsError:
        until = time.monotonic() + 240
        while not made.exists() and time.monotonic() < until:
            time.sleep(0.1)
        assert made.read_text() == "well", f"{name} failed in another worker"
        return folder
    said = "badly"
    try:
        make(folder)
        said = "well"
    finally:
        made.write_text(said)
    return folder


def battery(world: World) -> dict[str, Any]:
    """All that is asked of two processes at work together."""
    from tests.core.test_distributed import everything
    from tests.distributed.test_losses import measured

    return {"core": everything(world), "losses": measured(world)}


def of_two(factory: pytest.TempPathFactory, part: str) -> list[Any]:
    """What each of two processes found of a part of the battery; they are started once for all tests."""
    folder = once(factory, "two", lambda folder: in_processes(battery, folder))
    return [torch.load(folder / f"{rank}.pt", weights_only=True)[part] for rank in range(2)]


def in_processes(function: Callable[[World], Any], folder: Path, size: int = 2) -> list[Any]:
    """What `function` returns on each of `size` processes: tensors and plain values."""
    mp.spawn(_work, args=(size, str(folder), function), nprocs=size)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(size)]
