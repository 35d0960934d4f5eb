"""The encoder's start: every feature of z has mean 0 and variance 1 over the frames it was calibrated on."""

from __future__ import annotations

import pytest
import torch

from jepa_world_model.models.calibrate import calibrate
from jepa_world_model.models.encoder import Encoder
from tests.models.build import small


def frames(cfg, count: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, cfg.in_channels, cfg.image_size, cfg.image_size, generator=generator)


@pytest.mark.parametrize(("keypoints", "flat"), [(0, True), (4, True), (8, False)])
def test_z_starts_standardised_over_the_data(keypoints, flat):
    torch.manual_seed(0)
    cfg = small(keypoints=keypoints, flat_readout=flat)
    encoder, x = Encoder(cfg), frames(cfg)
    before = encoder(x).std(0)
    calibrate(encoder, x)
    z = encoder(x)
    assert before.max() < 0.9
    torch.testing.assert_close(z.mean(0), torch.zeros(cfg.z_dim), atol=1e-3, rtol=0)
    torch.testing.assert_close(z.std(0), torch.ones(cfg.z_dim), atol=1e-3, rtol=0)


def test_z_norm_stays_on():
    torch.manual_seed(0)
    cfg = small(z_norm=True)
    encoder, x = Encoder(cfg), frames(cfg)
    calibrate(encoder, x)
    torch.testing.assert_close(encoder(x).norm(dim=-1), torch.full((64,), cfg.z_dim**0.5))


def test_constant_frames_do_not_blow_up():
    torch.manual_seed(0)
    encoder = Encoder(small())
    calibrate(encoder, torch.full((8, *frames(small()).shape[1:]), 0.5))
    assert all(p.isfinite().all() for p in encoder.parameters())
