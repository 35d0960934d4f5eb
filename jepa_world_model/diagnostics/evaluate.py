"""Held-out numbers of a world model: what the built model and the batch allow, beside the trivial answers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_world_model.core.task import Task
from jepa_world_model.data.batch import Batch
from jepa_world_model.diagnostics import probes
from jepa_world_model.losses.distribution import SigregConfig, epps_pulley

STEPS = (1, 4, 8)  # of the open-loop metrics


@contextmanager
def measuring(model: nn.Module) -> Iterator[None]:
    """Eval mode and no gradient inside; every module's own mode restored after."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def buildable(task: Task) -> frozenset[str]:
    """The latents that the built model can compute: those for which every parameter group exists."""
    groups = set(dict(task.model.named_children()))
    return frozenset(
        latent.name
        for latent in task.graph
        if all(groups.issuperset(part.trains) for part in task.graph.closure([latent.name]))
    )


def evaluate(task: Task, batch: Batch, probe_batch: Batch | None = None) -> dict[str, float]:
    """Every metric that the model and these held-out windows allow, by its logged name.

    A metric is absent where something that it needs is. probe_batch: windows of other episodes to fit the
    probes on (those of an episode of `batch` are left out); without it every other episode of `batch` fits
    and the rest score. Draws no global random number.

    What each needs (all names after `eval/`):
      latent_one_step_ratio: z_hat
      latent_open_loop_ratio_k1, _k4, _k8: rollout; the longest k instead of those that do not fit
      open_loop_ratio_k8: rollout and decoder; likewise
      recon_mse: x_hat
      inverse_accuracy, inverse_accuracy_majority: inverse_dynamics_h (heads on z, p and delta_p
        add _z, _p and _dp), actions that are not continuous; inverse_accuracy_unblocked: the true state too
      inverse_r2: the same, for continuous actions
      probe_z_r2, probe_h_r2, probe_p_r2, probe_actions_r2: the true state, episodes to fit and to score
      rank_z, rank_h, rank_p, std_z, std_h, std_p: the latent
      rank_accuracy, rank_accuracy_minus_clock, p_loop_residual: p and the true state
      p_q, p_inverse_ratio: delta_p, actions that are not continuous; names of opposite actions for the second
      p_noop_ratio: delta_p and no-ops; p_commutator: delta_p_pair
      sigreg, sigreg_floor, sigreg_collapse: the loss sigreg on

    True position: columns 0 and 1 of the state. p starts at zero in every window, so its probe is on the way
    since the window's first frame; probe_actions_r2 is what summed actions alone score there. Moves that a
    wall blocked are left out of p_q, p_inverse_ratio and p_noop_ratio where the true state tells.
    """
    with measuring(task.model):
        states = held_states(task, batch)
        found = prediction(task, batch, states) | reconstruction(states) | inverse(task, batch, states)
        found |= spread(task, states) | pose(task, batch, states) | collapse_lines(task, states)
        found |= position_probes(task, batch, states, probe_batch)
    return {f"eval/{name}": float(value) for name, value in found.items() if math.isfinite(value)}


def held_states(task: Task, batch: Batch) -> dict[str, Any]:
    """The latents that the metrics read, as far as the model has them; on the model's device."""
    wanted = {"x", "z", "h", "z_hat", "rollout", "delta_p", "p", "delta_p_pair", "x_hat"} & buildable(task)
    return task.states(batch.to(task.device), sorted(wanted))


def warmup(task: Task) -> int:
    """Frames at a window's start that count for no metric on h or p."""
    return getattr(task.settings.model, "warmup_frames_h", 0)


def _ratio(predicted: Tensor, copied: Tensor, truth: Tensor) -> float:
    return float(F.mse_loss(predicted, truth) / F.mse_loss(copied, truth)) if truth.numel() else math.nan


def _comparable(task: Task, z: Tensor) -> Tensor:
    """z as its own training distance sees it: with `z_norm` only its direction counts."""
    return F.normalize(z, dim=-1) if getattr(task.settings.model, "z_norm", False) else z


def prediction(task: Task, batch: Batch, states: Mapping[str, Any]) -> dict[str, float]:
    """One-step and self-fed errors over those of repeating the frame at the start."""
    if "z" not in states:
        return {}
    first, z, found = warmup(task), _comparable(task, states["z"]), {}
    if "z_hat" in states:
        z_hat = _comparable(task, states["z_hat"])
        found["latent_one_step_ratio"] = _ratio(z_hat[:, first:], z[:, first:-1], z[:, first + 1 :])
    if "rollout" not in states:
        return found
    rollout, x = states["rollout"].z, states["x"]
    longest = min(len(rollout) - 1, batch.T - 1 - first)
    for k in sorted({k for k in STEPS if k <= longest} | {min(longest, max(STEPS))} - {0}):
        guess = _comparable(task, rollout[k][:, first:])
        found[f"latent_open_loop_ratio_k{k}"] = _ratio(guess, z[:, first:-k], z[:, first + k :])
    if hasattr(task.model, "decoder") and longest > 0:
        k = min(longest, max(STEPS))
        with task.autocast():
            picture = task.model.decoder(rollout[k][:, first:]).float()
        found[f"open_loop_ratio_k{k}"] = _ratio(picture, x[:, first:-k], x[:, first + k :])
    return found


