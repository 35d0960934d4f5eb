"""Every loss in one program: as the plain step has it, also in what it draws."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from jepa_world_model.core.step import plainly
from jepa_world_model.losses import LOSSES
from tests.core.test_compiled import EXACT, Compiled, as_listed, assert_same, results
from tests.losses.world import make_batch, make_task

LOW = partial(torch.autocast, "cpu", dtype=torch.bfloat16)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_all_losses_and_gradients_are_those_of_the_plain_step(precision):
    tasks = [make_task(), make_task()]
    for task in tasks:
        task.autocast = LOW if precision == "bf16" else task.autocast
    calls = [(make_batch(seed), seed, 0, 1) for seed in (5, 6)]
    compiled = Compiled(tasks[0], compiler=as_listed)
    found = results(compiled, tasks[0].model, *calls)
    wanted = results(partial(plainly, tasks[1]), tasks[1].model, *calls)
    assert len(compiled.programs) == 1
    assert {f"loss/{name}" for name in LOSSES} < set(found[0][0])
    if precision == "fp32":
        assert_same(found, wanted, **EXACT)
    for (values, grads), (values_too, grads_too) in zip(found, wanted, strict=True):
        assert values == values_too
        for (
            name,
            grad,
        ) in grads.items():  # autocast keeps a weight it has converted; the program adds up in fp32
            assert (grad - grads_too[name]).norm() <= 0.01 * grads_too[name].norm()
