"""Images as arrays: square with padding, and augmented sample by sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from jepa_world_model.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes of training images; each image of a batch has its own."""

    # Real cameras need about 0.15. Off for the embedded arm, whose light never changes: with 0.15 its answers took
    # three times the steps, and presets of full size turn it on.
    brightness: float = 0.0  # largest share added or taken
    contrast: float = 0.0  # largest share added or taken
    shift: int = 0  # largest shift in pixels, filled from the border; moves targets, so keep it small

    def __post_init__(self) -> None:
        if not (0 <= self.brightness < 1 and 0 <= self.contrast < 1 and self.shift >= 0):
            raise UserError(
                f"brightness and contrast must lie in [0, 1), shift must be 0 or more, got {self}"
            )


def resize_with_pad(images: np.ndarray, size: int) -> np.ndarray:
    """Square images with the aspect kept and black bars. Shapes: [N,3,H,W] uint8 -> [N,3,size,size] uint8."""
    height, width = images.shape[2:]
    if (height, width) == (size, size):
        return images
    scale = size / max(height, width)
    inner = max(round(height * scale), 1), max(round(width * scale), 1)
    x = torch.from_numpy(np.ascontiguousarray(images)).float()
    x = F.interpolate(x, size=inner, mode="bilinear", antialias=True, align_corners=False)
    top, left = (size - inner[0]) // 2, (size - inner[1]) // 2
    x = F.pad(x, (left, size - inner[1] - left, top, size - inner[0] - top))
    return x.round().clamp(0, 255).to(torch.uint8).numpy()


def augment(
    images: np.ndarray, cfg: AugmentConfig, rng: np.random.Generator, *, rank: int = 0, world: int = 1
) -> np.ndarray:
    """Changed copies; the cameras of a row share their change. Shapes: [B,C,3,H,W] uint8 -> the same.

    rank, world: the images are every world-th row of a batch, from row `rank` on, and change as they would in it.
    """
    rows = len(images) * world
    shape = (rows, 1, 1, 1, 1)
    gain = 1 + rng.uniform(-cfg.contrast, cfg.contrast, shape).astype(np.float32)[rank::world]
    offset = 255 * rng.uniform(-cfg.brightness, cfg.brightness, shape).astype(np.float32)[rank::world]
    out = images
    if cfg.shift:
        by = rng.integers(-cfg.shift, cfg.shift + 1, (rows, 2))[rank::world]
        out = np.stack([_shifted(image, *move) for image, move in zip(images, by, strict=True)])
    if cfg.brightness or cfg.contrast:
        out = ((out - np.float32(127.5)) * gain + (127.5 + offset)).round().clip(0, 255).astype(np.uint8)
    return out


def _shifted(image: np.ndarray, down: int, right: int) -> np.ndarray:
    size = image.shape[-2:]
    rows = np.clip(np.arange(size[0]) - down, 0, size[0] - 1)
    columns = np.clip(np.arange(size[1]) - right, 0, size[1] - 1)
    return image[..., rows[:, None], columns[None, :]]
