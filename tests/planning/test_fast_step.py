"""The fast step is the model's step: by products in bfloat16, whatever the options, and never with old weights."""

from __future__ import annotations

import pytest
import torch

from tests.planning.test_dynamics import batch, make


@pytest.mark.parametrize(
    "model", [{}, {"predictor_layer_norm": False}, {"spectral_norm": True}, {"z_norm": True}], ids=str
)
@pytest.mark.parametrize("force_h_zero", [False, True])
def test_the_fast_step_is_the_step_of_the_model_up_to_rounding(model, force_h_zero):
    exact, fast = (make(model=dict(model), force_h_zero=force_h_zero, precision=p) for p in ("fp32", "bf16"))
    data = batch()
    state = exact.encode(data.frames[:, 0])
    with torch.no_grad():
        for t in range(4):
            one, other = (d.step(state, data.actions[:, t]) for d in (exact, fast))
            for name in ("z", "h"):
                assert other[name].dtype == torch.float32
                change = (one[name] - state[name]).norm() + one[name].norm()
                assert (one[name] - other[name]).norm() < 0.02 * change
            assert not torch.equal(one["z"], other["z"])
            state = one
    assert fast._fast is not None
    assert exact._fast is None


def test_a_changed_weight_is_noticed():
    dynamics, data = make(precision="bf16"), batch()
    state = dynamics.encode(data.frames[:, 0])
    with torch.no_grad():
        before = dynamics.step(state, data.actions[:, 0])["h"]
        dynamics.model.predictor.outer.bias.add_(1.0)
        after = dynamics.step(state, data.actions[:, 0])["h"]
    assert (before - after).abs().max() > 0.1


def test_gradients_take_the_models_own_step():
    dynamics, data = make(precision="bf16"), batch()
    action = data.actions[:, 0].clone().requires_grad_()
    dynamics.step(dynamics.encode(data.frames[:, 0]), action)["z"].sum().backward()
    assert action.grad.abs().max() > 0
    assert dynamics._fast is None
