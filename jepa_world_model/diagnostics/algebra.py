"""The algebra scorecard (B3): what actions do to the latents of any model that offers encode and step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from jepa_world_model.data.batch import Batch
from jepa_world_model.diagnostics import probes
from jepa_world_model.diagnostics.evaluate import moved, position
from jepa_world_model.diagnostics.scorecard import find
from jepa_world_model.planning.dynamics import Dynamics, State, pick_rows

NAN = float("nan")


@dataclass(frozen=True)
class Card:
    """The numbers of one model: by latent, then by metric; a number that cannot be had is absent."""

    latents: Mapping[str, Mapping[str, float]]
    by_action: Mapping[str, Mapping[str, float]]  # latent -> action name -> spread over length

    def to_json(self) -> dict[str, dict]:
        """Plain dictionaries."""
        return {"latents": {k: dict(v) for k, v in self.latents.items()},
                "q_by_action": {k: dict(v) for k, v in self.by_action.items()}}  # fmt: skip


@torch.no_grad()
def algebra(dynamics: Dynamics, batch: Batch, fit: Batch | None = None) -> Card:
    """Every latent that a step moves, on held-out windows; latents with a pose's bars are read as one.

    fit: windows of other episodes that the position probe is fitted on; without it half of the episodes fit.
    What each number needs, and what it is:
      q, inverse_ratio, noop_ratio: one imagined step from each frame with the action that was taken there, where it moved
        the true place (where the environment tells; walls break inverses legitimately); discrete actions
      commutator: from each frame two imagined steps a, b and b, a of the window, over the length of both
      k_error_K: distance to the frame's own latent after K imagined steps, in median moves; the growth is k_error over
        K times k_error_1: 1 for errors that add up, more for errors that breed; needs a latent that a lone frame has
      loop_residual: imagined latents at two visits of one place over two places elsewhere; needs the true place
      rank_minus_clock: how often the distance to the window's last frame orders two frames rightly, minus what time scores
      position_r2: a linear probe on the true place of the latent of a lone frame
      displacement_r2: the same of the imagined latent's change on the way since the window's first frame; beside it
        dead_reckoning_r2, summed actions alone
    """
    found: dict[str, dict[str, float]] = {}
    table: dict[str, dict[str, float]] = {}
    for name in dynamics.latents:
        seen = _seen(dynamics, batch, name)
        imagined = _imagined(dynamics, batch, name)
        if float(np.abs(np.diff(imagined, axis=1)).max(initial=0.0)) == 0:
            continue  # steps do not move it: no algebra to judge
        step = _median_move(imagined, batch)
        values, table[name] = _increments(dynamics, batch, name)
        values |= {"commutator": _commutator(dynamics, batch, name)}
        if seen is not None:
            values |= _k_errors(seen, imagined, step)
            values |= _ranking(batch, seen)
        values |= _closing(batch, imagined)
        values |= _position(dynamics, batch, fit, name, seen, imagined)
        found[name] = {key: value for key, value in values.items() if math.isfinite(value)}
    return Card(found, table)


def _seen(dynamics: Dynamics, batch: Batch, name: str) -> np.ndarray | None:
    """The latent of every frame alone [B,T,D]; None where a lone frame has none."""
    if name not in dynamics.goal_latents:
        return None
    flat = dynamics.read(dynamics.encode(batch.frames.flatten(0, 1)), name)
    return _array(flat).reshape(batch.B, batch.T, -1)


def _imagined(dynamics: Dynamics, batch: Batch, name: str) -> np.ndarray:
    """The latent along imagined steps from the window's first frame [B,T,D]."""
    state = dynamics.encode(batch.frames[:, 0])
    found = [_array(dynamics.read(state, name))]
    for t in range(batch.T - 1):
        state = dynamics.step(state, batch.actions[:, t])
        found.append(_array(dynamics.read(state, name)))
    return np.stack(found, 1)


def _array(latent: Tensor) -> np.ndarray:
    return latent.float().cpu().numpy()


def _median_move(imagined: np.ndarray, batch: Batch) -> float:
    length = np.linalg.norm(np.diff(imagined, axis=1), axis=-1)[moved(batch)]
    return float(np.median(length)) if len(length) else NAN


def _each_step(dynamics: Dynamics, batch: Batch) -> tuple[State, State, Tensor]:
    """The state at every frame that has an action, the one an imagined step later, and the actions."""
    here = dynamics.encode(batch.frames[:, :-1].flatten(0, 1))
    actions = batch.actions.flatten(0, 1)
    return here, dynamics.step(here, actions), actions


def _increments(dynamics: Dynamics, batch: Batch, name: str) -> tuple[dict[str, float], dict[str, float]]:
    here, there, _ = _each_step(dynamics, batch)
    delta = _array(dynamics.read(there, name) - dynamics.read(here, name))
    noop = batch.noop.cpu().numpy().reshape(-1)
    counts = moved(batch).reshape(-1) & ~noop
    values = {"noop_ratio": probes.noop_ratio(delta[counts | noop], noop[counts | noop])}
    if batch.space.kind == "continuous" or not counts.any():
        return values, {}
    identity = batch.action_id.cpu().numpy().reshape(-1)
    found = probes.increments_by_action(delta[counts], identity[counts])
    pairs = probes.opposite_actions(batch.space.names)
    if batch.space.kind == "multi_binary":
        pairs = [(1 << one, 1 << other) for one, other in pairs]
    ratios = [
        probes.inverse_ratio(found[a].mean, found[b].mean) for a, b in pairs if a in found and b in found
    ]
    values["q"] = float(np.mean([row.q for row in found.values()])) if found else NAN
    values["inverse_ratio"] = float(np.mean(ratios)) if ratios else NAN
    names = batch.space.names if batch.space.kind == "discrete" else ()
    return values, {names[a] if names else str(a): row.q for a, row in found.items()}


