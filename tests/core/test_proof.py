"""The start-up proof: planted faults are refused, each with its own sentence."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from jepa_world_model.core.barrier import stop
from jepa_world_model.core.errors import ContractError, UserError
from jepa_world_model.core.graph import Graph, Latent
from jepa_world_model.core.losses import Registry
from jepa_world_model.core.proof import audit, measure, prove
from jepa_world_model.core.step import train_step
from jepa_world_model.core.task import Task

from .toy import TOY, Model, toy_batch, toy_graph, toy_task


def adamw(task: Task, lr: float = 1e-2) -> torch.optim.AdamW:
    return torch.optim.AdamW(task.model.parameters(), lr=lr, fused=True)


@pytest.mark.parametrize("keep", [0.0, 0.3, 1.0])
def test_an_honest_task_is_proven_and_shown(keep):
    task = toy_task(keep)
    table = prove(task, toy_batch(), adamw(task))
    assert table.derived["reader"] == ({"head"} if keep == 0 else {"head", "body"})
    assert "| reader | 1 |" in table.to_markdown()
    assert table.to_json()["losses"]["reader"]["derived"] == sorted(table.derived["reader"])
    assert table.to_text().count("!") == 1  # in the legend alone


def registry_with(name: str, function, **contract) -> Registry:
    registry = Registry()
    registry(name, family="toy", **contract)(function)
    return registry


def alone(registry: Registry, graph: Graph | None = None, model: nn.Module | None = None) -> Task:
    graph = graph or toy_graph()
    weights = dict.fromkeys(registry, 1.0)
    return Task(model or Model(), graph, registry, weights=weights, gates=graph.gates())


def test_a_loss_compared_with_itself_is_refused():
    def itself(view):
        """Features equal themselves."""
        return (view.features - view.features).square().mean()

    with pytest.raises(ContractError, match="exactly 0 on random weights"):
        prove(alone(registry_with("itself", itself, moves=("features",))), toy_batch())


def test_a_margin_that_hides_a_loss_on_some_weights_is_no_fault():
    def varied(view):
        """Features vary by more than a margin."""
        return torch.relu(0.85 - view.features.std())

    task = alone(registry_with("varied", varied, moves=("features",)))
    with torch.no_grad():
        for parameter in task.model.parameters():
            parameter.mul_(8.0)
    batch = toy_batch()
    assert float(task.terms(batch)["varied"].detach()) == 0.0
    assert prove(task, batch).values["varied"] > 0


def test_a_hidden_detach_in_a_latent_is_refused():
    graph = Graph((Latent("features", lambda at: stop(at.model.body(at.batch)), trains=("body",)),))
    with pytest.raises(ContractError, match="declares that it moves body, but no gradient arrives"):
        prove(
            alone(registry_with("backbone", TOY["backbone"].function, moves=("features",)), graph),
            toy_batch(),
        )


def test_a_head_used_only_behind_a_stop_is_refused():
    def hidden(view):
        """The head reads the features."""
        return (stop(view.model.head(view.features)).square() + view.features.square()).mean()

    registry = registry_with("hidden", hidden, moves=("features",), heads=("head",))
    with pytest.raises(ContractError, match="'hidden' declares that it moves head"):
        prove(alone(registry), toy_batch())


def test_an_undeclared_read_is_refused():
    def undeclared(view):
        """Features are small."""
        return view.features.square().mean() + view.fixed.reading.mean()

    with pytest.raises(ContractError, match=r"undeclared.*'reading'"):
        prove(alone(registry_with("undeclared", undeclared, moves=("features",))), toy_batch())


def test_a_leak_around_the_declaration_is_refused():
    model = Model()

    def leak(view):
        """The features are read by a head that nobody declared."""
        return model.head(view.features).square().mean()

    registry = registry_with("leak", leak, moves=("features",))
    task = alone(registry, model=model)
    with pytest.raises(ContractError, match="in no parameter group"):
        prove(task, toy_batch())  # the jittered copy knows the original head as a stranger


def test_a_loss_that_moves_nothing_is_refused():
    def nothing(view):
        """Features are small."""
        return view.fixed.features.square().mean()

    with pytest.raises(ContractError, match="moves nothing"):
        prove(alone(registry_with("nothing", nothing, fixed=("features",))), toy_batch())


def test_a_parameter_outside_the_optimizer_is_named():
    task = toy_task()
    optimizer = torch.optim.AdamW(task.model.body.parameters())
    with pytest.raises(ContractError, match=r"'head.weight' is in no optimizer groups"):
        prove(task, toy_batch(), optimizer)


def test_a_parameter_in_two_optimizer_groups_is_named():
    task = toy_task()
    optimizer = adamw(task)
    optimizer.param_groups.append(dict(optimizer.param_groups[0], params=[task.model.head.bias]))
    with pytest.raises(ContractError, match=r"'head.bias' is in 2 optimizer groups"):
        prove(task, toy_batch(), optimizer)


def test_a_parameter_missing_from_the_checkpoint_is_named():
    class Forgetful(Model):
        def state_dict(self, *args, **kwargs):
            return {k: v for k, v in super().state_dict(*args, **kwargs).items() if not k.startswith("head")}

    model = Forgetful()
    task = alone(TOY, model=model)
    assert any("not in the checkpoint" in fault for fault in audit(model, task.groups, adamw(task)))


def test_a_group_that_no_loss_moves_is_a_warning_not_a_refusal():
    task = toy_task(0.0, backbone=0.0)
    assert measure(task, toy_batch()).warnings() == [
        "body is used but no active loss moves it: it stays at its random start"
    ]


def test_unknown_and_impossible_weights_are_refused():
    for weights, words in [
        ({"reeder": 1.0}, "did you mean 'reader'"), ({"reader": -1.0}, "0 \\(off\\) or above"),
        ({"reader": float("nan")}, "finite"), ({"reader": 0.0}, "every loss weight is 0"),
    ]:  # fmt: skip
        with pytest.raises(UserError, match=words):
            Task(Model(), toy_graph(), TOY, weights=weights, gates=toy_graph().gates())


def trained(keep: float, reader_weight: float, clip=None) -> dict[str, torch.Tensor]:
    task = toy_task(keep, reader_weight)
    optimizer = adamw(task)
    for step in range(20):
        train_step(task, optimizer, toy_batch(step), step, max_grad_norm=0.1)
    return {name: p.detach().clone() for name, p in task.model.body.named_parameters()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_a_closed_barrier_protects_bitwise_whatever_the_other_weight_and_an_open_one_does_not():
    start = dict(Model().body.named_parameters())
    closed = [trained(0.0, weight) for weight in (0.0, 1.0, 100.0)]
    assert not same(start, closed[0])
    assert same(closed[0], closed[1])
    assert same(closed[0], closed[2])
    assert not same(trained(1.0, 1.0), trained(1.0, 100.0))
    assert not same(closed[0], trained(1.0, 1.0))


def test_a_step_that_is_not_finite_changes_nothing():
    task = toy_task(1.0)
    optimizer = adamw(task)
    train_step(task, optimizer, toy_batch(), 0, max_grad_norm=1.0)
    before = {name: p.detach().clone() for name, p in task.model.named_parameters()}
    moments = [state["exp_avg"].clone() for state in optimizer.state.values()]
    report = train_step(task, optimizer, torch.full((5, 3), torch.nan), 1, max_grad_norm=1.0)
    assert not report["finite"]
    assert same(before, dict(task.model.named_parameters()))
    assert all(torch.equal(a, s["exp_avg"]) for a, s in zip(moments, optimizer.state.values(), strict=True))


def test_each_latent_is_computed_once_and_terms_add_up():
    calls = []

    def features(at):
        calls.append(1)
        return at.model.body(at.batch)

    graph = Graph((Latent("features", features, trains=("body",)), *toy_graph().latents[1:]))
    task = toy_task(0.0, 2.0, graph=graph)
    terms = task.terms(toy_batch())
    total, weighted = task.total(terms)
    assert calls == [1]
    assert total.item() == pytest.approx((terms["backbone"] + 2 * terms["reader"]).item(), rel=1e-6)
    assert torch.equal(weighted.sum(), total)
