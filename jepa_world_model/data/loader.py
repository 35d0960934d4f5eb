"""Loader: which windows belong to step n, computed from the seed and n alone."""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

import numpy as np

from jepa_world_model.core.errors import UserError
from jepa_world_model.data.batch import Batch
from jepa_world_model.data.windows import Windows


class NumpyStreams(Protocol):
    """Named random streams, such as `core.rng.Streams`."""

    def numpy(self, name: str, step: int = 0) -> np.random.Generator:
        """The generator of a name and a counter."""


class Loader:
    """Shuffled batches as a pure function of (seed, step): nothing to save, nothing to resume.

    Every epoch is one seeded permutation of all windows, and epochs follow each other without a gap, so each
    window comes exactly once an epoch and a batch may span two. With `world` processes `batch_size` is the
    global size, and process `rank` gets its contiguous share of the same global batch.
    """

    def __init__(
        self,
        windows: Windows,
        batch_size: int,
        streams: NumpyStreams,
        name: str = "loader",
        *,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if batch_size < 1 or batch_size % world:
            raise UserError(
                f"batch_size is {batch_size}; it must be at least 1 and a multiple of {world} processes"
            )
        if not 0 <= rank < world:
            raise ValueError(f"rank is {rank}; it must lie in 0..{world - 1}")
        self.windows = windows
        self.batch_size = batch_size
        self.rank = rank
        self.world = world
        # The two latest epochs: a batch touches at most two unless it is larger than the data set.
        self._order = lru_cache(maxsize=2)(lambda epoch: streams.numpy(name, epoch).permutation(len(windows)))

    @property
    def steps_per_epoch(self) -> float:
        """Steps in which every window comes once; not whole in general."""
        return len(self.windows) / self.batch_size

    def indices(self, step: int) -> np.ndarray:
        """Window numbers of this process at a step, [B/world]."""
        share = self.batch_size // self.world
        first = step * self.batch_size + self.rank * share
        position = np.arange(first, first + share)
        epoch, place = np.divmod(position, len(self.windows))
        out = np.empty(share, np.int64)
        for number in range(epoch[0], epoch[-1] + 1):
            inside = epoch == number
            out[inside] = self._order(int(number))[place[inside]]
        return out

    def batch(self, step: int) -> Batch:
        """The batch of a step."""
        return self.windows.batch(self.indices(step))
