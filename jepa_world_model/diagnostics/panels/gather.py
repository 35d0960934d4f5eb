"""From a model and a batch to the evidence of the panels: every call of the model happens here, once."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jepa_world_model.core.barrier import map_tree
from jepa_world_model.core.rng import Streams
from jepa_world_model.data.batch import Batch
from jepa_world_model.diagnostics.panels.evidence import (
    Evidence,
    Imagined,
    OneStep,
    PoseSums,
    SelfFed,
    ToGo,
)
from jepa_world_model.diagnostics.panels.ways import closed_ways, follow, opposites, tries, walk_laps
from jepa_world_model.planning.dynamics import Dynamics, State, num_rows, pick_rows, repeat_rows
from jepa_world_model.planning.worlds import World

STARTS = 48  # frames that counterfactual actions are imagined from
LINE = 5  # times that one action is repeated
LONG = 64  # steps of the rollout that norms are watched over
FILMS = 3
SMALL = 96  # px; encoding such frames is not worth a second thread either
GOALS = 16
FROM = 192  # frames that the steps to each goal are counted from


@dataclass(frozen=True)
class Witness:
    """A model to be questioned, and what is known of its world."""

    dynamics: Dynamics
    world: World | None = None  # the simulator; None where there is none
    walls: np.ndarray | None = None  # [E,2] further columns of a place by episode, where layouts differ
    decode: Callable[[Tensor], Tensor] | None = None  # z [N,Dz] -> pictures [N,C,H,W] in [0, 1]
    horizon: int = 8  # K
    warmup: int = 0  # frames at a window's start that count for nothing

    @property
    def model(self) -> Any:
        """The parts behind the dynamics, where it has any."""
        return getattr(self.dynamics, "model", None)


def gather(witness: Witness, batch: Batch, *, seed: int = 0) -> Evidence:
    """Question a model. Draws no global random number; the model is left as it was."""
    with torch.no_grad(), one_thread() if batch.frames.shape[-1] <= SMALL else contextlib.nullcontext():
        return _Gatherer(witness, batch, Streams(seed)).run()


class _Gatherer:
    """One pass over the batch, then what is imagined from its states."""

    def __init__(self, witness: Witness, batch: Batch, streams: Streams) -> None:
        self.witness, self.batch, self.streams = witness, batch, streams
        self.dynamics = integrating(witness.dynamics)
        self.names = roles(self.dynamics)
        self.first = witness.warmup
        self.horizon = min(witness.horizon, batch.T - 2 - self.first)
        self.actions = batch.actions.to(_device(witness.dynamics))

    def run(self) -> Evidence:
        """Everything, in order."""
        batch, first = self.batch, self.first
        self.along = self._true_states()  # T - first states of B rows
        self.latents = self._stacked(self.along)
        self.places = self._places()
        layout = np.zeros(batch.B, np.int64)
        if self.places is not None and self.places.shape[-1] > 2:
            layout = np.unique(self.places[:, 0, 2:], axis=0, return_inverse=True)[1].reshape(-1)
        anchored = {k: v - v[:, :1] if k == "p" else v for k, v in self.latents.items()}
        fed = self._self_fed()
        with one_thread():
            small = {
                "one_step": self._one_step(), "norms": self._norms(), "measured": self._measured(),
                "pose_sums": self._pose_sums(), "h_two_steps": self._h_two_steps(), "laps": self._laps(),
                "to_go": self._to_go(layout), **self._counterfactuals(*self._starts()),
            }  # fmt: skip
        return Evidence(
            space=batch.space, horizon=self.horizon, frames=batch.frames[:, first:].cpu().numpy(),
            actions=batch.actions[:, first:].cpu().numpy(), action_id=batch.action_id[:, first:].cpu().numpy(),
            noop=batch.noop[:, first:].cpu().numpy(), episode=batch.episode.cpu().numpy(), places=self.places,
            changed=self._changed(), layout=layout, latents=anchored, self_fed=fed, **small,
        )  # fmt: skip

    # Along true frames

    def _true_states(self) -> list[State]:
        frames, state = self.batch.frames, self.dynamics.encode(self.batch.frames[:, 0])
        states = [state]
        for t in range(self.batch.T - 1):
            state = self.dynamics.observe(state, self.actions[:, t], frames[:, t + 1])
            states.append(state)
        return states[self.first :]

    def _read(self, state: State) -> dict[str, np.ndarray]:
        return {
            role: self.dynamics.read(state, name).float().cpu().numpy() for role, name in self.names.items()
        }

    def _stacked(self, states: Sequence[State], axis: int = 1) -> dict[str, np.ndarray]:
        rows = [self._read(state) for state in states]
        return {role: np.stack([row[role] for row in rows], axis) for role in self.names}

    def _places(self) -> np.ndarray | None:
        if self.batch.state is None:
            return None
        told = self.batch.state[:, self.first :].cpu().double().numpy()
        if self.witness.world is None:
            return told[..., :2]
        if self.witness.walls is not None:
            walls = np.asarray(self.witness.walls, np.float64)[self.batch.episode.cpu().numpy()]
            told = np.concatenate([told, np.repeat(walls[:, None], told.shape[1], 1)], -1)
        return told

    def _changed(self) -> np.ndarray | None:
        if self.batch.state is None:
            return None
        return (self.batch.state.diff(dim=1).abs().amax(-1) > 1e-6)[:, self.first :].cpu().numpy()

    # Self-fed, along the actions that were taken

    def _self_fed(self) -> SelfFed:
        K, first = self.horizon, self.first
        count = len(self.along) - K  # starts a window
        state = joined(self.along[:count])  # [count * B], time by time
        taken = torch.stack([self.actions[:, first + t : first + t + K] for t in range(count)]).flatten(0, 1)
        states = [state]
        for k in range(K):
            states.append(self.dynamics.step(states[-1], taken[:, k]))
        true = {
            role: np.stack([value[:, k : k + count].swapaxes(0, 1).reshape(-1, value.shape[-1])
                            for k in range(K + 1)]) for role, value in self.latents.items()
        }  # fmt: skip
        ids = self.batch.action_id[:, first:].cpu().numpy()
        taken_ids = np.stack([ids[:, k : k + count].T.reshape(-1) for k in range(K)])
        return SelfFed(
            open=self._stacked(states, 0), true=true, action_id=taken_ids,
            **self._film([pick_rows(state, slice(0, self.batch.B)) for state in states]),
        )  # fmt: skip

    def _film(self, states: Sequence[State]) -> dict[str, Any]:
        """What is decoded from rollouts that start at the windows' first frames."""
        if self.witness.decode is None:
            return {}
        z = torch.stack([self.dynamics.read(state, self.names["z"]) for state in states], 1)  # [B,K+1,Dz]
        drawn = self.witness.decode(z.flatten(0, 1)).float().unflatten(0, z.shape[:2]).cpu()
        true = self.batch.frames[:, self.first : self.first + len(states)].cpu()
        pictures, kept = true.float() / 255, (true[:, :1].float() / 255)
        error = (drawn - pictures).square().mean((0, 2, 3, 4))[1:]
        copying = (kept - pictures).square().mean((0, 2, 3, 4))[1:]
        film = drawn[:FILMS].clamp(0, 1).mul(255).round().byte().numpy()
        ratio = (error / copying.clamp(min=1e-12)).double().numpy()
        return {"film": film, "film_true": true[:FILMS].numpy(), "pixel_ratio": ratio}

    def _one_step(self) -> OneStep:
        state = joined(self.along[:-1])
        taken = self.actions[:, self.first :].swapaxes(0, 1).flatten(0, 1)  # [(T-1)*B,A], time by time
        other = torch.from_numpy(_another(taken.cpu().numpy(), self.streams.numpy("swap"))).to(taken.device)
        after = {
            name: self._read(self.dynamics.step(state, a)) for name, a in (("as", taken), ("swapped", other))
        }
        no_memory = None
        if isinstance(state, dict) and isinstance(state.get("h"), Tensor):
            blank = state | {"h": torch.zeros_like(state["h"])}
            no_memory = self._read(self.dynamics.step(blank, taken))["z"]
        return OneStep(
            now=self._read(state), true=self._read(joined(self.along[1:])), after=after["as"],
            swapped=after["swapped"], no_memory=no_memory,
        )  # fmt: skip

    def _norms(self) -> dict[str, np.ndarray]:
        """Lengths of the self-fed states over many steps, along actions of the data in another order."""
        state = self.along[0]
        pool = self.actions.flatten(0, 1)
        draw = self.streams.torch("norms")
        sizes: list[dict[str, np.ndarray]] = []
        for step in range(LONG + 1):
            if step:
                rows = torch.randint(len(pool), (self.batch.B,), generator=draw).to(pool.device)
                state = self.dynamics.step(state, pool[rows])
            read = self._read(state)
            sizes.append(
                {role: np.linalg.norm(value, axis=-1) for role, value in read.items() if role != "p"}
            )
        return {role: np.stack([size[role] for size in sizes]) for role in sizes[0]}

    # Heads of our own model

    def _measured(self) -> np.ndarray | None:
        head = getattr(self.witness.model, "pose_measurement", None)
        if head is None or "p" not in self.names:
            return None
        z = torch.from_numpy(self.latents["z"]).to(self.actions)
        return head(z).float().cpu().numpy()

    def _pose_sums(self) -> PoseSums | None:
        g = getattr(self.witness.model, "p_action_delta_projector", None)
        if g is None or not {"h", "p"} <= set(self.names):
            return None
        h = torch.from_numpy(self.latents["h"][:, :-2]).to(self.actions)
        one, two = self.actions[:, self.first : -1], self.actions[:, self.first + 1 :]
        origin = h.new_zeros(*h.shape[:2], self.latents["p"].shape[-1])
        sums = []
        for a, b in ((one, two), (two, one)):
            step = g(origin, h, a).float()
            sums.append(_rows(step + g(step, h, b).float()))
        p = self.latents["p"]
        differs = (one != two).any(-1).flatten().cpu().numpy()
        return PoseSums(
            first_then_second=sums[0], second_then_first=sums[1], differs=differs,
            integrated=(p[:, 2:] - p[:, :-2]).reshape(-1, p.shape[-1]),
        )  # fmt: skip

    def _h_two_steps(self) -> tuple[np.ndarray, np.ndarray] | None:
        head = getattr(self.witness.model, "h_action_delta_projector", None)
        if head is None or "h" not in self.names:
            return None
        h = torch.from_numpy(self.latents["h"]).to(self.actions)
        one, two = self.actions[:, self.first : -1], self.actions[:, self.first + 1 :]
        expected = head(h[:, :-2], one).float() + head(h[:, 1:-1], two).float()
        return _rows(expected), _rows(h[:, 2:] - h[:, :-2])

    # Counterfactual actions

    def _starts(self) -> tuple[State, np.ndarray | None]:
        """Some frames of the batch: their states, and their true places [N,P] where these are known."""
        T = len(self.along)
        count = min(STARTS, self.batch.B * T)
        rows = np.sort(self.streams.numpy("starts").choice(self.batch.B * T, count, replace=False))
        states = pick_rows(joined(self.along), torch.from_numpy(rows).to(self.actions.device))
        if self.places is None or self.witness.world is None:
            return states, None
        return states, self.places.swapaxes(0, 1).reshape(-1, self.places.shape[-1])[rows]

    def _counterfactuals(self, state: State, places: np.ndarray | None) -> dict[str, Imagined | None]:
        names, raw = tries(self.batch)
        back = opposites(self.batch.space, raw)
        pairs = [(i, j) for i in range(len(raw)) for j in range(i)]
        both = [order for i, j in pairs for order in ((j, i), (i, j))]
        there_and_back = [(i, back[i]) for i in range(len(raw)) if back[i] is not None]
        wish: dict[str, tuple[list[str], list[Any]]] = {
            "repeats": (names, [[one] * LINE for one in raw]),
            "returns": (
                [names[i] for i, _ in there_and_back],
                [[raw[i], other] for i, other in there_and_back],
            ),
            "orders": ([f"{names[i]}, {names[j]}" for i, j in both], [[raw[i], raw[j]] for i, j in both]),
        }
        return {
            key: self._imagine(labels, np.asarray(rows), state, places) if rows else None
            for key, (labels, rows) in wish.items()
        }

    def _imagine(
        self, labels: list[str], raw: np.ndarray, state: State, places: np.ndarray | None
    ) -> Imagined:
        """Every sequence of raw actions [S,L,...] from every start."""
        S, L, N = len(raw), raw.shape[1], num_rows(state)
        encoded = torch.from_numpy(self.batch.space.encode(raw)).to(self.actions)  # [S,L,A]
        here, states = repeat_rows(state, S), []
        states.append(here)
        for t in range(L):
            here = self.dynamics.step(here, encoded[:, t].repeat(N, 1))
            states.append(here)
        latents = {
            role: value.reshape(N, S, L + 1, -1).swapaxes(0, 1)
            for role, value in self._stacked(states, 1).items()
        }
        told, free = (
            follow(self.witness.world, places, raw) if places is not None else (None, np.ones((S, N), bool))
        )
        return Imagined(labels=tuple(labels), latents=latents, places=told, free=free)

    # With the simulator

    def _laps(self) -> Any:
        world = self.witness.world
        if world is None or self.places is None:
            return None
        ways = closed_ways(world, self.batch, self.places.reshape(-1, self.places.shape[-1]))
        return (
            None if ways is None else walk_laps(self.dynamics, world, ways, self._stacked, self.batch.space)
        )

    def _to_go(self, layout: np.ndarray) -> ToGo | None:
        world = self.witness.world
        if world is None or self.places is None:
            return None
        T, draw = len(self.along), self.streams.numpy("goals")
        places = self.places.reshape(-1, self.places.shape[-1])
        goals = np.sort(draw.choice(len(places), min(GOALS, len(places)), replace=False))
        rows = np.sort(draw.choice(len(places), min(FROM, len(places)), replace=False))
        if len(np.unique(layout)) > 1:  # frames of the goals' own windows
            rows = np.unique((goals[:, None] // T * T + np.arange(T)).reshape(-1))
        steps = world.steps_to_go(
            np.repeat(places[rows], len(goals), 0), np.tile(places[goals], (len(rows), 1))
        )
        steps = np.where(steps < 0, np.nan, steps).reshape(len(rows), len(goals))
        own = np.repeat(layout, T)
        steps = np.where(own[rows][:, None] == own[goals], steps, np.nan)
        straight = np.linalg.norm(places[rows, None, :2] - places[goals, :2], axis=-1)
        return ToGo(steps=steps, straight=straight, costs=self._costs(rows, goals))

    def _costs(self, rows: np.ndarray, goals: np.ndarray) -> dict[str, np.ndarray]:
        """Distances of latents between frames and goals, a goal being known by its frame alone."""
        frames = self.batch.frames[:, self.first :].flatten(0, 1)
        alone = self._read(self.dynamics.encode(frames[torch.from_numpy(goals).to(frames.device)]))
        flat = {role: value.reshape(-1, value.shape[-1]) for role, value in self.latents.items()}
        there = {role: alone[role] for role in ("z", "h") if role in self.names and _known_alone(self, role)}
        measured = self._measured()
        if measured is not None:
            flat["p"] = measured.reshape(-1, measured.shape[-1])
            there["p"] = flat["p"][goals]
        costs = {
            role: np.linalg.norm(flat[role][rows][:, None].astype(np.float64) - goal, axis=-1)
            for role, goal in there.items()
        }
        head = getattr(self.witness.model, "temporal_distance", None)
        if head is not None:
            a, b = (torch.from_numpy(flat["z"][i]).to(self.actions) for i in (rows, goals))
            costs["steps"] = head(a[:, None], b[None]).expm1().double().cpu().numpy()
        return costs


def _known_alone(gatherer: _Gatherer, role: str) -> bool:
    return gatherer.names[role] in gatherer.dynamics.goal_latents


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One CPU thread inside: hundreds of small steps gain little from a second, and on a busy machine wait for it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def integrating(dynamics: Dynamics) -> Dynamics:
    """The same model with a pose that is integrated throughout, never measured anew."""
    if not getattr(dynamics, "measures", False):
        return dynamics
    twin = copy.copy(dynamics)
    twin.measures = False
    twin.goal_latents = tuple(name for name in twin.goal_latents if name != "p")
    return twin


def roles(dynamics: Dynamics) -> dict[str, str]:
    """Which of a model's latents stand for z, h and p: those of that name; the first is z where none is."""
    found = {name: name for name in ("z", "h", "p") if name in dynamics.latents}
    return found if "z" in found else {"z": dynamics.latents[0]} | found


def joined(states: Sequence[State]) -> State:
    """The rows of several states, one after another."""
    flat: list[list[Tensor]] = []
    for state in states:
        leaves: list[Tensor] = []
        map_tree(lambda x, leaves=leaves: leaves.append(x) or x, state)
        flat.append(leaves)
    whole = iter([torch.cat(parts) for parts in zip(*flat, strict=True)])
    return map_tree(lambda _: next(whole), states[0])


def _another(actions: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """For each row [n,A] the action of another row, a different one wherever one can be found."""
    chosen = draw.permutation(len(actions))
    for _ in range(20):
        same = (actions[chosen] == actions).all(-1)
        if not same.any():
            break
        chosen[same] = draw.integers(len(actions), size=int(same.sum()))
    return actions[chosen]


def _rows(x: Tensor) -> np.ndarray:
    return x.flatten(0, 1).float().cpu().numpy()


def _device(dynamics: Dynamics) -> torch.device:
    return getattr(dynamics, "device", torch.device("cpu"))
