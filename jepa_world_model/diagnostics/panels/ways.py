"""Actions to try and ways to walk: which actions undo each other, where sequences really lead, and closed ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from jepa_world_model.data.batch import ActionSpace, Batch
from jepa_world_model.diagnostics import probes
from jepa_world_model.diagnostics.panels.evidence import Laps
from jepa_world_model.planning.dynamics import Dynamics, State
from jepa_world_model.planning.worlds import World

MOST_TRIED = 8  # different actions that are imagined
AXES = 3  # of a continuous space
SIDES = (9, 8, 7, 6, 5, 4, 3, 2)  # steps along one side of a closed way, the longest that fits
LAPS = 4
WAYS = 2
STARTS_TRIED = 300


def tries(batch: Batch) -> tuple[list[str], list[np.ndarray]]:
    """The actions worth imagining, no-ops left out: names and raw actions, the commonest of the batch first."""
    space = batch.space
    if space.kind == "continuous":
        raw = space.decode(batch.actions.cpu().numpy()).reshape(-1, space.dim)
        size = float(np.median(np.linalg.norm(raw, axis=1)))
        axes = (space.names or tuple(map(str, range(space.dim))))[:AXES]
        signed = [(f"{sign}{name}", axis, way * size) for axis, name in enumerate(axes)
                  for sign, way in (("+", 1), ("-", -1))]  # fmt: skip
        return [name for name, _, _ in signed], [
            np.eye(space.dim, dtype=np.float32)[axis] * np.float32(value) for _, axis, value in signed
        ]
    ids, count = np.unique(batch.action_id.cpu().numpy()[~batch.noop.cpu().numpy()], return_counts=True)
    chosen = np.sort(ids[np.argsort(-count, kind="stable")][:MOST_TRIED])
    return [name_of(space, int(i)) for i in chosen], [raw_of(space, int(i)) for i in chosen]


def raw_of(space: ActionSpace, number: int) -> np.ndarray:
    """The raw action of an action id."""
    if space.kind == "discrete":
        return np.int64(number)
    return np.array([number >> bit & 1 for bit in range(space.dim)], np.uint8)


def name_of(space: ActionSpace, number: int) -> str:
    """What to call an action id; several bits at once are joined by a plus."""
    names = space.names or tuple(str(i) for i in range(space.dim))
    if space.kind == "discrete":
        return names[number]
    return "+".join(name for bit, name in enumerate(names) if number >> bit & 1) or "no-op"


def opposites(space: ActionSpace, raw: Sequence[np.ndarray]) -> list[np.ndarray | None]:
    """The raw action that undoes each of these; None where no name tells."""
    if space.kind == "continuous":
        return [-one for one in raw]
    pairs = probes.opposite_actions(space.names)
    partner = {one: other for a, b in pairs for one, other in ((a, b), (b, a))}
    if space.kind == "discrete":
        return [np.int64(partner[int(one)]) if int(one) in partner else None for one in raw]
    found: list[np.ndarray | None] = []
    for one in raw:
        bits = np.flatnonzero(one)
        undone = np.zeros_like(one)
        if all(int(bit) in partner for bit in bits):
            undone[[partner[int(bit)] for bit in bits]] = 1
        found.append(undone if len(bits) and undone.any() else None)
    return found


def follow(world: World, places: np.ndarray, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where sequences of raw actions [S,L,...] really lead from places [N,P].

    Returns places [S,N,L+1,P], and whether no step met a wall [S,N]: each went as far as that action goes
    from whichever of the places it goes farthest.
    """
    S, L, N = len(raw), raw.shape[1], len(places)
    here = np.tile(places, (S, 1))
    told = [here]
    for t in range(L):
        here = world.step(here, np.repeat(raw[:, t], N, 0))
        told.append(here)
    whole = np.stack(told, 1).reshape(S, N, L + 1, -1).astype(np.float64)
    steps = np.diff(whole[..., :2], axis=2)  # [S,N,L,2]
    free, known = np.ones((S, N), bool), {}
    for s in range(S):
        for t in range(L):
            key = raw[s, t].tobytes()
            if key not in known:
                known[key] = _freest(world, places, raw[s, t])
            off = np.linalg.norm(steps[s, :, t] - known[key], axis=-1)
            free[s] &= off <= 0.05 * np.linalg.norm(known[key]) + 1e-6
    return whole, free


def _freest(world: World, places: np.ndarray, action: np.ndarray) -> np.ndarray:
    to = world.step(places, np.repeat(action[None], len(places), 0))
    moves = (np.asarray(to, np.float64) - places)[:, :2]
    return moves[np.linalg.norm(moves, axis=1).argmax()]


def closed_ways(world: World, batch: Batch, places: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Up to WAYS rectangles that can be walked without meeting a wall: starts [R,P], raw actions [R,steps,...].

    They start at places of the data; the longest side that fits anywhere wins. None where no two pairs of
    opposite actions are known, or no rectangle is free.
    """
    _, raw = tries(batch)
    axes = [
        (one, back) for one, back in zip(raw, opposites(batch.space, raw), strict=True) if back is not None
    ]
    unique = np.unique(places, axis=0)
    starts = unique[np.linspace(0, len(unique) - 1, min(len(unique), STARTS_TRIED)).round().astype(int)]
    corners = [(a, b) for i, a in enumerate(axes) for j, b in enumerate(axes) if i != j and not _undoes(a, b)]
    for side in SIDES:
        ways = [np.stack([a[0]] * side + [b[0]] * side + [a[1]] * side + [b[1]] * side) for a, b in corners]
        if not ways:
            return None
        told, free = follow(world, starts, np.stack(ways))
        back = np.abs(told[:, :, -1] - told[:, :, 0]).max(-1) < 1e-6
        good = np.argwhere(free & back)
        if len(good):
            chosen = good[np.linspace(0, len(good) - 1, min(len(good), WAYS)).round().astype(int)]
            return starts[chosen[:, 1]], np.stack([ways[way] for way in chosen[:, 0]])
    return None


def _undoes(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> bool:
    return bool(np.array_equal(one[1], other[0]))


def walk_laps(
    dynamics: Dynamics,
    world: World,
    ways: tuple[np.ndarray, np.ndarray],
    read: Callable[[Sequence[State]], dict[str, np.ndarray]],
    space: ActionSpace,
) -> Laps:
    """The states along each way, walked LAPS times with the true frames before the model's eyes."""
    here, raw = ways
    steps = raw.shape[1]
    encoded = torch.from_numpy(space.encode(raw))  # [R,steps,A]
    device = getattr(dynamics, "device", torch.device("cpu"))
    state, states, told = dynamics.encode(_seen(world, here)), [], [here]
    states.append(state)
    for t in range(LAPS * steps):
        here = world.step(here, raw[:, t % steps])
        state = dynamics.observe(state, encoded[:, t % steps].to(device), _seen(world, here))
        states.append(state)
        told.append(here)
    return Laps(latents=read(states), places=np.stack(told, 1).astype(np.float64), steps=steps, laps=LAPS)


def _seen(world: World, places: np.ndarray) -> Any:
    return torch.from_numpy(np.ascontiguousarray(world.draw(places)))
