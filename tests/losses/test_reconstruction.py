"""Reconstruction of frames and of what changes between them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from jepa_world_model.losses.image_distance import MultiBoxConfig
from jepa_world_model.losses.measures import changes
from tests.losses.world import judge

FRAMES = ("recon", "recon_patch", "recon_multi_box", "recon_multi_box_mse", "recon_multi_gauss")
CHANGES = ("pixel_delta", "pixel_delta_multi_box")
X = torch.rand(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", FRAMES + CHANGES)
def test_a_right_picture_scores_zero_and_a_wrong_one_does_not(name):
    assert judge(name, {"x": X, "x_hat": X}).item() == pytest.approx(0, abs=1e-7)
    assert judge(name, {"x": X, "x_hat": 1 - X}) > 0.01


@pytest.mark.parametrize("name", FRAMES + CHANGES)
def test_a_brighter_film_is_a_wrong_picture_but_the_same_change(name):
    assert (judge(name, {"x": X, "x_hat": X + 0.25}).item() > 1e-3) == (name in FRAMES)


@pytest.mark.parametrize("name", FRAMES)
def test_a_uniform_error_keeps_its_scale(name):
    expected = 0.1**2 if name in ("recon", "recon_multi_box_mse") else 0.1
    assert judge(name, {"x": X, "x_hat": X + 0.1}).item() == pytest.approx(expected, rel=1e-3)


def test_the_multi_box_distances_take_their_own_options():
    broad = MultiBoxConfig(betas=(0.0, 0.0, 0.0))
    worse = X.clone()
    worse[..., :4, :4] += 0.5
    hard = judge("recon_multi_box", {"x": X, "x_hat": worse})
    assert hard > judge("recon_multi_box", {"x": X, "x_hat": worse}, options=broad)


def test_the_predicted_state_is_decoded_against_the_next_frame():
    assert judge("recon_zhat_multi_box", {"x": X, "x_from_z_hat": X[:, 1:]}) == 0
    assert judge("recon_zhat_multi_box", {"x": X, "x_from_z_hat": X[:, :-1]}) > 0.1


def test_the_change_of_the_error_is_the_error_of_the_change():
    """Pictures are subtracted once, then frames: value and gradient of subtracting frames first."""
    x_hat = (1 - X).requires_grad_()
    plain = F.mse_loss(x_hat[:, 1:] - x_hat[:, :-1], X[:, 1:] - X[:, :-1])
    found = judge("pixel_delta", {"x": X, "x_hat": x_hat})
    assert found.item() == pytest.approx(plain.item(), rel=1e-5)
    torch.testing.assert_close(
        *(torch.autograd.grad(y, x_hat)[0] for y in (found, plain)), rtol=1e-4, atol=1e-9
    )


def test_changes_carry_back_what_two_slices_carry_back():
    x = torch.randn(2, 5, 3, requires_grad=True)
    weight = torch.randn(2, 4, 3)
    plain = x[:, 1:] - x[:, :-1]
    assert torch.equal(changes(x), plain)
    torch.testing.assert_close(*(torch.autograd.grad((y * weight).sum(), x)[0] for y in (changes(x), plain)))
    assert torch.autograd.gradcheck(changes, torch.randn(1, 2, 2, dtype=torch.float64, requires_grad=True))
