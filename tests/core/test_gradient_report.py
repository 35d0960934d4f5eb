"""Gradient reports: closed forms, no trace on the training, advice on histories made for it."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from jepa_world_model.core.engine import fit
from jepa_world_model.core.gradient_report import (
    GradientLog,
    advice,
    gradient_hook,
    gradient_report,
    routes,
    shares,
)
from jepa_world_model.core.graph import Graph, Latent
from jepa_world_model.core.losses import Registry, Schedule
from jepa_world_model.core.step import train_step
from jepa_world_model.core.task import Task
from tests.core.toy import toy_batch, toy_task

QUADRATIC = Registry()


@QUADRATIC("to_a", family="toy", moves=("w",))
def to_a(view):
    """w lies at (1, 0)."""
    return (view.w - torch.tensor([1.0, 0.0])).square().sum() / 2


@QUADRATIC("to_b", family="toy", moves=("w",))
def to_b(view):
    """w lies at (0, 2)."""
    return (view.w - torch.tensor([0.0, 2.0])).square().sum() / 2


class Point(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Linear(1, 2, bias=False)
        nn.init.zeros_(self.place.weight)


def quadratic_task(**options) -> Task:
    graph = Graph((Latent("w", lambda at: at.model.place(at.batch)[0], trains=("place",), shape="2"),))
    return Task(Point(), graph, QUADRATIC, weights={"to_a": 1.0, "to_b": 3.0}, gates=graph.gates(), **options)


def test_norms_and_cosine_of_two_quadratics_from_the_origin():
    row = gradient_report(quadratic_task(), torch.ones(1, 1))
    assert row["norms"] == {"place": {"to_a": 1.0, "to_b": 6.0}}  # weight times the distance to the centre
    assert row["cosines"] == {"place": {"to_a|to_b": 0.0}}  # (1, 0) and (0, 2) are at right angles
    assert shares(row["norms"]["place"]) == pytest.approx({"to_a": 1 / 7, "to_b": 6 / 7})


def test_losses_on_either_side_of_a_point_have_cosine_minus_one():
    task = quadratic_task()
    with torch.no_grad():
        task.model.place.weight.copy_(torch.tensor([[0.5], [1.0]]))  # half way between the two centres
    assert gradient_report(task, torch.ones(1, 1))["cosines"]["place"]["to_a|to_b"] == pytest.approx(-1.0)


def test_a_gradient_of_zero_has_a_norm_and_no_cosine():
    task = quadratic_task()
    with torch.no_grad():
        task.model.place.weight.copy_(torch.tensor([[1.0], [0.0]]))
    row = gradient_report(task, torch.ones(1, 1))
    assert row["norms"]["place"]["to_a"] == 0.0
    assert row["cosines"] == {}


def test_weights_are_those_of_the_step():
    late = quadratic_task(schedules={"to_b": Schedule.parse("ramp:0:10")})
    assert "to_b" not in gradient_report(late, torch.ones(1, 1), 0)["norms"]["place"]
    assert gradient_report(late, torch.ones(1, 1), 5)["norms"]["place"]["to_b"] == 3.0


def test_normalised_weights_are_told_and_the_running_sizes_left_alone():
    task = quadratic_task(normalize=True)
    row = gradient_report(task, torch.ones(1, 1))
    assert row["norms"]["place"] == pytest.approx({"to_a": 1.0 / 0.5, "to_b": 6.0 / 2.0})  # losses 0.5 and 2
    assert not task.sizes.seen.any()


def test_a_closed_gate_keeps_the_loss_out_of_the_row():
    shut = gradient_report(toy_task(keep=0.0), toy_batch())
    half, whole = (gradient_report(toy_task(keep=keep), toy_batch()) for keep in (0.5, 1.0))
    assert "reader" not in shut["norms"]["body"]
    assert half["norms"]["body"]["reader"] == pytest.approx(whole["norms"]["body"]["reader"] / 2)


def run(steps: int, hooks=lambda task: (), **options):
    task = toy_task(keep=0.5, **options)
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=1e-2)
    fit(
        lambda index: train_step(task, optimizer, toy_batch(index), index, max_grad_norm=1.0),
        model=task.model, steps=steps, streams=task.streams, hooks=hooks(task),
    )  # fmt: skip
    return torch.cat([p.detach().flatten() for p in task.model.parameters()])


def test_reports_do_not_change_the_training_by_a_bit(tmp_path):
    log = GradientLog(tmp_path / "gradients.jsonl")
    with_reports = run(7, lambda task: [gradient_hook(task, toy_batch, log, every=2)])
    assert torch.equal(with_reports, run(7))
    rows = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6, 7]
    assert set(rows[0]) == {"step", "norms", "cosines", "weights"}


def test_a_report_leaves_grad_alone_and_works_without_gradient_around_it():
    task = toy_task(keep=1.0)
    sum(task.terms(toy_batch()).values()).backward()
    before = {name: p.grad.clone() for name, p in task.model.named_parameters()}
    with torch.no_grad():
        row = gradient_report(task, toy_batch())
    assert row["norms"]["body"]["reader"] > 0
    assert all(torch.equal(p.grad, before[name]) for name, p in task.model.named_parameters())


def test_the_hook_logs_a_number_a_loss_and_module(tmp_path):
    task = toy_task(keep=1.0)
    values = gradient_hook(task, toy_batch, GradientLog(tmp_path / "gradients.jsonl"), every=1).call(1)
    assert set(values) == {"grad/body/backbone", "grad/body/reader", "grad/head/reader"}


def test_a_resumed_log_drops_what_will_come_again(tmp_path):
    path = tmp_path / "gradients.jsonl"
    log = GradientLog(path)
    for step in (2, 4, 6):
        log.add({"step": step, "norms": {}, "cosines": {}})
    with path.open("a") as file:
        file.write('{"step": 8, "no')  # a line that a killed run left
    assert [row["step"] for row in GradientLog(path, start=4).rows] == [2, 4]
    assert len(path.read_text().splitlines()) == 2


def test_routes_name_the_edges_that_cut_a_loss_off():
    assert routes(toy_task(keep=0.5)) == {("reader", "body"): ("features->reading",)}
    assert routes(toy_task(keep=0.0)) == {}


def history(norms, cosine=0.0, reports=3):
    tables = {"norms": {"body": norms}, "cosines": {"body": {"one|two": cosine}}}
    return [{"step": step, **tables, "weights": {"one": 1.0, "two": 2.0}} for step in range(reports)]


def test_a_balanced_history_needs_no_advice():
    assert advice(history({"one": 1.0, "two": 0.5}, cosine=-0.4)) == []


def test_a_loss_that_rules_a_module_is_named_with_the_weight_that_evens_it():
    (found,) = advice(history({"one": 1.0, "two": 50.0}))
    assert (found.kind, found.module, found.losses) == ("dominates", "body", ("two",))
    assert "98.0%" in found.text
    assert "--loss-weights.two from 2 to 0.04" in found.text


def test_a_loss_alone_on_its_module_does_not_rule_it():
    assert advice(history({"one": 1.0})) == []


def test_two_losses_that_fight_are_named_with_a_gate_of_one_of_them():
    (found,) = advice(history({"one": 1.0, "two": 1.0}, cosine=-0.8), {("two", "body"): ("a->b",)})
    assert (found.kind, found.losses) == ("fights", ("one", "two"))
    assert '--gates "a->b" 0' in found.text
    assert "keep two off body" in found.text


def test_a_gate_that_both_share_is_no_way_out_of_a_fight():
    ways = {("one", "body"): ("a->b",), ("two", "body"): ("a->b",)}
    (found,) = advice(history({"one": 1.0, "two": 1.0}, cosine=-0.8), ways)
    assert "--gates" not in found.text


@pytest.mark.parametrize(("norm", "words"), [(0.0, "exactly 0"), (1e-8, "vanished beside that of two")])
def test_a_gradient_that_vanished_is_named(norm, words):
    found = {advised.kind: advised for advised in advice(history({"one": norm, "two": 1.0, "three": 0.9}))}
    assert set(found) == {"vanished"}
    assert found["vanished"].losses == ("one",)
    assert words in found["vanished"].text
    assert "--loss-weights.one" in found["vanished"].text


def test_a_narrow_gate_is_named_for_what_vanished_behind_it():
    ways = {("one", "body"): ("a->b",)}
    found = advice(history({"one": 1e-8, "two": 1.0, "three": 0.9}), ways, {"a->b": 0.5})
    assert '--gates "a->b" 1' in found[0].text


def test_one_odd_report_is_no_ground_for_advice():
    odd = [*history({"one": 1.0, "two": 1.0}), *history({"one": 1.0, "two": 100.0}, cosine=-0.9, reports=2)]
    assert advice(odd) == []
    assert advice(history({"one": 0.0, "two": 100.0}, reports=2)) == []


def test_a_norm_that_is_not_finite_makes_no_advice_up():
    assert advice(history({"one": math.nan, "two": 1.0})) == []
