"""Distances between pictures: where a reconstruction errs more than around, it counts more.

All take pictures [N,C,H,W] and give a scalar; every picture counts alike. What weighs an error, its hardness,
is a constant. The pyramid halves the difference of two pictures by 2x2 means; odd sizes round up, the last
cell is the mean of what is left, and a map of one pixel stays. A kernel larger than its map is cut to the
map's shorter side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_world_model.core.barrier import stop
from jepa_world_model.losses import multi_box as kernel
from jepa_world_model.losses.multi_box import TINY


@dataclass(frozen=True, kw_only=True)
class MultiBoxConfig:
    """Hardness from box means, at every scale of a pyramid. One entry a scale, the finest first."""

    kernels: tuple[int, ...] = (8, 16, 16)  # px of the scale's map: side of the box an error is held against
    strides: tuple[int, ...] = (4, 8, 8)  # px between boxes; equal to the kernel: boxes side by side
    # power of the hardness; 0: plain L1, above 4: the worst pixels alone
    betas: tuple[float, ...] = (2.0, 2.0, 2.0)
    lambdas: tuple[float, ...] = (1 / 3, 1 / 3, 1 / 3)  # weight of the scale
    max_hardness: float = 100.0  # clamp; 1: nothing counts more than average

    def __post_init__(self) -> None:
        _check_scales(self.lambdas, kernels=self.kernels, strides=self.strides, betas=self.betas)
        _check_clamp(self.max_hardness)
        _check_kernels(self.kernels, self.strides)


@dataclass(frozen=True, kw_only=True)
class MultiBoxMseConfig:
    """Mean squared errors at every scale of a pyramid."""

    lambdas: tuple[float, ...] = (1 / 3, 1 / 3, 1 / 3)  # weight of each scale, the full resolution first

    def __post_init__(self) -> None:
        _check_scales(self.lambdas)


@dataclass(frozen=True, kw_only=True)
class MultiGaussConfig:
    """Hardness from Gaussian means, at every scale of a pyramid. One entry a scale, the finest first."""

    kernels: tuple[int, ...] = (32, 32, 32)  # px of the scale's map: where the bell is cut, half to each side
    sigmas: tuple[float, ...] = (16.0, 16.0, 16.0)  # px, width of the bell
    betas: tuple[float, ...] = (2.0, 2.0, 2.0)  # power of the hardness; 0: plain L1
    lambdas: tuple[float, ...] = (1 / 3, 1 / 3, 1 / 3)  # weight of the scale
    max_hardness: float = 100.0  # clamp; 1: nothing counts more than average

    def __post_init__(self) -> None:
        _check_scales(self.lambdas, kernels=self.kernels, sigmas=self.sigmas, betas=self.betas)
        _check_clamp(self.max_hardness)
        _check_kernels(self.kernels)
        if min(self.sigmas) <= 0:
            raise ValueError(f"sigmas must be above 0, got {self.sigmas}")


@dataclass(frozen=True, kw_only=True)
class PatchConfig:
    """Half-overlapping patches, the hard ones counting more."""

    patch: int = 32  # px, side of a patch; the next one starts half a side on
    beta: float = 1.0  # power of the hardness of a patch; 0: plain L1, above 4: the worst patch alone
    max_hardness: float = 100.0  # clamp; 1: no patch counts more than average

    def __post_init__(self) -> None:
        if self.patch < 2:
            raise ValueError(f"patch must be 2 px or above, got {self.patch}")
        if self.beta < 0:
            raise ValueError(f"beta must be 0 or above, got {self.beta}")
        _check_clamp(self.max_hardness)


def _check_scales(lambdas: Sequence[float], **others: Sequence[float]) -> None:
    if not lambdas or min(lambdas) < 0 or max(lambdas) == 0:
        raise ValueError(f"lambdas must be 0 or above and one of them above 0, got {tuple(lambdas)}")
    for name, values in others.items():
        if len(values) != len(lambdas):
            raise ValueError(
                f"{name} has {len(values)} entries for {len(lambdas)} scales (lambdas); give one a scale"
            )
    if min(others.get("betas", (0,))) < 0:
        raise ValueError(f"betas must be 0 or above, got {tuple(others['betas'])}")


def _check_clamp(max_hardness: float) -> None:
    if max_hardness < 1:
        raise ValueError(f"max_hardness must be 1 or above, got {max_hardness}")


def _check_kernels(*sizes: Sequence[int]) -> None:
    if min(map(min, sizes)) < 1:
        raise ValueError(f"kernels and strides must be 1 px or above, got {[tuple(s) for s in sizes]}")


def _halved(x: Tensor) -> Tensor:
    """2x2 means; at an odd border the mean of what is left."""
    if x.shape[2] % 2 or x.shape[3] % 2:
        return F.avg_pool2d(x, 2, ceil_mode=True)
    rows = x[:, :, ::2] + x[:, :, 1::2]  # twice as fast on a CPU as avg_pool2d, forward and backward
    return (rows[..., ::2] + rows[..., 1::2]).mul_(0.25)


def _pyramid(difference: Tensor, scales: int) -> list[Tensor]:
    """The difference at every scale. Halving is linear: this is also the difference of two pyramids."""
    levels = [difference]
    for _ in range(scales - 1):
        levels.append(_halved(levels[-1]))
    return levels


def _error(difference: Tensor) -> Tensor:
    """C times the L1 error of each pixel, [N,C,H,W] -> [N,H,W]."""
    # The sum, not the mean: the backward of a mean divides at full size what `_weighted_mean` divides once.
    return difference.abs().sum(1)


def _error_of_constants(difference: Tensor) -> Tensor:
    """The same without a map of every channel's absolute values; in place, so not for autograd."""
    e = difference[:, 0].abs()
    for channel in difference.unbind(1)[1:]:
        e += channel.abs()
    return e