def reconstruction(states: Mapping[str, Any]) -> dict[str, float]:
    """How well a frame's state shows the frame."""
    if "x_hat" not in states:
        return {}
    return {"recon_mse": float(F.mse_loss(states["x_hat"], states["x"]))}


def inverse(task: Task, batch: Batch, states: Mapping[str, Any]) -> dict[str, float]:
    """How often two states tell the exact action between them, for every inverse-dynamics head there is."""
    found: dict[str, float] = {}
    for name in ("h", "z", "p", "dp"):
        head = getattr(task.model, f"inverse_dynamics_{name}", None)
        source = "delta_p" if name == "dp" else name
        if head is None or source not in states:
            continue
        first = 0 if name == "z" else warmup(task)
        state, suffix = states[source][:, first:], "" if name == "h" else f"_{name}"
        with task.autocast():
            guess = head(state) if name == "dp" else head(state[:, :-1], state[:, 1:] - state[:, :-1])
        found["inverse_accuracy_majority"] = _majority(batch, guess.shape[1])
        found |= {
            f"{key}{suffix}": score for key, score in _action_scores(batch, guess.float().cpu()).items()
        }
    return found


def _majority(batch: Batch, steps: int) -> float:
    """What always answering the commonest action scores over the last `steps` steps."""
    if batch.space.kind == "continuous":
        return math.nan
    identity = batch.action_id[:, -steps:]
    return float(identity.unique(return_counts=True)[1].max() / identity.numel())


def _action_scores(batch: Batch, guess: Tensor) -> dict[str, float]:
    steps = guess.shape[1]
    actions, identity = batch.actions[:, -steps:].cpu(), batch.action_id[:, -steps:].cpu()
    if batch.space.kind == "continuous":
        total = (actions - actions.mean((0, 1))).square().sum((0, 1))
        error = (actions - guess).square().sum((0, 1))
        return {"inverse_r2": float((1 - error / total)[total > 0].mean())}
    if batch.space.kind == "discrete":
        right = guess.argmax(-1) == identity
    else:
        varies = (actions != actions[:1, :1]).any(0).any(0)  # a bit that never changes is no achievement
        right = ((guess > 0) == (actions > 0.5))[..., varies].all(-1)
    found = {"inverse_accuracy": float(right.float().mean())}
    if batch.state is not None:
        fair = torch.from_numpy(moved(batch))[:, -steps:] | batch.noop[:, -steps:].cpu()
        found["inverse_accuracy_unblocked"] = float(right[fair].float().mean())
    return found


def position(batch: Batch) -> np.ndarray | None:
    """The true position [B,T,2] (or [B,T,1]) as float64; None where the environment does not tell."""
    return None if batch.state is None else batch.state[..., :2].cpu().double().numpy()


def moved(batch: Batch) -> np.ndarray:
    """[B,T-1]: the true position changed, or, where the environment does not tell, the action is no no-op."""
    place = position(batch)
    if place is None:
        return ~batch.noop.cpu().numpy()
    return np.abs(np.diff(place, axis=1)).max(-1) > 1e-6


def array(state: Tensor) -> np.ndarray:
    """A latent as a float32 array."""
    return state.float().cpu().numpy()


def samples(task: Task, states: Mapping[str, Any], name: str) -> np.ndarray:
    """A latent [B,T',D] as far as it counts: h after its warm-up, p without its fixed origin."""
    first = {"z": 0, "h": warmup(task), "p": warmup(task) + 1}[name]
    return array(states[name][:, first:])


def spread(task: Task, states: Mapping[str, Any]) -> dict[str, float]:
    """Effective rank and mean standard deviation of z, h and p: the signs of a collapse."""
    found = {}
    for name in ("z", "h", "p"):
        if name in states:
            flat = samples(task, states, name)
            flat = flat.reshape(-1, flat.shape[-1])
            found |= {f"rank_{name}": probes.effective_rank(flat), f"std_{name}": probes.mean_std(flat)}
    return found


Pairs = dict[str, tuple[np.ndarray, np.ndarray]]


def _probe_inputs(task: Task, batch: Batch, states: Mapping[str, Any]) -> Pairs:
    """Features [B,T',D] and true targets [B,T',2] of each probe."""
    place, found = position(batch), {}
    for name in ("z", "h", "p"):
        if name in states:
            feature = samples(task, states, name)
            target = place[:, -feature.shape[1] :]
            found[name] = (feature, target - place[:, :1] if name == "p" else target)
    if "p" in states:
        walked = array(batch.actions).cumsum(1)[:, -found["p"][0].shape[1] :]
        found["actions"] = (walked, found["p"][1])
    return found


