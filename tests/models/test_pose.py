"""Parts of the pose, and the temporal distance."""

from __future__ import annotations

import pytest
import torch

from jepa_world_model.models.pose import (
    ActionPrototype,
    ChangeToPose,
    PoseIncrement,
    PoseMeasurement,
    TemporalDistance,
)
from tests.models.build import small


def states(count: int = 7) -> torch.Tensor:
    return torch.randn(count, 12, generator=torch.Generator().manual_seed(0)) * 3


def test_a_zero_action_has_no_prototype_and_prototypes_add_up():
    torch.manual_seed(0)
    prototype, a = ActionPrototype(small()), torch.eye(5)
    assert (prototype(torch.zeros(2, 5)) == 0).all()
    torch.testing.assert_close(prototype(a[0] + a[1]), prototype(a[0]) + prototype(a[1]))


def test_prototypes_start_near_the_length_of_a_move():
    torch.manual_seed(0)
    length = ActionPrototype(small(pose_dim=64, action_dim=32))(torch.eye(32)).norm(dim=-1)
    assert 0.8 < length.mean() < 1.2


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_increments_start_as_one_a_action_of_length_1_in_directions_of_their_own(kind):
    torch.manual_seed(0)
    cfg = small(pose_dim=32, hidden_dim=256, action_kind=kind)
    g, h = PoseIncrement(cfg), torch.randn(50, 10)
    delta = g(torch.zeros(50, 5, 32), h[:, None].expand(-1, 5, -1), torch.eye(5).expand(50, -1, -1))
    mean = delta.mean(0)  # [A,Dp]
    assert (delta - mean).norm(dim=-1).mean() < 0.3  # the state says little yet
    length = mean.norm(dim=1)
    assert ((length > 0.6) & (length < 1.4)).all()
    cosine = (mean @ mean.T / length[:, None] / length)[~torch.eye(5, dtype=torch.bool)]
    assert cosine.mean().abs() < 0.3  # torch's own start has 0.9: every action alike
    assert cosine.max() < 0.7


def test_a_measurement_starts_silent_so_that_unseen_directions_stay_silent():
    torch.manual_seed(0)
    assert PoseMeasurement(small())(states()).abs().max() < 0.05


def test_no_change_of_z_is_no_increment():
    assert (ChangeToPose(small())(torch.zeros(1, 12)) == 0).all()


def test_a_measurement_is_linear_but_for_its_correction():
    torch.manual_seed(0)
    measure, z = PoseMeasurement(small()), states()
    torch.nn.init.zeros_(measure.bent.outer.weight)
    torch.testing.assert_close(
        measure((z[0] + z[1]) / 2), (measure(z[0]) + measure(z[1])) / 2, rtol=1e-5, atol=1e-6
    )


def test_a_frame_is_no_steps_from_itself():
    distance, z = TemporalDistance(small()), states()
    assert (distance(z, z) == 0).all()


def test_steps_are_at_least_zero_asymmetric_and_no_detour_is_shorter():
    torch.manual_seed(0)
    distance, z = TemporalDistance(small()), states()
    with torch.no_grad():
        steps = torch.expm1(distance(z[:, None], z[None, :]))  # [N,N], from row to column
    assert (steps >= 0).all()
    assert (steps - steps.T).abs().max() > 1e-3
    detour = (steps[:, :, None] + steps[None, :, :]).amin(1)  # over the middle
    assert (steps <= detour * (1 + 1e-4) + 2e-3).all()  # 2e-3: the rounded corner of the root


def test_the_gradient_at_distance_zero_is_finite():
    distance, z = TemporalDistance(small()), states().requires_grad_()
    (gradient,) = torch.autograd.grad(distance(z, z.flip(0)).sum(), z)  # the middle one meets itself
    assert gradient.isfinite().all()
