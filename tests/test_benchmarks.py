"""What benchmarks are measured against: the naive step is the same model and losses, the products are those of the step."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from jepa_world_model.commands.gradients import synthetic_batch, with_actions
from jepa_world_model.experiment import TrainConfig, build_task
from jepa_world_model.model_config import ModelConfig
from jepa_world_model.models import fused
from jepa_world_model.models.fused import relu_of

SMALL = with_actions(
    TrainConfig(
        batch_size=3, seq_len=6, rollout_horizon=4, precision="fp32",
        model=ModelConfig(image_size=16, encoder_schedule=(8, 8), decoder_schedule=(8, 8), z_dim=8, state_dim=8,
                          hidden_dim=16, keypoints=4, pose_dim=2),
    )
)  # fmt: skip


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Benchmarks import each other by name."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")


def test_the_naive_step_has_our_losses_and_our_gradients():
    import naive

    task, batch = build_task(SMALL), synthetic_batch(SMALL, 3)
    found = []
    for terms in (task.terms(batch), naive.naive_terms(task, batch)):
        task.model.zero_grad()
        task.total(terms)[0].backward()
        found.append((terms, [p.grad.clone() for p in task.model.parameters() if p.grad is not None]))
    (ours, our_grads), (theirs, their_grads) = found
    assert set(ours) == set(theirs)
    for name in ours:
        assert theirs[name].item() == pytest.approx(ours[name].item(), rel=1e-4, abs=1e-6), name
    assert len(our_grads) == len(their_grads) > 30
    for one, other in zip(our_grads, their_grads, strict=True):  # sums in another order
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_products_are_run_again_as_often_and_with_the_same_work(monkeypatch):
    import products

    layer = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(16, 5))
    step = lambda: layer(torch.ones(2, 3, 4, 4)).relu().sum().backward()
    work = 3 * 2 * 2 * 16 * 5 + 3 * 2 * 2 * 4 * 4 * 27  # forward, and back to weights and inputs
    first = 2 * 2 * 4 * 4 * 27  # whose inputs ask for no gradient
    assert products.flops_of(step) == work - first
    assert products.flops_of(products.products_of(step)) == work - first
    monkeypatch.setattr(fused, "_is_fused", lambda dtype: True)
    ridden = lambda: relu_of(layer[0], torch.ones(2, 3, 4, 4)).sum().backward()
    convolution = 2 * first  # forward, and back to the weights
    assert products.flops_of(ridden) == products.flops_of(products.products_of(ridden)) == convolution


def test_what_lies_inside_an_operation_of_the_program_is_counted_once():
    import accounting

    event = lambda name, start, end: SimpleNamespace(
        name=name, time_range=SimpleNamespace(start=start, end=end, elapsed_us=lambda: end - start)
    )
    events = [
        event("aten::early", 0, 5),
        event("## Call CompiledFxGraph f ##", 10, 1_000),
        event("graph_0_cpp_fused_relu_1", 20, 40),
        event("aoti_torch_cpu_convolution", 100, 400),
        event("aten::mkldnn_convolution", 110, 390),
        event("jepa_world_model::multi_box", 400, 500),
        event("aten::after", 1_000, 1_010),
    ]
    record = SimpleNamespace(events=lambda: events[::-1])
    assert list(accounting.operations(record)) == [
        ("program", 990), ("graph_0_cpp_fused_relu_1", 20), ("aoti_torch_cpu_convolution", 300),
        ("jepa_world_model::multi_box", 100),
    ]  # fmt: skip
    kinds = [accounting.kind_of(*one) for one in accounting.operations(record)]
    assert kinds[1:] == ["small kernels", "convolutions", "our C"]
    assert accounting.kind_of("graph_0_cpp_fused_relu_1", 51) == "kernels over maps and pictures"
    assert set(kinds[1:]) < set(accounting.KINDS)


def test_a_ratio_that_is_out_of_bounds_is_told(monkeypatch, capsys):
    import regression

    slow = lambda: sum(range(30_000))
    checks = {
        "a": regression.Check(slow, slow, most=2.0),
        "b": regression.Check(slow, lambda: None, most=2.0),
    }
    monkeypatch.setattr(regression, "checks", lambda: checks)
    assert regression.main() == 1
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said] == ["ok", "BROKEN"]


def test_defaults_of_the_throughput_table_are_the_defaults():
    import throughput

    cfg = throughput.settings(8, 8, "fp32")
    assert (
        dataclasses.replace(cfg, batch_size=8, seq_len=12, rollout_horizon=8, precision="auto")
        == TrainConfig()
    )