def position_probes(
    task: Task, batch: Batch, states: Mapping[str, Any], probe_batch: Batch | None
) -> dict[str, float]:
    """Linear probes on the true position, fitted on some episodes and scored on others."""
    if batch.state is None or (probe_batch is not None and probe_batch.state is None):
        return {}
    scored, episode = _probe_inputs(task, batch, states), batch.episode.cpu().numpy()
    if probe_batch is None:
        fit = np.isin(episode, np.unique(episode)[::2])
        fitted, test = scored, ~fit
    else:
        fitted = _probe_inputs(task, probe_batch, held_states(task, probe_batch))
        fit, test = ~np.isin(probe_batch.episode.cpu().numpy(), episode), np.ones(batch.B, bool)
    found = {}
    for name, (feature, target) in scored.items():
        other, other_target = fitted[name]
        rows = (other[fit], other_target[fit], feature[test], target[test])
        found[f"probe_{name}_r2"] = probes.linear_probe_r2(*(row.reshape(-1, row.shape[-1]) for row in rows))
    return found


def pose(task: Task, batch: Batch, states: Mapping[str, Any]) -> dict[str, float]:
    """What actions do to the pose, and whether the pose orders and closes as the true position does."""
    if "p" not in states:
        return {}
    first = warmup(task)
    p, delta = array(states["p"][:, first:]), array(states["delta_p"][:, first:])
    noop, counts = batch.noop.cpu().numpy()[:, first:], moved(batch)[:, first:]
    counts = counts & ~noop
    found = {"p_noop_ratio": probes.noop_ratio(delta[counts | noop], noop[counts | noop])}
    if batch.space.kind != "continuous" and counts.any():
        found |= _by_action(batch, delta[counts], batch.action_id.cpu().numpy()[:, first:][counts])
    if "delta_p_pair" in states:
        found["p_commutator"] = _commutator(task, batch, states)
    place = position(batch)
    if place is not None:
        place = place[:, first:]
        accuracy, clock = probes.rank_accuracy(*(np.linalg.norm(s - s[:, -1:], axis=-1) for s in (p, place)))
        found |= {"rank_accuracy": accuracy, "rank_accuracy_minus_clock": accuracy - clock}
        found["p_loop_residual"] = probes.loop_residual(p, place)
    return found


def _by_action(batch: Batch, delta: np.ndarray, identity: np.ndarray) -> dict[str, float]:
    table = probes.increments_by_action(delta, identity)
    pairs = probes.opposite_actions(batch.space.names)
    if batch.space.kind == "multi_binary":
        pairs = [(1 << one, 1 << other) for one, other in pairs]
    known = [(table[a].mean, table[b].mean) for a, b in pairs if a in table and b in table]
    ratios = [probes.inverse_ratio(one, other) for one, other in known]
    return {
        "p_q": float(np.mean([row.q for row in table.values()])) if table else math.nan,
        "p_inverse_ratio": float(np.mean(ratios)) if ratios else math.nan,
    }


def _commutator(task: Task, batch: Batch, states: Mapping[str, Any]) -> float:
    """The gap between two actions in either order from one base state, over the length of the pair."""
    first, step = warmup(task), task.model.p_action_delta_projector
    here, h = states["delta_p_pair"][:, first:], states["h"][:, first:-2]
    one, two = (batch.actions.to(h.device)[:, first + k : first + k + h.shape[1]] for k in (1, 0))
    with task.autocast():
        origin = torch.zeros_like(here)
        there = step(origin, h, one).float()
        there = there + step(there, h, two).float()
    differs = (one != two).any(-1)
    length = (here.norm(dim=-1) + there.norm(dim=-1))[differs].mean() / 2
    return float((here - there).norm(dim=-1)[differs].mean() / length)


def collapse_lines(task: Task, states: Mapping[str, Any]) -> dict[str, float]:
    """SIGReg on this batch, and the lines it lies between: a perfect Gaussian and a collapse."""
    if task.weights.get("sigreg", 0) <= 0 or "z" not in states:
        return {}
    options = getattr(task.options, "sigreg", None) or SigregConfig()
    z = states["z"].float()
    draws = torch.randn(z.shape[-1], options.directions, generator=torch.Generator().manual_seed(0)).to(z)
    return {
        "sigreg": float(epps_pulley(z.transpose(0, 1) @ F.normalize(draws, dim=0), options)),
        "sigreg_floor": sigreg_floor(options),
        "sigreg_collapse": float(epps_pulley(torch.zeros(z.shape[0], 1), options)),
    }


def sigreg_floor(options: SigregConfig) -> float:
    """What normal samples score on average: the integral of (1 - exp(-t^2)) exp(-t^2/2)."""
    t = np.linspace(-options.bound, options.bound, options.knots)
    value = (1 - np.exp(-(t**2))) * np.exp(-(t**2) / 2)
    return float(((value[1:] + value[:-1]) / 2 * np.diff(t)).sum())
