"""What a report shows of a model, as arrays: taken once, kept in the run folder, drawn without the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jepa_world_model.core.task import Task
from jepa_world_model.data.batch import Batch
from jepa_world_model.diagnostics import probes
from jepa_world_model.diagnostics.evaluate import array, held_states, measuring, moved, position, warmup

WINDOWS = 3  # shown as pictures
PATHS = 12  # shown as trajectories
POINTS = 1500  # shown in a projection or among increments
MAPPED = 128  # windows on the map of poses
STEPS = 8  # of an open-loop rollout


def take_snapshot(task: Task, batch: Batch) -> dict[str, np.ndarray]:
    """The arrays of the pictures, as far as this model and these held-out windows allow.

    frames, x_hat [n,T,C,H,W] uint8: pictures and their reconstructions
    open_loop_true, open_loop [n,K+1,C,H,W] uint8: pictures beside what is decoded from a self-fed rollout
    z_plane, h_plane [N,2], z_share, h_share [2]: principal axes of the states, and the variance these hold
    place [N,2]: the true positions of the same frames
    map_seen, map_counted [m,T,Dp], map_place [m,T,2]: the pose measured on each frame, the integrated one from the same
    origin, and the true positions; only with a pose measurement
    pose [n,T,Dp], path [n,T,2]: integrated poses, and the true way since the window's first frame
    increments [M,Dp], increment_action, increment_noop, increment_moved [M]; increment_code [M,A] the encoded
    actions; action_names [A] and action_kind
    """
    with measuring(task.model):
        states = held_states(task, batch)
        found = _pictures(states) | _open_loop(task, states)
        found |= _map(task, batch, states)
    return found | _planes(task, batch, states) | _poses(task, batch, states)


def _bytes(pictures: Tensor) -> np.ndarray:
    return pictures.float().clamp(0, 1).mul(255).round().byte().cpu().numpy()


def _pictures(states: Mapping[str, Any]) -> dict[str, np.ndarray]:
    if "x_hat" not in states:
        return {}
    return {"frames": _bytes(states["x"][:WINDOWS]), "x_hat": _bytes(states["x_hat"][:WINDOWS])}


def _open_loop(task: Task, states: Mapping[str, Any]) -> dict[str, np.ndarray]:
    if "rollout" not in states or not hasattr(task.model, "decoder"):
        return {}
    first, rollout = warmup(task), states["rollout"].z
    steps = min(len(rollout) - 1, STEPS, states["x"].shape[1] - 1 - first)
    if steps < 1:
        return {}
    z = torch.stack([rollout[k][:WINDOWS, first] for k in range(steps + 1)], 1)  # [n,K+1,Dz]
    with task.autocast():
        imagined = task.model.decoder(z)
    return {
        "open_loop": _bytes(imagined),
        "open_loop_true": _bytes(states["x"][:WINDOWS, first : first + steps + 1]),
    }


def _spaced(count: int, most: int) -> np.ndarray:
    return np.linspace(0, count - 1, min(count, most)).round().astype(int)


def _planes(task: Task, batch: Batch, states: Mapping[str, Any]) -> dict[str, np.ndarray]:
    found, place, first = {}, position(batch), warmup(task)
    for name in ("z", "h"):
        if name in states:
            flat = array(states[name][:, first:])
            flat = flat.reshape(-1, flat.shape[-1])
            chosen = _spaced(len(flat), POINTS)
            plane, found[f"{name}_share"] = probes.principal_plane(flat)
            found[f"{name}_plane"] = plane[chosen].astype(np.float32)
            if place is not None:
                found["place"] = place[:, first:].reshape(-1, place.shape[-1])[chosen].astype(np.float32)
    return found


def _map(task: Task, batch: Batch, states: Mapping[str, Any]) -> dict[str, np.ndarray]:
    if "p" not in states or not hasattr(task.model, "pose_measurement"):
        return {}
    first, place = warmup(task), position(batch)
    seen = array(task.model.pose_measurement(states["z"][:MAPPED, first:].float()))
    counted = array(states["p"][:MAPPED, first:])
    found = {"map_seen": seen, "map_counted": counted - counted[:, :1] + seen[:, :1]}
    return found if place is None else found | {"map_place": place[:MAPPED, first:].astype(np.float32)}


def _poses(task: Task, batch: Batch, states: Mapping[str, Any]) -> dict[str, np.ndarray]:
    if "p" not in states:
        return {}
    first, place = warmup(task), position(batch)
    delta = array(states["delta_p"][:, first:])
    chosen = _spaced(delta.shape[0] * delta.shape[1], POINTS)
    pick = lambda values: values[:, first:].reshape(-1, *values.shape[2:])[chosen]
    found = {
        "pose": array(states["p"][:PATHS, first:]),
        "increments": delta.reshape(-1, delta.shape[-1])[chosen],
        "increment_action": pick(batch.action_id.cpu().numpy()),
        "increment_code": pick(array(batch.actions)),
        "increment_noop": pick(batch.noop.cpu().numpy()),
        "increment_moved": pick(moved(batch)),
        "action_names": np.array(batch.space.names or [str(i) for i in range(batch.space.dim)]),
        "action_kind": np.array(batch.space.kind),
    }
    if place is not None:
        found["path"] = (place - place[:, first : first + 1])[:PATHS, first:].astype(np.float32)
    return found
