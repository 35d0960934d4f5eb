"""The encoder keeps positions."""

from __future__ import annotations

import torch

from jepa_world_model.models.encoder import Encoder, SpatialSoftArgmax
from tests.models.build import small


def spots(size: int = 32, step: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """A bright square of 4 px on a dark striped ground at every place, and where it is, in px."""
    where = torch.cartesian_prod(torch.arange(2, size - 6, step), torch.arange(2, size - 6, step))
    x = (torch.arange(size) % 4 < 2).float().mul(0.3).expand(len(where), 3, size, size).clone()
    for picture, (top, left) in zip(x, where, strict=True):
        picture[0, top : top + 4, left : left + 4] = 1
    return x, where.float()


def probe(train_z, train_p, test_z, test_p) -> float:
    """R^2 of a linear readout on places it was not fitted on."""
    ones = lambda z: torch.cat([z, torch.ones(len(z), 1)], 1).double()
    a, b = ones(train_z), train_p.double()
    weights = torch.linalg.solve(a.T @ a + 1e-6 * torch.eye(a.shape[1], dtype=a.dtype), a.T @ b)
    missed = (ones(test_z) @ weights - test_p).square().sum()
    return 1 - (missed / (test_p - test_p.mean(0)).square().sum()).item()


def test_soft_argmax_finds_a_peak():
    heat = torch.zeros(1, 2, 5, 5)
    heat[0, 0, 1, 4] = heat[0, 1, 2, 2] = 100
    peak = SpatialSoftArgmax(5)
    peak.sharpness.data.fill_(20.0)
    torch.testing.assert_close(peak(heat.flatten(2)), torch.tensor([[1.0, 0.0, -0.5, 0.0]]))


def test_soft_argmax_moves_as_its_map_does():
    bump = torch.zeros(1, 1, 9, 9)
    bump[..., 2:5, 3:6] = torch.rand(3, 3, generator=torch.Generator().manual_seed(0)) * 40 + 40
    where = SpatialSoftArgmax(9)
    where.sharpness.data.fill_(20.0)  # so that nothing of the softmax is left outside the bump
    moved = where(bump.roll((3, -2), (2, 3)).flatten(2)) - where(bump.flatten(2))
    torch.testing.assert_close(moved, torch.tensor([[-0.5, 0.75]]), atol=1e-4, rtol=0)


def test_positions_survive_untrained_convolutions():
    torch.manual_seed(0)
    x, where = spots()
    z = Encoder(small(z_dim=64, keypoints=32, encoder_schedule=(16, 32, 32)))(x).detach()
    held_out = torch.arange(len(x)) % 3 == 0
    assert probe(z[~held_out], where[~held_out], z[held_out], where[held_out]) > 0.95
    middle = ((where - 14).abs() < 7).all(1)  # places that the probe has seen nothing near of
    assert probe(z[~middle], where[~middle], z[middle], where[middle]) > 0.9


def test_equal_frames_have_equal_states_and_a_moved_spot_another():
    torch.manual_seed(0)
    encoder = Encoder(small())
    x, _ = spots(step=6)
    assert (encoder(x[:1]) == encoder(x[:1])).all()
    assert (encoder(x[:1]) - encoder(x[1:2])).abs().max() > 1e-4


def test_memory_layout_does_not_matter():
    torch.manual_seed(0)
    encoder, x = Encoder(small()), torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(encoder(x), encoder(x.contiguous(memory_format=torch.channels_last)))


def test_z_norm_puts_states_on_a_sphere():
    torch.manual_seed(0)
    z = Encoder(small(z_norm=True))(torch.rand(3, 3, 32, 32))
    torch.testing.assert_close(z.norm(dim=-1), torch.full((3,), 12**0.5))


def test_states_are_fp32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        assert Encoder(small())(torch.rand(2, 3, 32, 32)).dtype == torch.float32


def test_key_points_alone_carry_positions_to_places_never_seen():
    torch.manual_seed(0)
    x, where = spots()
    middle = ((where - 14).abs() < 7).all(1)
    apart = {}
    for flat in (True, False):
        schedule = (16, 32, 32) if flat else (16,)
        z = Encoder(small(z_dim=64, keypoints=32, encoder_schedule=schedule, flat_readout=flat))(x).detach()
        apart[flat] = 1 - probe(z[~middle], where[~middle], z[middle], where[middle])
    assert apart[False] < 0.2 * apart[True]


def test_without_the_flat_map_nothing_is_built_that_nobody_reads():
    torch.manual_seed(0)
    encoder = Encoder(small(flat_readout=False))
    encoder(torch.rand(2, 3, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in encoder.parameters())
