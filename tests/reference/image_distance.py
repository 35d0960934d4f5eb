"""Slow twins of the image distances: numpy, float64, one picture, one scale, one pixel after the other."""

from __future__ import annotations

import math

import numpy as np


def halve(picture: np.ndarray) -> np.ndarray:
    """2x2 means of a picture [C,H,W]; at an odd border the mean of what is left."""
    channels, height, width = picture.shape
    small = np.empty((channels, -(-height // 2), -(-width // 2)))
    for y in range(small.shape[1]):
        for x in range(small.shape[2]):
            small[:, y, x] = picture[:, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean((1, 2))
    return small


def box_mean(e: np.ndarray, kernel: int, stride: int) -> np.ndarray:
    """For each pixel the mean of its box: boxes lie inside, and the grid of boxes is spread over the map."""
    height, width = e.shape
    kernel = min(kernel, height, width)
    rows, columns = (height - kernel) // stride + 1, (width - kernel) // stride + 1
    mean = np.empty_like(e)
    for y in range(height):
        for x in range(width):
            top, left = y * rows // height * stride, x * columns // width * stride
            mean[y, x] = e[top : top + kernel, left : left + kernel].mean()
    return mean


def gauss_mean(e: np.ndarray, kernel: int, sigma: float) -> np.ndarray:
    """For each pixel the bell-weighted mean around it, over what lies inside the picture."""
    height, width = e.shape
    mean = np.empty_like(e)
    for y in range(height):
        for x in range(width):
            total = weight = 0.0
            for v in range(height):
                for u in range(width):
                    if abs(v - y) <= kernel / 2 and abs(u - x) <= kernel / 2:
                        bell = math.exp(-((v - y) ** 2 + (u - x) ** 2) / (2 * sigma**2))
                        total, weight = total + bell * e[v, u], weight + bell
            mean[y, x] = total / weight
    return mean


def weighted(e: np.ndarray, mean: np.ndarray | float, beta: float, most: float, tiny: float) -> float:
    """sum(w e) / sum(w) with w = min((e / mean)^beta, most)."""
    weight = np.minimum((e / (mean + tiny)) ** beta, most)
    return float((weight * e).sum() / (weight.sum() + tiny))


def multi_box(x_hat: np.ndarray, x: np.ndarray, options, tiny: float) -> float:
    """The twin of `multi_box` for pictures [N,C,H,W]."""
    return _over_scales(
        x_hat, x, options, tiny, lambda e, s: box_mean(e, options.kernels[s], options.strides[s])
    )


def multi_gauss(x_hat: np.ndarray, x: np.ndarray, options, tiny: float) -> float:
    """The twin of `multi_gauss` for pictures [N,C,H,W]."""
    return _over_scales(
        x_hat, x, options, tiny, lambda e, s: gauss_mean(e, options.kernels[s], options.sigmas[s])
    )


def _over_scales(x_hat, x, options, tiny, neighbourhood) -> float:
    total = 0.0
    for a, b in zip(x_hat.astype(np.float64), x.astype(np.float64), strict=True):
        for scale, share in enumerate(options.lambdas):
            if scale:
                a, b = halve(a), halve(b)
            e = np.abs(a - b).mean(0)
            around = neighbourhood(e, scale)
            total += share * weighted(e, around, options.betas[scale], options.max_hardness, tiny)
    return total / len(x)


def multi_box_mse(x_hat: np.ndarray, x: np.ndarray, options) -> float:
    """The twin of `multi_box_mse` for pictures [N,C,H,W]."""
    total = 0.0
    for a, b in zip(x_hat.astype(np.float64), x.astype(np.float64), strict=True):
        for scale, share in enumerate(options.lambdas):
            if scale:
                a, b = halve(a), halve(b)
            total += share * float(((a - b) ** 2).mean())
    return total / len(x)


def patch(x_hat: np.ndarray, x: np.ndarray, options, tiny: float) -> float:
    """The twin of `patch` for pictures [N,C,H,W]."""
    total = 0.0
    for a, b in zip(x_hat.astype(np.float64), x.astype(np.float64), strict=True):
        pixels = np.abs(a - b).mean(0)
        side = min(options.patch, *pixels.shape)
        step = max(side // 2, 1)
        tops, lefts = (range(0, -(-(size - side) // step) * step + 1, step) for size in pixels.shape)
        e = np.array([[pixels[t : t + side, s : s + side].mean() for s in lefts] for t in tops])
        total += weighted(e, e.mean(), options.beta, options.max_hardness, tiny)
    return total / len(x)
