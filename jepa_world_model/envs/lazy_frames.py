"""Frames that are drawn when they are asked for: a data set of pictures at the size of its states."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


class LazyFrames:
    """Looks like an array [N,C,H,W] uint8; indexing by rows draws them from the stored states."""

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, draw: Callable[[np.ndarray], np.ndarray], states: np.ndarray) -> None:
        self._draw = draw  # states [M,...] -> frames [M,C,H,W]
        self._states = states
        self.shape = (len(states), *draw(states[:1]).shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: int | slice | np.ndarray) -> np.ndarray:
        picked = self._states[rows]
        if picked.ndim < self._states.ndim:
            return self._draw(picked[None])[0]
        return self._draw(picked)

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("lazy frames hold no pixels, so an array of them is always new")
        drawn = self[:]
        return drawn if dtype is None else drawn.astype(dtype)
