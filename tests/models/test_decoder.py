"""The decoder: sizes, layout, and what it can learn to draw."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from jepa_world_model.models.decoder import Decoder, depth_to_space, to_pixels
from tests.models.build import small


def test_depth_to_space_puts_each_channel_in_its_corner():
    x = torch.tensor([0.0, 1.0, 2.0, 3.0])[None, :, None, None]  # [1,4,1,1]
    want = torch.tensor([[0.0, 1.0], [2.0, 3.0]])[None, None]
    assert (depth_to_space(x, 2) == want).all()
    assert (to_pixels(x, 2) == want).all()
    assert (to_pixels(x, 1) == want[..., :1, :1]).all()


@pytest.mark.parametrize("function", [depth_to_space, to_pixels])
def test_depth_to_space_is_pixel_shuffle_with_channels_together(function):
    x = torch.rand(2, 12, 5, 5)
    reordered = x.unflatten(1, (4, 3)).transpose(1, 2).flatten(1, 2)
    assert (function(x, 9) == F.pixel_shuffle(reordered, 2)[..., :9, :9]).all()


def test_frames_leave_in_the_layout_of_frames():
    frames = Decoder(small())(torch.randn(4, 12))
    assert frames.is_contiguous()


@pytest.mark.parametrize("size", [65, 63, 8, 9])
def test_frames_have_the_size_of_those_encoded(size):
    cfg = small(image_size=size, in_channels=2)
    assert Decoder(cfg)(torch.randn(2, 3, 12)).shape == (2, 3, 2, size, size)


def test_a_start_is_mid_grey():
    torch.manual_seed(0)
    frames = Decoder(small())(torch.randn(64, 12))
    assert abs(frames.mean().item() - 0.5) < 0.2


def test_a_few_steps_of_training_draw_a_picture():
    torch.manual_seed(0)
    decoder, z = Decoder(small()), torch.randn(4, 12)
    x = F.interpolate(torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(0)), scale_factor=8)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=1e-2)
    for _ in range(100):
        loss = F.mse_loss(decoder(z), x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.5 * x.var()
