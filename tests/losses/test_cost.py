"""Losses keep the device busy: nothing waits for the host, nothing loops over windows or frames."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from jepa_world_model.losses import LOSSES
from tests.losses.world import SPACES, make_batch, make_task

# To the host: .item(), bool(tensor), if tensor. Sizes that depend on data: nonzero, masked_select and such.
WAITING = {"_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal", "unique_dim", "_unique2"}


class Operations(TorchDispatchMode):
    """Counts the operations that are run, and those with an index whose size depends on data."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().removeprefix("aten::").partition(".")[0]
        self.seen[name] += 1
        if name in ("index", "index_put_") and any(i is not None and i.dtype == torch.bool for i in args[1]):
            self.seen["boolean indexing"] += 1
        return func(*args, **(kwargs or {}))


def test_the_counter_sees_what_waits():
    x = torch.ones(3)
    with Operations() as operations:
        x.sum().item()
        x[x > 0]
        bool(x[0])
    assert operations.seen["_local_scalar_dense"] == 2
    assert operations.seen["boolean indexing"] == 1


@pytest.mark.parametrize("kind", SPACES)
def test_no_latent_and_no_loss_waits_for_the_device_forward_or_backward(kind):
    task, batch = make_task(), make_batch(kind=kind)
    with Operations() as operations:
        total, _ = task.total(task.terms(batch))
        total.backward()
    assert not (WAITING | {"boolean indexing"}) & set(operations.seen)


@pytest.mark.parametrize("name", LOSSES)
def test_the_work_of_a_loss_does_not_grow_with_the_number_of_windows(name):
    counts = []
    for windows in (2, 5):
        task, batch = make_task({name: 1.0}), make_batch(windows=windows)
        with Operations() as operations:
            task.terms(batch)
        counts.append(operations.seen.total())
    assert counts[0] == counts[1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_on_a_gpu_never_synchronises():
    task = make_task()
    task.model.cuda()
    batch = make_batch().to("cuda")
    task.total(task.terms(batch))[0].backward()  # the first step may compile and load kernels
    torch.cuda.set_sync_debug_mode(
        "error"
    )  # from here on, waiting for the device raises: that is the assertion
    try:
        total, _ = task.total(task.terms(batch))
        total.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert total.isfinite()


def test_losses_are_finite_with_latents_in_bfloat16():
    task = make_task()
    task.autocast = lambda: torch.autocast("cpu", dtype=torch.bfloat16)
    terms = task.terms(make_batch())
    assert all(term.dtype == torch.float32 for term in terms.values())
    assert all(term.isfinite() for term in terms.values())
    task.total(terms)[0].backward()
    assert all(p.grad.isfinite().all() for p in task.model.parameters() if p.grad is not None)
