"""Parts of the pose, and the temporal distance."""

from __future__ import annotations

import torch

from jepa_world_model.models.pose import ActionPrototype, ChangeToPose, PoseMeasurement, TemporalDistance
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
