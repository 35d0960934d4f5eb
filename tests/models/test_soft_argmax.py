"""Key points by C: those of torch's operations, in every corner, and what happens where it is not to be had."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from jepa_world_model.core.errors import UserError
from jepa_world_model.models import soft_argmax
from jepa_world_model.models.encoder import Encoder, SpatialSoftArgmax
from tests.models.build import small

MISSING = soft_argmax.ROUTINE.missing()
by_c = pytest.mark.skipif(bool(MISSING), reason=MISSING)


def drawn(n: int, cells: int, maps: int, dtype=torch.float32) -> tuple[torch.Tensor, ...]:
    """Heat, where the cells are, and a gradient of the points."""
    draw = torch.Generator().manual_seed(7)
    rand = lambda *shape: torch.randn(shape, generator=draw)
    return (rand(n, cells, maps) * 2 + 1).to(dtype), rand(cells, 2), rand(n, 2, maps)


def exactly(heat, sharpness, grid, grad):
    """Points, gradient of heat and of sharpness by the formula, in double precision."""
    heat = heat.detach().double().requires_grad_()
    sharpness = torch.tensor(sharpness, dtype=torch.float64, requires_grad=True)
    cells = heat.shape[1]
    even = F.layer_norm(heat.transpose(1, 2), (cells,), eps=soft_argmax.TINY)
    points = ((even * sharpness).softmax(-1) @ grid.double()).transpose(1, 2)
    return points, *torch.autograd.grad(points, [heat, sharpness], grad.double())


def found(heat, sharpness, grid, grad):
    heat, sharpness = heat.detach().requires_grad_(), torch.tensor(sharpness, requires_grad=True)
    points = soft_argmax.points_of(heat, sharpness, grid)
    return points, *torch.autograd.grad(points, [heat, sharpness], grad)


def off(found, wanted):
    pairs = [(a.detach().double(), b.detach()) for a, b in zip(found, wanted, strict=True)]
    return [float((a - b).norm() / b.norm().clamp(min=1e-3)) for a, b in pairs]


def test_what_is_expected_of_the_probe_is_what_the_formula_finds():
    n, cells, maps = 2, 12, 19
    wave = lambda *shape: torch.sin(1.7 * torch.arange(math.prod(shape), dtype=torch.float64)).reshape(shape)
    points, slopes, _ = exactly(wave(n, cells, maps), 3.0, wave(cells, 2), wave(n, 2, maps))
    sums = [float((x.detach() * wave(*x.shape).cos()).sum()) for x in (points * wave(*points.shape), slopes)]
    assert sums == pytest.approx(soft_argmax.ROUTINE.expected[:2], rel=1e-4)


@by_c
@pytest.mark.parametrize("shape", [(2, 256, 64), (3, 25, 19), (1, 4, 1), (2, 9, 33), (1, 1, 5), (0, 9, 4)])
@pytest.mark.parametrize("sharpness", [4.0, -3.0, 0.0, 12.0])
def test_points_and_gradients_are_those_of_the_formula(shape, sharpness):
    heat, grid, grad = drawn(*shape)
    *exact, into_sharpness = off(found(heat, sharpness, grid, grad), exactly(heat, sharpness, grid, grad))
    assert max(exact) < 1e-5
    assert into_sharpness < 3e-4  # a sum whose parts cancel; torch's own in fp32 is as far off


@by_c
def test_heat_in_bf16_is_taken_and_its_gradient_rounded_once():
    heat, grid, grad = drawn(3, 64, 21, torch.bfloat16)
    points, slopes, into = found(heat, 4.0, grid, grad)
    want = exactly(heat, 4.0, grid, grad)
    assert (points.dtype, slopes.dtype, into.dtype) == (torch.float32, torch.bfloat16, torch.float32)
    assert max(off((points, into), (want[0], want[2]))) < 1e-5
    assert (slopes != want[1].bfloat16()).float().mean() < 0.01  # the others: on the border of two


@by_c
def test_a_view_is_what_it_shows_and_a_type_what_it_says():
    heat, grid, grad = drawn(2, 49, 20)
    view = heat.transpose(1, 2).contiguous().transpose(1, 2)
    where = grid.T.contiguous().T
    assert all(map(torch.equal, found(view, 4.0, where, grad), found(heat, 4.0, grid, grad)))
    half = soft_argmax.points_of(heat, torch.tensor(4.0, dtype=torch.bfloat16), grid.bfloat16())
    assert torch.equal(half, soft_argmax.points_of(heat, torch.tensor(4.0), grid.bfloat16().float()))


@by_c
def test_a_flat_map_has_its_point_in_the_middle_and_pulls_at_nothing():
    grid = torch.cartesian_prod(torch.linspace(-1, 1, 5), torch.linspace(-1, 1, 5))
    points, slopes, into = found(torch.full((1, 25, 3), 2.5), 4.0, grid, torch.ones(1, 2, 3))
    torch.testing.assert_close(points, torch.zeros(1, 2, 3), atol=1e-6, rtol=0)
    assert slopes.sum(1).abs().max() < 1e-3  # what moves the whole map moves no point
    assert into.abs() < 1e-4


@by_c
def test_the_bits_do_not_depend_on_the_number_of_threads(at_threads):
    heat, grid, grad = drawn(5, 49, 40)
    first, *others = at_threads(lambda: found(heat, 4.0, grid, grad), 1, 2, 3)
    assert all(torch.equal(a, b) for one in others for a, b in zip(one, first, strict=True))


@by_c
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(bad):
    heat, grid, grad = drawn(2, 25, 18)
    heat[1, 3, 17] = bad
    points, slopes, into = found(heat, 4.0, grid, grad)
    assert points[1, :, 17].isnan().all()
    assert slopes[1, :, 17].isnan().any()
    assert into.isnan()
    assert points[0].isfinite().all()
    assert points[1, :, :17].isfinite().all()
    assert slopes[0].isfinite().all()


@by_c
def test_operators_that_torch_can_trace():
    heat, grid, grad = drawn(2, 9, 5)
    sharpness = torch.tensor(4.0)
    points, kept = soft_argmax.soft_argmax(heat, sharpness, grid)
    for operator, given in (
        (soft_argmax.soft_argmax, (heat, sharpness, grid)),
        (soft_argmax.soft_argmax_back, (heat, sharpness, grid, points, kept, grad)),
    ):
        torch.library.opcheck(operator, given, test_utils=("test_schema", "test_faketensor"))


@by_c
def test_what_is_served():
    assert soft_argmax.serves(torch.zeros(1, 4, 2))
    assert soft_argmax.serves(torch.zeros(1, 4, 2, dtype=torch.bfloat16))
    assert not soft_argmax.serves(torch.zeros(1, 4, 2, dtype=torch.float64))
    assert not soft_argmax.serves(torch.zeros(1, 4, 2, device="meta"))
    heat = drawn(3, 9, 2)[0]
    rows = torch.func.vmap(lambda x: SpatialSoftArgmax(3)(x[None])[0])(heat.transpose(1, 2))
    torch.testing.assert_close(rows, SpatialSoftArgmax(3)(heat.transpose(1, 2)))


@pytest.mark.parametrize("autocast", [False, True])
def test_without_a_compiler_the_encoder_is_the_same_by_torch(monkeypatch, tmp_path, autocast):
    torch.manual_seed(0)
    encoder, x = Encoder(small(keypoints=7)), torch.rand(3, 3, 32, 32)

    def states_and_gradients():
        encoder.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            z = encoder(x)
            z.square().sum().backward()
        return [z.detach(), *(p.grad for p in encoder.parameters())]

    by_either = states_and_gradients()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setattr(soft_argmax, "ROUTINE", dataclasses.replace(soft_argmax.ROUTINE))
    assert not soft_argmax.serves(x)
    for a, b in zip(by_either, states_and_gradients(), strict=True):
        assert (a - b).norm() <= (0.02 if autocast else 1e-5) * b.norm()
    with pytest.raises(UserError, match="no C compiler"):
        soft_argmax.soft_argmax(torch.zeros(1, 4, 2), torch.ones(()), torch.zeros(4, 2))


@by_c
def test_a_library_that_finds_something_else_is_not_believed(monkeypatch, tmp_path):
    text = soft_argmax.ROUTINE.source.read_text()
    assert text.count("1.6666665459e-1f") == 1
    wrong = tmp_path / "soft_argmax.c"
    wrong.write_text(text.replace("1.6666665459e-1f", "1.8e-1f"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert (
        "compiled to something else here" in dataclasses.replace(soft_argmax.ROUTINE, source=wrong).missing()
    )


@by_c
def test_the_encoder_has_its_points_from_c(monkeypatch):
    shapes, own = [], soft_argmax.soft_argmax
    monkeypatch.setattr(
        soft_argmax, "soft_argmax", lambda heat, *rest: (shapes.append(heat.shape), own(heat, *rest))[1]
    )
    cfg = small(keypoints=7)
    Encoder(cfg)(torch.rand(2, 3, 32, 32))
    assert [(n, maps) for n, _, maps in shapes] == [(2, 7)]
