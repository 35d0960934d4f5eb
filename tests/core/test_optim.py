"""The optimizer: every parameter once, decay where it belongs, a schedule with closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.optim import OptimConfig, audit_groups, build_optimizer, lr_at, set_lr


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
        self.head = nn.Module()
        self.head.prototypes = nn.Parameter(torch.ones(5, 2))


def groups_of(model: nn.Module) -> dict[str, dict[str, nn.Parameter]]:
    return {name: dict(child.named_parameters(prefix=name)) for name, child in model.named_children()}


def test_weights_decay_and_biases_norms_and_prototypes_do_not():
    model = Model()
    optimizer = build_optimizer(groups_of(model), OptimConfig(weight_decay=0.3))
    parts = {part["name"]: part for part in optimizer.param_groups}
    assert {name: (part["weight_decay"], len(part["params"])) for name, part in parts.items()} == {
        "encoder/decay": (0.3, 1),
        "encoder/no_decay": (0.0, 3),
        "head/no_decay": (0.0, 1),
    }
    assert parts["encoder/decay"]["params"][0] is model.encoder[0].weight
    assert sum(len(part["params"]) for part in parts.values()) == len(list(model.parameters()))
    assert all(part["fused"] for part in parts.values())


def test_one_step_matches_adamw_in_closed_form():
    weight = nn.Parameter(torch.tensor([[2.0]]))
    cfg = OptimConfig(lr=0.1, warmup_steps=0, schedule="constant", weight_decay=0.5, eps=1e-8)
    optimizer = build_optimizer({"g": {"weight": weight}}, cfg)
    set_lr(optimizer, cfg, 0, 10)
    weight.grad = torch.tensor([[3.0]])
    optimizer.step()
    # decay first: 2 (1 - 0.1 * 0.5) = 1.9; the first Adam step is lr * sign(gradient)
    assert weight.item() == pytest.approx(1.9 - 0.1, abs=1e-6)


def test_warm_up_is_linear_and_cosine_ends_at_its_share_on_the_last_step():
    cfg = OptimConfig(lr=2.0, warmup_steps=4, final_lr_share=0.25)
    rates = [lr_at(cfg, step, 105) for step in range(105)]
    assert rates[:4] == [0.5, 1.0, 1.5, 2.0]
    assert rates[4] == 2.0
    assert rates[54] == pytest.approx(2.0 * (0.25 + 0.75 * 0.5))  # half way
    assert rates[104] == pytest.approx(0.5)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert lr_at(cfg, 1000, 105) == pytest.approx(0.5)


def test_constant_schedule_is_level_and_a_short_run_never_divides_by_zero():
    cfg = OptimConfig(lr=1.0, warmup_steps=2, schedule="constant")
    assert [lr_at(cfg, step, 5) for step in range(5)] == [0.5, 1.0, 1.0, 1.0, 1.0]
    assert all(math.isfinite(lr_at(OptimConfig(warmup_steps=w), 0, n)) for w in (0, 1, 9) for n in (1, 2, 3))


def test_lr_scale_multiplies_one_group_and_zero_holds_it_bitwise_still():
    model = Model()
    before = model.encoder[0].weight.detach().clone()
    head_before = model.head.prototypes.detach().clone()
    cfg = OptimConfig(lr=0.1, warmup_steps=0, lr_scale={"encoder": 0.0})
    optimizer = build_optimizer(groups_of(model), cfg)
    assert set_lr(optimizer, cfg, 0, 10) == 0.1
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert torch.equal(model.encoder[0].weight, before)
    assert not torch.equal(model.head.prototypes, head_before)


def test_a_group_name_that_does_not_exist_is_refused_with_the_real_ones():
    with pytest.raises(UserError, match=r"no parameter group 'encodr'; did you mean encoder\?"):
        build_optimizer(groups_of(Model()), OptimConfig(lr_scale={"encodr": 0.5}))
    with pytest.raises(UserError, match="the groups are encoder, head"):
        build_optimizer(groups_of(Model()), OptimConfig(lr_scale={"zzz": 0.5}))


def test_a_parameter_in_two_groups_is_refused_by_name():
    model = Model()
    groups = groups_of(model)
    groups["head"]["tied"] = model.encoder[0].weight
    with pytest.raises(UserError, match=r"encoder:encoder\.0\.weight and head:tied"):
        build_optimizer(groups, OptimConfig())
    with pytest.raises(UserError, match="stands in two groups"):
        audit_groups(model, groups)


def test_audit_names_parameters_that_no_optimizer_would_train_and_strangers():
    model = Model()
    audit_groups(model, groups_of(model))
    incomplete = groups_of(model)
    del incomplete["head"]
    with pytest.raises(UserError, match=r"in no parameter group.*: head\.prototypes"):
        audit_groups(model, incomplete)
    model.head.prototypes.requires_grad_(False)
    audit_groups(model, incomplete)  # a frozen parameter needs no group
    strange = groups_of(model) | {"other": {"w": nn.Parameter(torch.zeros(2))}}
    with pytest.raises(UserError, match=r"not in the model.*: other:w"):
        audit_groups(model, strange)


def test_a_model_with_nothing_to_train_is_refused():
    with pytest.raises(UserError, match="no parameter to train"):
        build_optimizer({"a": {}}, OptimConfig())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lr": 0.0}, "lr must be above 0"),
        ({"lr": math.nan}, "lr must be above 0"),
        ({"warmup_steps": -1}, "warmup_steps must be 0 or more"),
        ({"schedule": "linear"}, "schedule must be cosine or constant"),
        ({"final_lr_share": 1.5}, "final_lr_share must lie in"),
        ({"weight_decay": -0.1}, "weight_decay must be 0 or more"),
        ({"betas": (0.9, 1.0)}, "betas must lie in"),
        ({"eps": 0.0}, "eps must be above 0"),
        ({"max_grad_norm": 0.0}, "max_grad_norm must be above 0"),
        ({"lr_scale": {"encoder": -1.0}}, "lr_scale of encoder"),
    ],
)
def test_values_out_of_range_are_refused(change: dict, words: str):
    with pytest.raises(ValueError, match=words):
        OptimConfig(**change)
