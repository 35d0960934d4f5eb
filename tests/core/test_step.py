"""The step: accumulated batches are one large batch, and nothing moves after a step that was not finite."""

from __future__ import annotations

import copy

import torch

from jepa_world_model.core.optim import OptimConfig, build_optimizer
from jepa_world_model.core.step import train_step
from tests.core.toy import toy_batch, toy_task


def built(keep: float = 1.0):
    task = toy_task(keep)
    return task, build_optimizer(task.groups, OptimConfig(lr=0.01))


def weights(task) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in task.model.state_dict().items()}


def test_accumulated_batches_are_one_large_batch_for_losses_that_are_means_over_rows():
    one, other = built(), built()
    one[0].weights["backbone"] = other[0].weights["backbone"] = 0.0  # a square of a mean is no mean
    parts = [toy_batch(step) for step in range(3)]
    whole = train_step(*one, torch.cat(parts), 0, max_grad_norm=0.1)
    split = train_step(*other, parts[0], 0, max_grad_norm=0.1, more=parts[1:])
    for name in ("loss/reader", "loss/total", "grad_norm/head", "grad_norm/body"):
        torch.testing.assert_close(split[name], whole[name], rtol=1e-6, atol=1e-7)
    for name, value in weights(one[0]).items():
        torch.testing.assert_close(weights(other[0])[name], value, rtol=1e-5, atol=1e-6)


def test_a_loss_over_the_distribution_sees_each_accumulated_batch_by_itself():
    task, optimizer = built()
    parts = [toy_batch(step) for step in range(2)]
    own = [float(task.terms(part)["backbone"].detach()) for part in parts]
    values = train_step(task, optimizer, parts[0], 0, max_grad_norm=1.0, more=parts[1:])
    assert float(values["loss/backbone"]) == sum(own) / 2


def test_after_a_step_that_is_not_finite_no_step_moves_anything():
    task, optimizer = built()
    sound = torch.ones((), dtype=torch.bool)
    assert train_step(task, optimizer, toy_batch(0), 0, max_grad_norm=1.0, sound=sound)["finite"]
    before = weights(task), copy.deepcopy(optimizer.state_dict()["state"])
    bad = toy_batch(1)
    bad[0, 0] = float("nan")
    assert not train_step(task, optimizer, bad, 1, max_grad_norm=1.0, sound=sound)["finite"]
    assert not train_step(task, optimizer, toy_batch(2), 2, max_grad_norm=1.0, sound=sound)["finite"]
    assert all(torch.equal(value, weights(task)[name]) for name, value in before[0].items())
    now = optimizer.state_dict()["state"]
    assert all(
        torch.equal(value, now[n][key]) for n, state in before[1].items() for key, value in state.items()
    )
    assert train_step(task, optimizer, toy_batch(2), 2, max_grad_norm=1.0)[
        "finite"
    ]  # without the flag: skipped, goes on
    assert not torch.equal(weights(task)["head.weight"], before[0]["head.weight"])
