"""What episodes add up to: success by rule with its interval, distances, lengths; and what identifies an evaluation."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from jepa_world_model.planning.closed_loop import Episodes


def wilson(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """The interval of a success rate, 95 % by default: (0, 1) without a trial.

    Source: Wilson 1927, Probable Inference.
    """
    if trials == 0:
        return 0.0, 1.0
    share, square = successes / trials, z * z
    middle = (share + square / (2 * trials)) / (1 + square / trials)
    half = z / (1 + square / trials) * math.sqrt(share * (1 - share) / trials + square / (4 * trials**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def summary(episodes: Episodes) -> dict[str, Any]:
    """The numbers of one arm, as JSON holds them.

    success: by rule, with counts and the Wilson interval. path_over_optimal: steps to within the widest radius over
    the best policy's steps to the goal itself, over episodes that arrive and do not start solved; below 1 is possible.
    """
    count, rules = len(episodes), {}
    for rule, won in episodes.success.items():
        low, high = wilson(int(won.sum()), count)
        rules[rule] = {
            "rate": round(float(won.mean()), 4),
            "solved": int(won.sum()),
            "interval": [round(low, 4), round(high, 4)],
        }
    arrived = ~np.isnan(episodes.steps_to_goal) & ~episodes.solved_at_start
    steps = episodes.steps_to_goal[arrived]
    best = episodes.optimal[arrived]
    return {
        "episodes": count,
        "success": rules,
        "solved_at_start": round(float(episodes.solved_at_start.mean()), 4),
        "mean_start_distance": round(float(episodes.distance[:, 0].mean()), 3),
        "mean_final_distance": round(float(episodes.distance[:, -1].mean()), 3),
        "mean_least_distance": round(float(episodes.distance.min(1).mean()), 3),
        "mean_steps_to_goal": round(float(steps.mean()), 2) if len(steps) else None,
        "path_over_optimal": round(float((steps / np.maximum(best, 1e-9)).mean()), 3) if len(steps) else None,
    }


def weights_hash(model: nn.Module) -> str:
    """A hash of every parameter and buffer, names and shapes included."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}".encode())
        digest.update(plain.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def pairs_hash(starts: np.ndarray, goals: np.ndarray) -> str:
    """A hash of the starts and goals: two evaluations with the same one met the same episodes."""
    digest = hashlib.sha256()
    for rows in (starts, goals):
        plain = np.ascontiguousarray(rows, np.float64)
        digest.update(str(plain.shape).encode() + plain.tobytes())
    return digest.hexdigest()[:16]


def data_hash(manifest: Mapping[str, Any]) -> str:
    """What identifies a data set: the checksums in its manifest, or the manifest itself. Empty without one."""
    if not manifest:
        return ""
    told = manifest.get("sha256") or {key: value for key, value in manifest.items() if key != "created"}
    return hashlib.sha256(repr(sorted(told.items())).encode()).hexdigest()[:16]


def table_text(arms: Mapping[str, Mapping[str, Any]]) -> str:
    """Summaries as a table for a terminal: one row an arm, one column a rule."""
    rules = list(next(iter(arms.values()))["success"])
    width = max(map(len, arms))
    head = (
        f"{'':<{width}}  " + "  ".join(f"{rule:>19}" for rule in rules) + "   final dist   steps  path/best"
    )
    rows = [head]
    for name, arm in arms.items():
        cells = []
        for rule in rules:
            found = arm["success"][rule]
            low, high = found["interval"]
            cells.append(f"{found['rate']:>6.1%} [{low:>4.0%}, {high:>4.0%}]")
        steps, path = arm["mean_steps_to_goal"], arm["path_over_optimal"]
        rows.append(
            f"{name:<{width}}  " + "  ".join(f"{cell:>19}" for cell in cells) + f"  {arm['mean_final_distance']:>11.2f}"
            f"  {'-' if steps is None else f'{steps:.1f}':>6}  {'-' if path is None else f'{path:.2f}':>9}"
        )  # fmt: skip
    return "\n".join(rows)
