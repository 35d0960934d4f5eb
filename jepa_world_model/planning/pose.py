"""The pose to plan in: single frames measured, what each action adds, and how far both agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from jepa_world_model.core.errors import UserError
from jepa_world_model.planning.dynamics import Dynamics

ROWS = 512  # frames encoded at once


def need_measured_pose(dynamics: Dynamics) -> None:
    """UserError where a lone frame, such as a goal, has no pose."""
    if "p" not in dynamics.goal_latents:
        raise UserError(
            "this model gives a lone frame no pose, so no plan in p can end at a picture; train with "
            "--loss-weights.pose-measure-p above 0 (see configs/pose_planning.toml), or plan in z or h"
        )


@torch.no_grad()
def read_frames(dynamics: Dynamics, frames: np.ndarray, name: str) -> np.ndarray:
    """A latent of frames, each seen alone as a goal is: frames [N,C,H,W] uint8 -> [N,D].

    Errors: UserError where a lone frame of this model does not tell the latent.
    """
    if name == "p":
        need_measured_pose(dynamics)
    if name not in dynamics.goal_latents:
        raise UserError(
            f"a lone frame of this model has no {name!r}; it has {', '.join(dynamics.goal_latents)}"
        )
    parts = [
        dynamics.read(dynamics.encode(torch.from_numpy(np.asarray(frames[at : at + ROWS]))), name)
        .cpu()
        .numpy()
        for at in range(0, len(frames), ROWS)
    ]
    return np.concatenate(parts)


@dataclass(frozen=True)
class ActionSteps:
    """What each action adds to the pose where nothing stands in its way."""

    mean: np.ndarray  # [A,Dp]; zero for an action that the data do not hold
    spread: np.ndarray  # [A] root mean square distance from the mean, over the median step
    count: np.ndarray  # [A] transitions behind each mean, blocked ones left out
    step: float  # the median length of the means that move


def action_steps(delta: np.ndarray, action: np.ndarray, num_actions: int) -> ActionSteps:
    """The increments of each action, without the transitions in which it was blocked.

    Shapes: delta [N,Dp] increments, action [N] int. A blocked move adds little, so an increment that lies
    farther than half the median's length from its action's median is left out; fewer than half of an
    action's transitions may be blocked.
    Errors: ValueError where no action moves the pose.
    """
    delta = np.asarray(delta, np.float64)
    mean, rms = np.zeros((num_actions, delta.shape[1])), np.zeros(num_actions)
    count = np.zeros(num_actions, np.int64)
    for a in range(num_actions):
        mine = delta[action == a]
        if len(mine):
            middle = np.median(mine, axis=0)
            off = np.linalg.norm(mine - middle, axis=1)
            kept = mine[off <= max(0.5 * np.linalg.norm(middle), np.median(off))]
            mean[a], count[a] = kept.mean(0), len(kept)
            rms[a] = np.sqrt(((kept - mean[a]) ** 2).sum(1).mean())
    length = np.linalg.norm(mean, axis=1)
    if not length.max(initial=0.0) > 1e-9:
        raise ValueError("no action moves the pose")
    step = float(np.median(length[length > 0.25 * length.max()]))
    return ActionSteps(mean, rms / step, count, step)


@torch.no_grad()
def imagined_increments(dynamics: Dynamics, frames: np.ndarray, actions: Tensor) -> np.ndarray:
    """What the model adds to the pose in one step from each frame: frames [N,C,H,W], encoded actions [N,A] -> [N,Dp]."""
    parts = []
    for at in range(0, len(frames), ROWS):
        state = dynamics.encode(torch.from_numpy(np.asarray(frames[at : at + ROWS])))
        then = dynamics.step(state, actions[at : at + ROWS].to(dynamics.read(state, "p").device))
        parts.append((dynamics.read(then, "p") - dynamics.read(state, "p")).cpu().numpy())
    return np.concatenate(parts)


@dataclass(frozen=True)
class PoseMap:
    """Measured and counted poses along windows, as arrays for numbers and pictures."""

    measured: np.ndarray  # [B,T,Dp] each frame alone
    imagined: np.ndarray  # [B,T,Dp] integrated from the first frame along the actions
    step: float  # the median measured move
    drift: np.ndarray  # [B,T] distance of the two in median moves; drift[:, 0] = 0
    plane: np.ndarray  # [2,Dp] the two main directions of the measured poses
    middle: np.ndarray  # [Dp] their mean

    def flat(self, poses: np.ndarray) -> np.ndarray:
        """Poses [...,Dp] on the map's plane in median moves, [...,2]."""
        return (poses - self.middle) @ self.plane.T / self.step


