"""Guards against collapse, and the shape of paths in z."""

from __future__ import annotations

import pytest
import torch

from jepa_world_model.losses.distribution import SigregConfig, SlicedConfig, epps_pulley
from tests.losses.world import judge
from tests.reference.sigreg import epps_pulley_slow


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("knots", "bound"), [(17, 3.0), (3, 2.0), (33, 5.0)])
def test_sigreg_equals_the_slow_twin_in_value_and_gradient(knots, bound):
    fast, slow = (normal(2, 9, 4).mul(1.5).add(0.3).requires_grad_() for _ in range(2))
    options = SigregConfig(knots=knots, bound=bound)
    value, expected = epps_pulley(fast, options), epps_pulley_slow(slow, knots, bound)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    value.backward()
    expected.backward()
    torch.testing.assert_close(fast.grad, slow.grad, rtol=1e-4, atol=1e-6)  # fp32 against fp64


def test_the_gradient_of_sigreg_is_that_of_finite_differences():
    samples = normal(2, 5, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: epps_pulley(x, SigregConfig()), samples)


def test_sigreg_has_its_floor_at_a_gaussian_and_its_ceiling_at_a_collapse():
    gaussian = judge("sigreg", {"z": normal(2048, 2, 8)})
    assert gaussian.item() == pytest.approx(
        1.05, abs=0.08
    )  # 1.0526 over many draws; 2 x 1024 directions of 2048
    count = 64
    collapse = judge("sigreg", {"z": torch.zeros(count, 2, 8)})
    assert collapse.item() == pytest.approx(0.40 * count, rel=0.01)
    assert judge("sigreg", {"z": 3 * normal(count, 2, 8)}) > 3 * judge("sigreg", {"z": normal(count, 2, 8)})


def test_sigreg_sees_a_single_collapsed_time_step():
    z = normal(64, 4, 8)
    dead = z.clone()
    dead[:, 2] = 0.0
    assert judge("sigreg", {"z": dead}) > 3 * judge("sigreg", {"z": z})


def test_sigreg_does_not_depend_on_the_order_of_the_batch():
    z = normal(16, 3, 5)
    assert judge("sigreg", {"z": z}).item() == pytest.approx(
        judge("sigreg", {"z": z.flip(0)}).item(), rel=1e-5
    )


def test_sliced_w2_is_near_zero_for_a_gaussian_and_positive_for_a_collapse():
    options = SlicedConfig(directions=64)
    assert judge("sliced_w2", {"z": normal(4096, 2, 6)}, options=options) < 0.01
    assert judge("sliced_w2", {"z": torch.zeros(4096, 2, 6)}, options=options).item() == pytest.approx(
        1, abs=0.05
    )
    assert judge("sliced_w2", {"z": normal(4096, 2, 6) + 2}, options=options) > 1


def test_vicreg_var_is_zero_for_spread_dimensions_and_positive_for_a_dead_one():
    z = normal(64, 4, 6) * 2
    assert judge("vicreg_var", {"z": z}) == 0
    dead = z * torch.tensor([1.0, 1, 1, 1, 1, 0])
    assert judge("vicreg_var", {"z": dead}).item() == pytest.approx((1 - 1e-2) / 6, rel=1e-4)


def test_vicreg_cov_is_zero_for_independent_dimensions_and_positive_for_copies():
    plane = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert judge("vicreg_cov", {"z": plane.view(2, 2, 2)}).item() == pytest.approx(0, abs=1e-12)
    copies = plane[:, :1].expand(4, 2)
    assert judge("vicreg_cov", {"z": copies.reshape(2, 2, 2)}).item() == pytest.approx((4 / 3) ** 2)


def test_z_smooth_is_zero_for_a_still_z_and_huber_for_a_step():
    still = torch.ones(2, 4, 3)
    assert judge("z_smooth", {"z": still}) == 0
    steps = torch.arange(4.0)[None, :, None] * torch.tensor([3.0, 4.0])  # length 5 a step
    assert judge("z_smooth", {"z": steps}).item() == pytest.approx(5 - 0.5)


def test_z_straight_is_zero_on_a_line_two_on_a_return_and_one_on_a_turn():
    line = torch.arange(3.0)[None, :, None] * torch.tensor([1.0, 2.0])
    assert judge("z_straight", {"z": line}).item() == pytest.approx(0, abs=1e-6)
    back = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]])
    assert judge("z_straight", {"z": back}).item() == pytest.approx(2)
    turn = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]])
    assert judge("z_straight", {"z": turn}).item() == pytest.approx(1)


def test_impossible_options_are_refused():
    for options in ({"knots": 16}, {"knots": 1}, {"directions": 0}, {"bound": 0.0}):
        with pytest.raises(ValueError, match="knots odd"):
            SigregConfig(**options)
    with pytest.raises(ValueError, match="directions"):
        SlicedConfig(directions=0)
