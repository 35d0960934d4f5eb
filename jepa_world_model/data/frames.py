"""Frames of any shape made square: with bars, cropped, or squeezed."""

from __future__ import annotations

import numpy as np
from PIL import Image

from jepa_world_model.core.errors import UserError

FITS = ("letterbox", "crop", "squeeze")


def check_fit(fit: str, where: str = "fit") -> None:
    """Errors: UserError for a fit that does not exist."""
    if fit not in FITS:
        raise UserError(
            f"{where} is {fit!r}; use letterbox (black bars, all is kept), crop (the square in the middle) or "
            "squeeze (all is kept, circles become ellipses)"
        )


def fit_frame(frame: np.ndarray, size: int, fit: str) -> np.ndarray:
    """A square of `size` px by area average, which keeps small moving things visible.

    Shapes: frame [H,W,C] uint8 -> [size,size,C]; unchanged where it has that size already.
    """
    height, width, channels = frame.shape
    if (height, width) == (size, size):
        return frame
    box, inner = (0, 0, width, height), (size, size)  # what is seen; the px (across, down) that it fills
    if fit == "crop":
        side = min(height, width)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
    elif fit == "letterbox":
        scale = size / max(height, width)
        inner = (max(round(width * scale), 1), max(round(height * scale), 1))
    planes = [frame] if channels == 3 else [np.ascontiguousarray(frame[:, :, c]) for c in range(channels)]
    small = [np.asarray(Image.fromarray(p).resize(inner, Image.Resampling.BOX, box)) for p in planes]
    made = small[0] if channels == 3 else np.stack(small, -1)
    across, down = inner
    if inner == (size, size):
        return made
    square = np.zeros((size, size, channels), np.uint8)
    left, top = (size - across) // 2, (size - down) // 2
    square[top : top + down, left : left + across] = made
    return square