@torch.no_grad()
def pose_map(dynamics: Dynamics, frames: Tensor, actions: Tensor) -> PoseMap:
    """Where the model believes to be, by looking and by counting.

    Shapes: frames [B,T,C,H,W] uint8, encoded actions [B,T-1,A]. Errors: UserError without a measured pose.
    """
    need_measured_pose(dynamics)
    B, T = frames.shape[:2]
    measured = read_frames(dynamics, frames.flatten(0, 1).cpu().numpy(), "p").reshape(B, T, -1)
    state = dynamics.encode(frames[:, 0])
    poses = [dynamics.read(state, "p")]
    for t in range(T - 1):
        state = dynamics.step(state, actions[:, t].to(poses[0].device))
        poses.append(dynamics.read(state, "p"))
    return map_of(measured, torch.stack(poses, 1).cpu().numpy())


def map_of(measured: np.ndarray, imagined: np.ndarray) -> PoseMap:
    """The map of poses that are there already, both [B,T,Dp] in one frame of reference.

    Errors: ValueError where the measured pose never moves.
    """
    length = np.linalg.norm(np.diff(measured.astype(np.float64), axis=1), axis=-1)
    moving = length[length > 0.25 * np.quantile(length, 0.9)]
    step = float(np.median(moving)) if len(moving) else 0.0
    if step <= 0:
        raise ValueError("the measured pose never moves along these windows, so there is no map to draw")
    cloud = measured.reshape(-1, measured.shape[-1]).astype(np.float64)
    middle = cloud.mean(0)
    axes = np.linalg.svd(cloud - middle, full_matrices=False)[2][:2]
    plane = np.pad(axes, ((0, 2 - len(axes)), (0, 0)))
    drift = np.linalg.norm(imagined - measured, axis=-1) / step
    return PoseMap(measured, imagined, step, drift, plane, middle)


@dataclass(frozen=True)
class Closure:
    """Loops: how far two poses of one place are from each other, by the steps between the visits."""

    gap: np.ndarray  # [P] steps between the two visits
    error: np.ndarray  # [P] distance of the imagined poses in median moves; 0: the loop closes
    apart: float  # mean distance of imagined poses of two different places


def loop_closure(
    found: PoseMap, same: Callable[[int, int], np.ndarray] | None = None, *, least: int = 2
) -> Closure:
    """Every return to a place along the windows of a map.

    same(i, j) tells for frames i < j of all windows [B] whether they are one place; by default the measured
    poses decide, nearer than a quarter of a median move. Visits are at least `least` steps apart, with a
    measured move between them.
    """
    p, measured = found.imagined.astype(np.float64), found.measured.astype(np.float64)
    moves = (np.linalg.norm(np.diff(measured, axis=1), axis=-1) > 0.5 * found.step).cumsum(1)
    moves = np.pad(moves, ((0, 0), (1, 0)))  # [B,T]
    gaps, errors, elsewhere = [], [], []
    for j in range(least, p.shape[1]):
        for i in range(j - least + 1):
            if same is None:
                one = np.linalg.norm(measured[:, i] - measured[:, j], axis=-1) < 0.25 * found.step
            else:
                one = same(i, j)
            far = np.linalg.norm(p[:, i] - p[:, j], axis=-1) / found.step
            back = one & (moves[:, j] > moves[:, i])
            errors.append(far[back])
            gaps.append(np.full(int(back.sum()), j - i))
            elsewhere.append(far[~one])
    away = np.concatenate(elsewhere) if elsewhere else np.zeros(0)
    empty = np.zeros(0)
    return Closure(
        np.concatenate(gaps) if gaps else empty.astype(np.int64),
        np.concatenate(errors) if errors else empty,
        float(away.mean()) if len(away) else float("nan"),
    )
