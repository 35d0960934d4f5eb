"""Action algebra on h."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from jepa_world_model.losses.algebra_h import MarginConfig, SeparationConfig, same_action
from jepa_world_model.losses.measures import ScaleConfig
from tests.losses.world import A, as_imagined, draw, judge, make_batch

EFFECTS = torch.tensor([[0.0, 0, 0], [1.0, 0, 0], [0, 2.0, 0], [0, 0, -1.0]])  # of action 0 (the no-op) to 3


def consistent(batch) -> tuple[torch.Tensor, torch.Tensor]:
    """h that every action moves by its own effect, and those effects: h [B,T,3], delta [B,T-1,3]."""
    delta = batch.actions @ EFFECTS
    return torch.nn.functional.pad(delta.cumsum(1), (0, 0, 1, 0)) + draw(len(delta), 1, 3), delta


def later(steps, k: int, by: float):
    """The rollout with an error of `by` at step k alone."""
    h = tuple(s + by if i == k else s for i, s in enumerate(steps.h))
    return dataclasses.replace(steps, h=h)


def test_expected_changes_are_zero_where_the_path_follows_them_and_add_up():
    h, delta = consistent(make_batch())
    for name in ("action_delta_h", "additivity_h"):
        assert judge(name, {"h": h, "delta_h_hat": delta}).item() == pytest.approx(0, abs=1e-12)
    assert judge("action_delta_h", {"h": h, "delta_h_hat": delta + 1}).item() == pytest.approx(1)
    assert judge("additivity_h", {"h": h, "delta_h_hat": delta + 1}).item() == pytest.approx(4)


def test_self_fed_steps_are_judged_against_true_ones():
    h, _ = consistent(make_batch())
    right = as_imagined(h, h)
    for name in ("rollout_kstep_h", "rollout_kstep_delta_h"):
        assert judge(name, {"h": h, "rollout": right}) == 0
    starts = [h.shape[1] - k for k in range(5)]
    off = later(right, 3, 1.0)
    expected = starts[3] / sum(starts[2:])
    assert judge("rollout_kstep_h", {"h": h, "rollout": off}).item() == pytest.approx(expected)
    # An error at step 3 alone is a wrong change into it and a wrong change out of it.
    expected = (starts[3] + starts[4]) / sum(starts[2:])
    assert judge("rollout_kstep_delta_h", {"h": h, "rollout": off}).item() == pytest.approx(expected)


def test_a_horizon_of_one_step_is_refused_where_it_says_nothing():
    h, _ = consistent(make_batch())
    for name in ("rollout_kstep_h", "rollout_kstep_delta_h"):
        with pytest.raises(ValueError, match="rollout_horizon of 2"):
            judge(name, {"h": h, "rollout": as_imagined(h, h, horizon=1)})


def test_an_action_and_its_inverse_lead_back():
    h, _ = consistent(make_batch())
    assert judge("inverse_cycle_h", {"h": h, "h_back": h[:, :-1]}) == 0
    assert judge("inverse_cycle_h", {"h": h, "h_back": h[:, 1:]}) > 0.1


def test_a_no_op_may_move_h_by_a_margin_and_no_more():
    batch = make_batch()
    h, _ = consistent(batch)
    plain = MarginConfig(margin=0.1, softness=0.0)
    assert judge("noop_still_h", {"h": h}, batch=batch, options=plain) == 0
    assert 0 < judge("noop_still_h", {"h": h}, batch=batch) < 0.02  # the rounded corner
    drift = h + torch.arange(h.shape[1])[None, :, None] * torch.tensor([0.0, 0.0, 0.5])
    assert judge("noop_still_h", {"h": drift}, batch=batch, options=plain) > 0.3
    nothing = dataclasses.replace(batch, noop=torch.zeros_like(batch.noop))
    assert judge("noop_still_h", {"h": drift}, batch=nothing) == 0


def test_a_move_has_the_target_length_in_h():
    batch = make_batch()
    h, delta = consistent(batch)
    unit = torch.nn.functional.pad(torch.nn.functional.normalize(delta, dim=-1).cumsum(1), (0, 0, 1, 0))
    assert judge("scale_dh", {"h": unit}, batch=batch).item() == pytest.approx(0, abs=1e-10)
    assert judge("scale_dh", {"h": 3 * unit}, batch=batch).item() == pytest.approx(4, rel=1e-5)
    options = ScaleConfig(target=3.0)
    assert judge("scale_dh", {"h": 3 * unit}, batch=batch, options=options).item() == pytest.approx(
        0, abs=1e-8
    )
    assert h.shape == unit.shape


def test_the_same_action_has_one_direction():
    batch = make_batch(windows=8)
    h, _ = consistent(batch)
    assert judge("action_consistency_h", {"h": h}, batch=batch).item() == pytest.approx(0, abs=1e-6)
    assert judge("action_consistency_h", {"h": draw(8, 6, 3)}, batch=batch) > 0.2


def test_different_actions_have_different_changes():
    batch, plain = make_batch(windows=8), SeparationConfig(softness=0.0)
    h, _ = consistent(batch)
    clock = torch.arange(6.0)[None, :, None].expand(8, 6, 3)  # the same change whatever the action
    assert judge("action_separation_h", {"h": h}, batch=batch, options=plain).item() == pytest.approx(
        0, abs=0.1
    )
    assert judge("action_separation_h", {"h": clock}, batch=batch, options=plain).item() == pytest.approx(
        3**0.5, rel=1e-3
    )


def test_gradients_are_finite_where_two_actions_have_the_very_same_change():
    batch = make_batch(windows=8)
    clock = torch.arange(6.0)[None, :, None].expand(8, 6, 3).clone().requires_grad_()
    for name in ("action_separation_h", "action_consistency_h", "noop_still_h", "h_smooth", "scale_dh"):
        (grad,) = torch.autograd.grad(judge(name, {"h": clock}, batch=batch), clock)
        assert grad.isfinite().all(), name
        (grad,) = torch.autograd.grad(judge(name, {"h": clock * 0}, batch=batch), clock)
        assert grad.isfinite().all(), name


def test_actions_are_alike_by_number_or_by_distance():
    ids = torch.tensor([1, 2, 1])
    assert torch.equal(same_action(torch.eye(A)[ids], ids, "discrete"), (ids[:, None] == ids).float())
    values = torch.tensor([[0.0, 0.0], [0.0, 0.25], [1.0, -1.0]])
    alike = same_action(values, torch.full((3,), -1), "continuous")
    assert alike[0, 1].item() == pytest.approx(torch.tensor(-0.5).exp().item(), rel=1e-4)
    assert alike[0, 2] < 1e-6
    assert torch.equal(alike.diagonal(), torch.ones(3))


def test_h_smooth_is_zero_for_a_still_h_and_huber_for_a_step():
    assert judge("h_smooth", {"h": torch.ones(2, 4, 3)}) == 0
    steps = torch.arange(4.0)[None, :, None] * torch.tensor([3.0, 4.0])
    assert judge("h_smooth", {"h": steps}).item() == pytest.approx(4.5)


def test_imagined_frames_are_judged_against_those_that_come():
    x = torch.rand(2, 6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    drawn = tuple(x[:, k:] for k in range(5))
    for name in ("rollout_recon_h", "rollout_recon_multi_box_h"):
        assert judge(name, {"x": x, "x_rollout": drawn}) == 0
        assert judge(name, {"x": x, "x_rollout": (drawn[0], *(d * 0 for d in drawn[1:]))}) > 0.1
    assert judge("rollout_recon_h", {"x": x, "x_rollout": (x + 9, *drawn[1:])}) == 0  # the start is given