def _hardness(e: Tensor, one_over_mean: Tensor, beta: float, most: float) -> Tensor:
    """(error / neighbourhood mean)^beta, clamped. Constants in, constants out."""
    ratio = e * one_over_mean
    return (ratio.square_() if beta == 2 else ratio.pow_(beta)).clamp_(max=most)


def _weighted_mean(e: Tensor, weight: Tensor) -> Tensor:
    """The weighted mean of each picture's errors, then the mean over pictures. [N,H,W] twice -> []."""
    return ((e * weight).sum((1, 2)) / (weight.sum((1, 2)) + TINY)).mean()


def _one_over_box_mean(e: Tensor, kernel: int, stride: int) -> Tensor:
    """1 / the mean of a pixel's box, [N,H,W]: boxes lie inside the map, and their grid is spread over it."""
    kernel = min(kernel, *e.shape[1:])
    boxes = F.avg_pool2d(e[:, None], kernel, stride)[:, 0].add_(TINY).reciprocal_()
    # Row and column lookups: on a CPU a multiple as fast as interpolate(mode="nearest"), the same numbers.
    for axis in (2, 1):
        size, grid = e.shape[axis], boxes.shape[axis]
        boxes = boxes.index_select(axis, torch.arange(size, device=e.device) * grid // size)
    return boxes


class _WithSlopes(torch.autograd.Function):
    """A distance of `difference` whose gradient is found on the way.

    The weights are constants, so the gradient is sign(difference) times a map that the value needs anyway. Autograd's own
    way keeps six maps of full size and walks through them backwards: 1.6 times as long, forward and backward.
    """

    @staticmethod
    def forward(
        ctx: Any, difference: Tensor, find: Callable[[Tensor, bool], tuple[Tensor, Tensor | None]]
    ) -> Tensor:
        distance, slopes = find(difference, ctx.needs_input_grad[0])
        ctx.save_for_backward(slopes)
        return distance

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (slopes,) = ctx.saved_tensors
        return slopes * grad, None


def _weighted_errors(
    lambdas: Sequence[float], hardness: Callable[[Tensor, int], Tensor], difference: Tensor, wanted: bool
) -> tuple[Tensor, Tensor | None]:
    """The sum over scales of share * the weighted mean of |difference|, and its gradient where it is wanted."""
    n, channels = difference.shape[:2]
    levels, total, slopes = _pyramid(difference, len(lambdas)), difference.new_zeros(()), []
    for scale, share in enumerate(lambdas):
        e = _error_of_constants(levels[scale])
        weight = hardness(e, scale)
        one_over = 1 / (weight.sum((1, 2)) + TINY)  # [N]
        total = total + share / channels * ((e * weight).sum((1, 2)) * one_over).mean()
        slopes.append(weight.mul_((share / channels / n * one_over)[:, None, None]))
    return total, _uphill(levels, slopes) if wanted else None


def _by_kernel(o: MultiBoxConfig, difference: Tensor, wanted: bool) -> tuple[Tensor, Tensor]:
    """The same of boxes, by C."""
    distances, slopes = kernel.multi_box(
        difference, o.kernels, o.strides, o.betas, o.lambdas, o.max_hardness, wanted
    )
    return distances.mean(), slopes


def _uphill(levels: Sequence[Tensor], slopes: Sequence[Tensor]) -> Tensor:
    """The gradient of sum over scales and pixels of slope * |level|, carried up the pyramid to full size."""
    carried: Tensor | None = None
    for level, slope in zip(reversed(levels), reversed(slopes), strict=True):
        own = level.sign().mul_(slope[:, None])
        carried = own if carried is None else _add_halved_back(own, carried)
    assert carried is not None
    return carried


def _add_halved_back(own: Tensor, carried: Tensor) -> Tensor:
    """`own` [N,C,H,W] with the adjoint of `_halved` on `carried` [N,C,ceil(H/2),ceil(W/2)] added in place."""
    if not (own.shape[2] % 2 or own.shape[3] % 2):
        # Wide first: whole rows are then added, 2.4 times as fast as adding to every other pixel of one.
        wide = carried.repeat_interleave(2, 3)[:, :, :, None]  # [N,C,H/2,1,W]
        own.unflatten(2, (-1, 2)).add_(wide, alpha=0.25)
        return own
    for y in (0, 1):
        for x in (0, 1):
            place = own[:, :, y::2, x::2]
            part = carried[:, :, : place.shape[2], : place.shape[3]]
            place.add_(part, alpha=0.25)
    # At an odd border the last cell is the mean of two pixels, in the corner of one.
    if own.shape[2] % 2:
        own[:, :, -1, :].add_(carried[:, :, -1].repeat_interleave(2, 2)[..., : own.shape[3]], alpha=0.25)
    if own.shape[3] % 2:
        own[..., -1].add_(carried[..., -1].repeat_interleave(2, 2)[..., : own.shape[2]], alpha=0.25)
    if own.shape[2] % 2 and own.shape[3] % 2:
        own[:, :, -1, -1].add_(carried[:, :, -1, -1], alpha=0.25)
    return own


def _over_scales(
    difference: Tensor, lambdas: Sequence[float], hardness: Callable[[Tensor, int], Tensor]
) -> Tensor:
    """The weighted mean error of every scale, summed with lambdas."""
    return _WithSlopes.apply(difference, partial(_weighted_errors, lambdas, hardness))


def multi_box(x_hat: Tensor, x: Tensor, options: MultiBoxConfig | None = None) -> Tensor:
    """The L1 distance at every scale, weighted towards errors larger than those around.

    Formula: per scale e = mean over channels of |x_hat - x|, hardness w = clamp((sg e / boxmean(sg e))^beta),
    then sum(w e) / sum(w) of each picture, mean over pictures; summed over scales with lambdas.
    """
    return multi_box_of(x_hat - x, options)


def multi_box_of(difference: Tensor, options: MultiBoxConfig | None = None) -> Tensor:
    """`multi_box` of two lists of pictures with this difference, [...,C,H,W]."""
    o = options or MultiBoxConfig()
    if kernel.serves(difference):
        # Not as one list of pictures: a compiler would write a view of the difference down a second time.
        return _WithSlopes.apply(difference, partial(_by_kernel, o))

    def hardness(e: Tensor, scale: int) -> Tensor:
        one_over_mean = _one_over_box_mean(e, o.kernels[scale], o.strides[scale])
        return _hardness(e, one_over_mean, o.betas[scale], o.max_hardness)

    return _over_scales(difference.flatten(0, -4), o.lambdas, hardness)


def multi_box_mse(x_hat: Tensor, x: Tensor, options: MultiBoxMseConfig | None = None) -> Tensor:
    """The mean squared error at every scale, summed with lambdas. No hardness."""
    lambdas = (options or MultiBoxMseConfig()).lambdas
    levels = _pyramid(x_hat - x, len(lambdas))
    return torch.stack([w * d.square().mean() for w, d in zip(lambdas, levels, strict=True)]).sum()


def _bell(size: int, kernel: int, sigma: float, device: torch.device) -> Tensor:
    """The matrix [size,size] that blurs a line; rows sum to one, so that a constant stays itself."""
    place = torch.arange(size, device=device, dtype=torch.float32)
    far = place[:, None] - place[None, :]
    bell = torch.exp(-0.5 * (far / sigma).square()) * (far.abs() <= kernel / 2)
    return bell / bell.sum(1, keepdim=True)


def multi_gauss(x_hat: Tensor, x: Tensor, options: MultiGaussConfig | None = None) -> Tensor:
    """The same as `multi_box` with a Gaussian mean around each pixel in the place of the box's.

    The blur is two matrix products, one a direction: same size, centred on the pixel, and at the border over
    what lies inside the picture.
    """
    o = options or MultiGaussConfig()

    def hardness(e: Tensor, scale: int) -> Tensor:
        down, across = (_bell(size, o.kernels[scale], o.sigmas[scale], e.device) for size in e.shape[1:])
        one_over_mean = (down @ e @ across.T).add_(TINY).reciprocal_()
        return _hardness(e, one_over_mean, o.betas[scale], o.max_hardness)

    return _over_scales(x_hat - x, o.lambdas, hardness)


def patch(x_hat: Tensor, x: Tensor, options: PatchConfig | None = None) -> Tensor:
    """The L1 distance over half-overlapping patches, weighted towards the hard ones of each picture.

    Formula: e_i = mean error of patch i, w_i = clamp((sg e_i / mean over patches of sg e)^beta), then
    sum(w e) / sum(w). Patches at the right and lower border are cut to the picture: every pixel lies in one.
    """
    o, side = options or PatchConfig(), min((options or PatchConfig()).patch, *x.shape[2:])
    pixels = _error(x_hat - x)[:, None]
    e = F.avg_pool2d(pixels, side, max(side // 2, 1), ceil_mode=True)[:, 0]  # [N,rows,columns]
    fixed = stop(e)
    one_over_mean = 1 / (fixed.mean((1, 2), keepdim=True) + TINY)
    return _weighted_mean(e, _hardness(fixed, one_over_mean, o.beta, o.max_hardness)) / x.shape[1]
