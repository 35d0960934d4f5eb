"""Panels on what the states hold: whether they tell frames apart, and whether the position can be read off them."""

from __future__ import annotations

import numpy as np

from jepa_world_model.diagnostics import probes
from jepa_world_model.diagnostics.page import number
from jepa_world_model.diagnostics.panels.evidence import Evidence, length
from jepa_world_model.diagnostics.panels.panel import PANELS, Found, MissingError, high

FOLDS = 5
LEAST_EPISODES = 10  # with fewer the probe learns episodes by heart, and its score says nothing


@PANELS(
    "spread",
    family="states",
    title="States differ",
    question="z, h and p tell frames apart: they have spread, and use more than one direction.",
    limits={
        "z_std": high(0.1, 0.01, "mean standard deviation of a feature of z"),
        "z_rank": high(1.8, 1.5, "effective rank of z, in directions"),
        "h_std": high(0.05, 0.005, "mean standard deviation of a feature of h"),
        "h_rank": high(1.8, 1.5, "effective rank of h, in directions"),
        "p_step": high(0.2, 0.02, "mean length of a move's increment of p; scale_dp asks for 1"),
    },
    next_move="z: give it a reason to differ (a reconstruction loss, --loss-weights.sigreg 0.1 or "
    "--loss-weights.vicreg-var 1), or keep prediction off the encoder (--detach-z-from-h-and-p). "
    "h: raise --loss-weights.h2z. p: raise --loss-weights.scale-dp.",
)
def spread(seen: Evidence) -> Found:
    """Standard deviation and effective rank of z and h, and the size of p's increments."""
    values = {}
    for name in ("z", "h"):
        if name in seen.latents:
            flat = seen.flat(name)
            values |= {f"{name}_std": probes.mean_std(flat), f"{name}_rank": probes.effective_rank(flat)}
    if "p" in seen.latents:
        step = length(np.diff(seen.latent("p"), axis=1))
        values["p_step"] = float(step[~seen.noop].mean()) if (~seen.noop).any() else np.nan
    told = [
        f"{name} uses about {number(values[f'{name}_rank'])} directions"
        for name in ("z", "h")
        if f"{name}_rank" in values
    ]
    if "p_step" in values:
        told.append(f"a move of p is {number(values['p_step'])} long")
    return Found(values, "; ".join(told) + ".")


def _position_r2(feature: np.ndarray, target: np.ndarray, episode: np.ndarray) -> float:
    """R2 of a linear probe [B,T,D] -> [B,T,2], fitted on some episodes and scored on the others, in turns."""
    scores = []
    for fold in np.array_split(np.unique(episode), FOLDS):
        test = np.isin(episode, fold)
        rows = (feature[~test], target[~test], feature[test], target[test])
        scores.append(probes.linear_probe_r2(*(row.reshape(-1, row.shape[-1]) for row in rows)))
    scores = [score for score in scores if np.isfinite(score)]
    return float(np.mean(scores)) if scores else np.nan


@PANELS(
    "position",
    family="states",
    title="Position can be read off",
    question="A linear map of z and of h is the true position, and one of p the way since the first frame, on "
    "episodes that the map was not fitted on.",
    limits={
        "z_r2": high(0.9, 0.5, "R^2 of position from z"),
        "h_r2": high(0.9, 0.5, "R^2 of position from h"),
        "p_r2": high(0.9, 0.5, "R^2 of the way since the window's first frame, from p"),
        "p_minus_actions": high(0.0, -0.1, "that R^2 minus what summed actions score (blind dead reckoning)"),
    },
    next_move="z: raise a reconstruction loss, or --model.keypoints. h: raise --loss-weights.h2z. "
    "p: --loss-weights.pose-measure-p 1 --loss-weights.pose-correct-dp 1, so that p follows what z sees.",
)
def position(seen: Evidence) -> Found:
    """Cross-validated linear probes on the true position."""
    place, values = seen.position, {}
    if len(np.unique(seen.episode)) < LEAST_EPISODES:
        raise MissingError(f"windows of at least {LEAST_EPISODES} held-out episodes")
    for name in ("z", "h"):
        if name in seen.latents:
            values[f"{name}_r2"] = _position_r2(seen.latent(name), place, seen.episode)
    told = f"R^2 of the position: {', '.join(f'{k[0]} {v:.2f}' for k, v in values.items())}"
    if "p" in seen.latents:
        way = (place - place[:, :1])[:, 1:]
        blind = _position_r2(seen.actions.cumsum(1), way, seen.episode)
        values["p_r2"] = _position_r2(seen.latent("p")[:, 1:], way, seen.episode)
        values["p_minus_actions"] = values["p_r2"] - blind
        told += f"; of the way, p {values['p_r2']:.2f}, summed actions alone {blind:.2f}"
    return Found(values, told + ".")
