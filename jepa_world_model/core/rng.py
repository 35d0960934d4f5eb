"""Randomness by name: every draw comes from (seed, name, step), so only the seed and the step are saved."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator

import numpy as np
import torch


class Streams:
    """Named, counter-based streams: the generator of (seed, name, step), the same on every machine and run.

    Two names, two steps or two seeds give independent generators; asking again gives the same one afresh.
    """

    def __init__(self, seed: int) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ValueError(f"seed must be a whole number of 0 or more, got {seed!r}")
        self.seed = seed

    def _sequence(self, name: str, step: int) -> np.random.SeedSequence:
        # sha256, not hash(): Python salts its own hash of text in every process.
        words = np.frombuffer(hashlib.sha256(name.encode()).digest(), dtype="<u4")
        return np.random.SeedSequence(entropy=self.seed, spawn_key=(*map(int, words), step))

    def numpy(self, name: str, step: int = 0) -> np.random.Generator:
        """A fresh numpy generator."""
        return np.random.Generator(np.random.PCG64(self._sequence(name, step)))

    def torch(self, name: str, step: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
        """A fresh torch generator on the device."""
        return torch.Generator(device=device).manual_seed(self.number(name, step))

    def number(self, name: str, step: int = 0) -> int:
        """A 63-bit number, for whatever takes a seed itself."""
        return int(self._sequence(name, step).generate_state(1, np.uint64)[0] >> 1)


def seed_everything(seed: int) -> None:
    """Set the global generators of Python, numpy and torch; used once, for the initial weights."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  the global generator is what third parties draw from
    torch.manual_seed(seed)


@contextlib.contextmanager
def isolated(streams: Streams, name: str, step: int = 0) -> Iterator[None]:
    """Inside, the global generators are those of (seed, name, step); after, as if nothing had been drawn."""
    state = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    on_cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        seed_everything(streams.number(name, step))
        yield
    finally:
        random.setstate(state[0])
        np.random.set_state(state[1])  # noqa: NPY002
        torch.set_rng_state(state[2])
        if on_cuda:
            torch.cuda.set_rng_state_all(on_cuda)
