"""Timings on a machine that others use too: in turns, as medians, as ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch


def clock_for(threads: int) -> Callable[[], float]:
    """Processor time for one thread, which a busy machine disturbs least; the clock on the wall for more."""
    return time.process_time if threads == 1 else time.perf_counter


def interleaved(
    functions: Mapping[str, Callable[[], object]],
    *,
    turns: int = 20,
    warmup: int = 3,
    budget_s: float = float("inf"),
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of every call, the functions taking turns; every other turn runs backwards, so that no one
    always follows the same other. Ends after `turns`, or when `budget_s` is spent and 3 turns are there."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    begin, names = time.monotonic(), list(functions)
    for turn in range(-warmup, turns):
        for name in names[:: -1 if turn % 2 else 1]:
            start = clock()
            functions[name]()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn >= 0:
                times[name].append(clock() - start)
        if turn >= 2 and time.monotonic() - begin > budget_s:
            break
    return times


def ratio(over: Sequence[float], under: Sequence[float]) -> tuple[float, float, float]:
    """Median of the turn-by-turn ratios, and their quartiles: what drifts between turns cancels."""
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    if len(ratios) < 2:
        return ratios[0], ratios[0], ratios[0]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return middle, low, high
