"""The registry, schedules, running sizes and the weighted sum."""

from __future__ import annotations

import pytest
import torch

from jepa_world_model.core.errors import ContractError, UserError
from jepa_world_model.core.losses import Registry, Schedule, Sizes
from jepa_world_model.core.task import Task

from .toy import TOY, Model, toy_batch, toy_graph, toy_task


def test_a_name_is_registered_once_and_needs_a_claim():
    registry = Registry()
    registry("a", family="toy")(TOY["backbone"].function)
    with pytest.raises(ContractError, match="twice"):
        registry("a", family="toy")(TOY["backbone"].function)
    with pytest.raises(ContractError, match="docstring"):
        registry("b", family="toy")(lambda view: view)
    with pytest.raises(ContractError, match="tuple"):
        registry("c", family="toy", moves="z")(TOY["backbone"].function)


def test_a_result_that_is_no_scalar_names_the_loss():
    registry = Registry()

    def wide(view):
        """Returns a row."""
        return view.features.mean(0)

    registry("wide", family="toy", moves=("features",))(wide)
    graph = toy_graph()
    task = Task(Model(), graph, registry, weights={"wide": 1.0}, gates=graph.gates())
    with pytest.raises(ContractError, match=r"'wide' must return a scalar tensor, got \(4,\)"):
        task.terms(toy_batch())


@pytest.mark.parametrize(("text", "shares"), [
    ("constant", {0: 1.0, 9: 1.0}),
    ("ramp:10:20", {0: 0.0, 10: 0.0, 15: 0.5, 20: 1.0, 99: 1.0}),
    ("ramp:0:10:0.5", {0: 0.5, 5: 0.75, 10: 1.0}),
    ("cosine:0:4", {0: 0.0, 2: 0.5, 4: 1.0}),
])  # fmt: skip
def test_a_schedule_passes_through_its_points(text, shares):
    schedule = Schedule.parse(text)
    assert {step: pytest.approx(schedule.share(step)) for step in shares} == shares


@pytest.mark.parametrize(
    "text", ["", "ramp", "ramp:5", "ramp:20:10", "cosine:a:b", "linear:0:1", "ramp:0:1:-1", "ramp:0:1:2:3"]
)
def test_a_schedule_that_cannot_be_read_says_how_to_write_one(text):
    with pytest.raises(UserError, match="ramp:START:END"):
        Schedule.parse(text, "loss_schedules.jepa")


def test_a_schedule_scales_the_weight_and_an_unknown_loss_is_refused():
    graph = toy_graph()
    make = lambda schedules: Task(
        Model(), graph, TOY, weights={"backbone": 2.0}, gates=graph.gates(), schedules=schedules
    )
    task = make({"backbone": Schedule.parse("ramp:0:10")})
    terms = task.terms(toy_batch())
    assert task.total(terms, 5)[0].item() == pytest.approx(terms["backbone"].item())
    with pytest.raises(UserError, match="did you mean 'backbone'"):
        make({"backbon": Schedule()})


def test_normalised_losses_have_size_one_from_the_first_step_and_skip_what_is_not_finite():
    sizes = Sizes(2)
    assert torch.allclose(sizes.update(torch.tensor([4.0, 0.25])), torch.tensor([4.0, 0.25]))
    after = sizes.update(torch.tensor([torch.nan, 1.0]))
    assert torch.allclose(after, torch.tensor([4.0, 0.25]))
    twin = Sizes(2)
    twin.load_state_dict(sizes.state_dict())
    assert torch.equal(twin.update(torch.ones(2)), sizes.update(torch.ones(2)))


def test_normalisation_weighs_unlike_losses_alike():
    graph = toy_graph()
    task = Task(
        Model(), graph, TOY, weights={"backbone": 1.0, "reader": 1.0}, gates=graph.gates(), normalize=True
    )
    _, weighted = task.total(task.terms(toy_batch()))
    assert torch.allclose(weighted, torch.ones(2))


def test_weights_do_not_change_the_terms():
    a, b = toy_task(reader_weight=1.0).terms(toy_batch()), toy_task(reader_weight=7.0).terms(toy_batch())
    assert all(torch.equal(a[name], b[name]) for name in a)
