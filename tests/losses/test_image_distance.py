"""Distances between pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jepa_world_model.losses import image_distance as fast
from jepa_world_model.losses import multi_box as kernel
from jepa_world_model.losses.image_distance import (
    TINY,
    MultiBoxConfig,
    MultiBoxMseConfig,
    MultiGaussConfig,
    PatchConfig,
)
from tests.reference import image_distance as slow

TWINS = {
    "multi_box": (MultiBoxConfig(), (TINY,)),
    "multi_box_mse": (MultiBoxMseConfig(), ()),
    "multi_gauss": (MultiGaussConfig(), (TINY,)),
    "patch": (PatchConfig(), (TINY,)),
}
OTHERS = {
    "multi_box": MultiBoxConfig(
        kernels=(5, 4), strides=(3, 4), betas=(1.5, 0.0), lambdas=(0.2, 1.0), max_hardness=3.0
    ),
    "multi_box_mse": MultiBoxMseConfig(lambdas=(1.0,)),
    "multi_gauss": MultiGaussConfig(
        kernels=(7, 4), sigmas=(2.0, 1.0), betas=(1.0, 3.0), lambdas=(0.2, 1.0), max_hardness=3.0
    ),
    "patch": PatchConfig(patch=7, beta=2.5, max_hardness=1.5),
}


@pytest.fixture(autouse=True, params=["by C", "by torch"])
def way(request, monkeypatch):
    """Every test of boxes holds for both ways to find them."""
    if request.param == "by torch":
        monkeypatch.setattr(kernel, "serves", lambda difference: False)
    elif kernel.ROUTINE.missing():
        pytest.skip(kernel.ROUTINE.missing())
    return request.param


def pictures(*shape: int, seed: int = 0) -> torch.Tensor:
    """Pictures that err a little everywhere and much in one spot."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(shape, generator=generator)
    x[..., : shape[-2] // 3, : shape[-1] // 3] *= 4
    return x


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (2, 2, 17, 33), (1, 1, 5, 5), (1, 3, 1, 1), (1, 2, 12, 3)])
@pytest.mark.parametrize("options", ["default", "other"])
@pytest.mark.parametrize("name", TWINS)
def test_equals_its_slow_twin(name, options, shape):
    x_hat, x = pictures(*shape), pictures(*shape, seed=1)
    default, extra = TWINS[name]
    chosen = default if options == "default" else OTHERS[name]
    want = getattr(slow, name)(x_hat.numpy(), x.numpy(), chosen, *extra)
    assert getattr(fast, name)(x_hat, x, chosen).item() == pytest.approx(want, rel=1e-5, abs=1e-7)


def test_default_shape_equals_its_slow_twin_at_full_size():
    x_hat, x = pictures(1, 3, 65, 65), pictures(1, 3, 65, 65, seed=1)
    want = slow.multi_box(x_hat.numpy(), x.numpy(), MultiBoxConfig(), TINY)
    assert fast.multi_box(x_hat, x).item() == pytest.approx(want, rel=1e-5)
    want = slow.patch(x_hat.numpy(), x.numpy(), PatchConfig(), TINY)
    assert fast.patch(x_hat, x).item() == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("name", TWINS)
def test_zero_for_equal_pictures_and_without_a_gradient_that_is_not_finite(name):
    x = pictures(2, 3, 16, 16)
    x_hat = x.clone().requires_grad_()
    distance = getattr(fast, name)(x_hat, x)
    (gradient,) = torch.autograd.grad(distance, x_hat)
    assert distance == 0
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", ["multi_box", "multi_gauss", "patch"])
def test_an_even_error_is_its_own_distance(name):
    x = pictures(2, 3, 33, 33)
    assert getattr(fast, name)(x + 0.1, x).item() == pytest.approx(0.1, rel=1e-4)


def test_an_even_error_squared_is_its_own_distance():
    x = pictures(2, 3, 33, 33)
    assert fast.multi_box_mse(x + 0.1, x).item() == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize("name", ["multi_box", "multi_gauss", "patch"])
def test_an_error_in_one_spot_counts_more_than_its_mean(name):
    x = torch.zeros(1, 1, 64, 64)
    x_hat = torch.full_like(x, 0.01)
    x_hat[..., 20:24, 40:44] = 0.5
    assert getattr(fast, name)(x_hat, x) > 1.1 * (x_hat - x).abs().mean()