def _commutator(dynamics: Dynamics, batch: Batch, name: str) -> float:
    """Two actions in either order from one frame: the gap over the mean length of the two ways."""
    one, two = batch.actions[:, :-1].flatten(0, 1), batch.actions[:, 1:].flatten(0, 1)
    differs = (one != two).any(-1)
    if not differs.any():
        return NAN
    here = pick_rows(dynamics.encode(batch.frames[:, :-2].flatten(0, 1)), differs)
    one, two = one[differs], two[differs]
    origin = dynamics.read(here, name)
    ways = [
        dynamics.read(dynamics.step(dynamics.step(here, a), b), name) - origin
        for a, b in ((one, two), (two, one))
    ]
    length = (ways[0].norm(dim=-1) + ways[1].norm(dim=-1)).mean() / 2
    return float((ways[0] - ways[1]).norm(dim=-1).mean() / length) if length > 0 else NAN


def _k_errors(seen: np.ndarray, imagined: np.ndarray, step: float) -> dict[str, float]:
    error = np.linalg.norm(imagined - seen, axis=-1).mean(0) / step  # [T]
    longest = len(error) - 1
    found = {f"k_error_{k}": float(error[k]) for k in sorted({1, 4, 8, longest}) if k <= longest}
    if longest > 1 and error[1] > 0:
        found["k_growth"] = float(error[longest] / (longest * error[1]))
    return found


def _ranking(batch: Batch, seen: np.ndarray) -> dict[str, float]:
    place = position(batch)
    if place is None:
        return {}
    far = [np.linalg.norm(x - x[:, -1:], axis=-1) for x in (seen, place)]
    accuracy, clock = probes.rank_accuracy(*far)
    return {"rank_accuracy": accuracy, "rank_minus_clock": accuracy - clock}


def _closing(batch: Batch, imagined: np.ndarray) -> dict[str, float]:
    place = position(batch)
    return {} if place is None else {"loop_residual": probes.loop_residual(imagined, place)}


def _position(
    dynamics: Dynamics,
    batch: Batch,
    fit: Batch | None,
    name: str,
    seen: np.ndarray | None,
    imagined: np.ndarray,
) -> dict[str, float]:
    """Linear probes on the true place, fitted on other episodes."""
    place = position(batch)
    if place is None or (fit is not None and fit.state is None):
        return {}
    way = lambda x: (x - x[:, :1])[:, 1:]
    walked = lambda b: _array(b.actions).cumsum(1)
    scored = {
        "displacement_r2": (way(imagined), way(place)),
        "dead_reckoning_r2": (walked(batch), way(place)),
    }
    if seen is not None:
        scored["position_r2"] = (seen, place)
    episode = batch.episode.cpu().numpy()
    if fit is None:
        train = np.isin(episode, np.unique(episode)[::2])
        fitted, test = scored, ~train
    else:
        train, test = ~np.isin(fit.episode.cpu().numpy(), episode), np.ones(batch.B, bool)
        other = position(fit)
        fitted = {
            "displacement_r2": (way(_imagined(dynamics, fit, name)), way(other)),
            "dead_reckoning_r2": (walked(fit), way(other)),
        }
        if seen is not None:
            fitted["position_r2"] = (_seen(dynamics, fit, name), other)
    flat = lambda x, rows: x[rows].reshape(-1, x.shape[-1])
    return {
        key: probes.linear_probe_r2(
            flat(fitted[key][0], train), flat(fitted[key][1], train), flat(feature, test), flat(target, test)
        )
        for key, (feature, target) in scored.items()
    }


BARS = {
    "q": "p_q",
    "inverse_ratio": "p_inverse_ratio",
    "noop_ratio": "p_noop_ratio",
    "commutator": "p_commutator",
}


def card_table(cards: Mapping[str, Card], latents: Sequence[str] = ("p",)) -> str:
    """Cards side by side as Markdown: a row a metric, with the bar that a pose should clear."""
    lines = []
    for latent in latents:
        mine = {name: card.latents[latent] for name, card in cards.items() if latent in card.latents}
        if not mine:
            continue
        lines += [
            f"\n{latent}\n",
            "| metric | bar, aim | " + " | ".join(mine) + " |",
            "|---" * (2 + len(mine)) + "|",
        ]
        for metric in dict.fromkeys(key for values in mine.values() for key in values):
            bar = find(BARS[metric]) if metric in BARS else None
            goal = f"< {bar.bar:g}, {bar.aim:g}" if bar and latent == "p" else ""
            row = [f"{values[metric]:.3f}" if metric in values else "" for values in mine.values()]
            lines.append(f"| {metric} | {goal} | " + " | ".join(row) + " |")
    return "\n".join(lines)
