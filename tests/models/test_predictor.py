"""The predictor: a residual step, and a spectral norm that stays put within a training step."""

from __future__ import annotations

import pytest
import torch

from jepa_world_model.core.barrier import frozen
from jepa_world_model.models.layers import SpectralNorm
from jepa_world_model.models.predictor import Predictor
from tests.models.build import small


def inputs(rows: int = 6):
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(rows, width, generator=generator) for width in (12, 10, 5))


def test_an_even_gate_goes_half_of_the_way_to_the_frame_and_its_change():
    predictor, (z, h, a) = Predictor(small()), inputs()
    torch.nn.init.zeros_(predictor.outer.weight)
    predictor.outer.bias.data = torch.cat([torch.zeros(10), torch.ones(10)])
    torch.testing.assert_close(predictor(z, h, a), h + 0.5 * (predictor.lift(z) + 1 - h))


def test_the_frame_enters_as_itself_at_the_start():
    predictor, (z, _, _) = Predictor(small()), inputs()
    assert torch.equal(predictor.lift(z), z[:, :10])  # 12 features of z, 10 of h


def test_small_changes_survive_bf16():
    predictor, (z, h, a) = Predictor(small()), inputs()
    with torch.no_grad():
        predictor.lift.weight.zero_()
        predictor.outer.weight.mul_(1e-4)
        h = h * 1e-3  # the pull towards the frame, here zero, is of the size of h
        predictor.outer.bias.fill_(1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            moved = predictor(z, h, a) - h
        exact = predictor(z, h, a) - h
    assert moved.dtype == torch.float32
    torch.testing.assert_close(moved, exact, rtol=0.05, atol=1e-6)


def test_a_layer_norm_bounds_the_learnt_change_whatever_the_input():
    torch.manual_seed(0)
    predictor, (z, h, a) = Predictor(small()), inputs()
    torch.nn.init.zeros_(predictor.lift.weight)
    change = lambda scale: predictor(scale * z, torch.zeros_like(h), a)
    assert change(1e4).norm() < 3 * change(1.0).norm()


def test_a_row_does_not_depend_on_its_neighbours_or_on_leading_dimensions():
    torch.manual_seed(0)
    predictor, rows = Predictor(small()), inputs()
    torch.testing.assert_close(
        predictor(*(r.view(2, 3, -1) for r in rows)).flatten(0, 1), predictor(*rows), rtol=1e-5, atol=1e-6
    )


def largest(layer: torch.nn.Linear) -> float:
    return torch.linalg.matrix_norm(layer.weight.detach(), 2).item()


def test_spectral_norm_holds_matrices_at_size_one():
    torch.manual_seed(0)
    predictor = Predictor(small(spectral_norm=True))
    assert largest(predictor.inner) == pytest.approx(1, abs=0.05)
    assert largest(predictor.outer) == pytest.approx(1, abs=0.05)


def test_spectral_norm_does_not_change_weights_between_the_calls_of_a_step():
    torch.manual_seed(0)
    predictor, rows = Predictor(small(spectral_norm=True)).train(), inputs()
    with torch.no_grad():
        predictor.inner.parametrizations.weight.original.mul_(2)
    first = predictor(*rows)
    state = {key: value.clone() for key, value in predictor.state_dict().items()}
    assert (predictor(*rows) == first).all()
    assert (frozen(predictor)(*rows) == first).all()
    assert all((value == state[key]).all() for key, value in predictor.state_dict().items())


def test_spectral_norm_follows_a_weight_that_trains_and_rests_in_evaluation():
    torch.manual_seed(0)
    norm, weight = SpectralNorm(torch.eye(4)), torch.nn.Parameter(torch.eye(4))
    with torch.no_grad():
        weight.copy_(torch.diag(torch.tensor([1.0, 5.0, 1.0, 1.0])))
    before = norm.left.clone()
    norm.eval()(weight)
    assert (norm.left == before).all()
    norm.train()
    for _ in range(6):
        with torch.no_grad():
            weight.add_(0)  # an optimizer step
        scaled = norm(weight)
    assert torch.linalg.matrix_norm(scaled.detach(), 2).item() == pytest.approx(1, abs=1e-3)