@pytest.mark.parametrize("name", TWINS)
def test_distances_grow_with_the_error_and_every_picture_counts_alike(name):
    x_hat, x = pictures(3, 3, 32, 32), pictures(3, 3, 32, 32, seed=1)
    distance = getattr(fast, name)
    near, far = distance(x + (x_hat - x) * 0.5, x), distance(x_hat, x)
    assert far > near > 0
    alone = torch.stack([distance(x_hat[i : i + 1], x[i : i + 1]) for i in range(3)])
    assert far.item() == pytest.approx(alone.mean().item(), rel=1e-5)
    assert distance(x_hat[[2, 0, 1]], x[[2, 0, 1]]).item() == pytest.approx(far.item(), rel=1e-5)


@pytest.mark.parametrize("name", ["multi_box", "multi_gauss", "patch"])
def test_the_weights_are_constants(name):
    """The gradient is that of a weighted mean of errors: a share of one, spread over the pixels."""
    x = pictures(1, 2, 16, 16)
    x_hat = (x + 0.2 + pictures(1, 2, 16, 16, seed=1)).requires_grad_()
    (gradient,) = torch.autograd.grad(getattr(fast, name)(x_hat, x), x_hat)
    assert gradient.min() >= 0
    assert gradient.sum().item() == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (2, 2, 17, 33), (1, 1, 5, 6), (1, 3, 1, 1), (1, 2, 12, 3)])
@pytest.mark.parametrize("options", ["default", "other"])
@pytest.mark.parametrize("name", ["multi_box", "multi_gauss"])
def test_the_gradient_found_on_the_way_is_the_one_autograd_finds(monkeypatch, name, options, shape):
    x_hat, x = pictures(*shape).requires_grad_(), pictures(*shape, seed=1)
    chosen = (TWINS[name][0] if options == "default" else OTHERS[name],)
    value = getattr(fast, name)(x_hat, x, *chosen)
    (gradient,) = torch.autograd.grad(3 * value, x_hat)

    def plainly(difference, lambdas, hardness):
        total = difference.new_zeros(())
        for scale, (share, level) in enumerate(
            zip(lambdas, fast._pyramid(difference, len(lambdas)), strict=True)
        ):
            e = fast._error(level)
            total = total + share / difference.shape[1] * fast._weighted_mean(e, hardness(e.detach(), scale))
        return total

    monkeypatch.setattr(fast, "_over_scales", plainly)
    slow_value = getattr(fast, name)(x_hat, x, *chosen)
    (slow_gradient,) = torch.autograd.grad(3 * slow_value, x_hat)
    assert value.item() == pytest.approx(slow_value.item(), rel=1e-6)
    torch.testing.assert_close(gradient, slow_gradient, rtol=1e-5, atol=1e-9)  # sums in another order


def test_the_gradient_scales_with_the_weight_and_can_be_asked_for_again():
    x_hat, x = pictures(2, 3, 16, 16).requires_grad_(), pictures(2, 3, 16, 16, seed=1)
    value = fast.multi_box(x_hat, x)
    slopes = [torch.autograd.grad(w * value, x_hat, retain_graph=True)[0] for w in (1.0, 3.0, 1.0)]
    both = torch.autograd.grad(value + 1.0 * value, x_hat, retain_graph=True)[0]
    torch.testing.assert_close(slopes[1], 3 * slopes[0])
    torch.testing.assert_close(both, 2 * slopes[0])
    assert torch.equal(slopes[2], slopes[0])


def test_memory_layout_does_not_matter():
    x_hat, x = pictures(2, 3, 32, 32), pictures(2, 3, 32, 32, seed=1)
    laid = [t.contiguous(memory_format=torch.channels_last) for t in (x_hat, x)]
    assert fast.multi_box(*laid).item() == pytest.approx(fast.multi_box(x_hat, x).item(), rel=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MultiBoxConfig(kernels=(8, 16)), "kernels has 2 entries for 3 scales"),
        (lambda: MultiBoxConfig(lambdas=(0.0, 0.0, 0.0)), "one of them above 0"),
        (lambda: MultiBoxConfig(betas=(-1.0, 2.0, 2.0)), "betas must be 0 or above"),
        (lambda: MultiBoxConfig(strides=(0, 8, 8)), "1 px or above"),
        (lambda: MultiBoxConfig(max_hardness=0.5), "max_hardness must be 1 or above"),
        (lambda: MultiBoxMseConfig(lambdas=()), "lambdas must be 0 or above"),
        (lambda: MultiGaussConfig(sigmas=(16.0, 0.0, 16.0)), "sigmas must be above 0"),
        (lambda: PatchConfig(patch=1), "patch must be 2 px or above"),
        (lambda: PatchConfig(beta=-1.0), "beta must be 0 or above"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_wider_bell_sees_further():
    matrix = fast._bell(9, 4, 1.0, torch.device("cpu"))
    np.testing.assert_allclose(matrix.sum(1), np.ones(9), rtol=1e-6)
    assert matrix[4, 1] == 0
    assert matrix[4, 2] > 0
