"""What a planner needs of a model: the protocol, and our world model behind it.

A state is a tensor or a nested tuple or dict of tensors, each with the same leading dimension N. Planners lay
episodes and candidates out along N, episode by episode, and never look inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from jepa_world_model.core.barrier import map_tree
from jepa_world_model.core.errors import UserError
from jepa_world_model.data.batch import ActionSpace
from jepa_world_model.latents import Settings
from jepa_world_model.models.world_model import WorldModel
from jepa_world_model.planning.fast_step import FastStep

State = Any  # a tensor, or a nested tuple or dict of tensors with a leading N


@runtime_checkable
class Dynamics(Protocol):
    """A model that can be planned with. Inherit from it to get the defaults of `observe` and `distance`."""

    space: ActionSpace
    latents: tuple[str, ...]  # what `read` knows, the one that `distance` compares first
    goal_latents: tuple[str, ...]  # those that a single frame tells, so that a goal has them

    def encode(self, frames: Tensor) -> State:
        """The state at each frame, nothing known of what came before: frames [N,C,H,W] uint8 -> N rows."""
        ...

    def step(self, state: State, action: Tensor) -> State:
        """The state after an encoded action [N,A]. Differentiable; neither argument is changed in place."""
        ...

    def read(self, state: State, name: str) -> Tensor:
        """A latent of the state as [N,D]."""
        ...

    def observe(self, state: State, action: Tensor, frames: Tensor) -> State:
        """The state after an action [N,A] was executed and frames [N,C,H,W] seen; by default the frame alone."""
        return self.encode(frames)

    def distance(self, state: State, goal: State) -> Tensor:
        """How far each state lies from its goal [N]: 0 at the goal; by default Euclidean."""
        name = self.latents[0]
        return (self.read(state, name) - self.read(goal, name)).norm(dim=-1)


# Trees of rows


def num_rows(state: State) -> int:
    """N of a state."""
    return _first(state).shape[0]


def device_of(state: State) -> torch.device:
    """Where a state lives."""
    return _first(state).device


def _first(state: State) -> Tensor:
    while not isinstance(state, Tensor):
        state = next(iter(state.values() if isinstance(state, dict) else state))
    return state


def repeat_rows(state: State, times: int) -> State:
    """Each row `times` times, one after another: row e becomes rows e * times .. (e + 1) * times - 1."""
    return state if times == 1 else map_tree(lambda x: x.repeat_interleave(times, 0), state)


def pick_rows(state: State, rows: Tensor | slice) -> State:
    """The rows of an index, a mask or a slice."""
    return map_tree(lambda x: x[rows], state)


def join_rows(parts: Sequence[State]) -> State:
    """The rows of several states, one after another."""
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(list(parts))
    if isinstance(first, dict):
        return {key: join_rows([part[key] for part in parts]) for key in first}
    return tuple(join_rows([part[i] for part in parts]) for i in range(len(first)))


# Our world model

NEEDED = {  # group -> a loss that builds it
    "encoder": "recon_multi_box", "predictor": "jepa", "h_to_z": "jepa", "z_to_h": "z2h",
    "p_action_delta_projector": "action_delta_dp",
}  # fmt: skip


class WorldModelDynamics(Dynamics):
    """A trained `WorldModel` as dynamics: state {"z", "h"}, with `pose` also {"p", "origin"}.

    settings: of the run, `TrainConfig.settings`. space: of its data. pose: integrate p along plans.
    precision: "fp32", or "bf16" for products in bfloat16 (states stay fp32).

    A pose is integrated from 0 wherever a state is encoded, as in training. With a `pose_measurement` it
    counts from what the frame measures, so that poses of two frames can be compared; without one a goal has
    no pose, and `goal_latents` leaves "p" out.
    Errors: UserError when the model lacks a part that this needs.
    """

    def __init__(
        self,
        model: WorldModel,
        settings: Settings,
        space: ActionSpace,
        *,
        pose: bool = False,
        precision: str = "fp32",
    ) -> None:
        lifts = settings.model.h_init == "z_to_h" and not settings.force_h_zero
        self.model, self.settings, self.space = model.eval(), settings, space
        self.lifts, self.pose, self.precision = lifts, pose, precision
        self.measures = pose and hasattr(model, "pose_measurement")
        wanted = ["encoder", "predictor", "h_to_z"] + ["z_to_h"] * lifts + ["p_action_delta_projector"] * pose
        for group in wanted:
            if not hasattr(model, group):
                raise UserError(
                    f"planning needs the model part {group}, which this run did not build; "
                    f"train with --loss-weights.{NEEDED[group].replace('_', '-')} above 0"
                )
        if space.dim != settings.model.action_dim:
            raise UserError(
                f"the model takes actions of width {settings.model.action_dim}, the action space encodes to "
                f"{space.dim}; plan in the environment the run was trained on"
            )
        if precision not in ("fp32", "bf16"):
            raise ValueError(f"precision must be fp32 or bf16, got {precision!r}")
        self.device = next(model.parameters()).device
        self._fast: FastStep | None = None
        self.latents = ("z", "h", *(["p"] if pose else []))
        self.goal_latents = ("z", *(["h"] if lifts else []), *(["p"] if self.measures else []))

    def _autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    @torch.no_grad()
    def encode(self, frames: Tensor) -> State:
        """The state at the first frame of a window: z, and h as training starts it."""
        z = self.encode_z(frames)
        if self.lifts:
            with self._autocast():
                h = self.model.z_to_h(z).float()
        else:
            h = z.new_zeros(z.shape[0], self.settings.model.state_dim)
        return {"z": z, "h": h} | self._anchor(z)

    @torch.no_grad()
    def encode_z(self, frames: Tensor) -> Tensor:
        """What each frame shows: frames [N,C,H,W] uint8 -> z [N,Dz]."""
        with self._autocast():
            return self.model.encoder(frames.to(self.device).float() / 255).float()

    def _anchor(self, z: Tensor) -> dict[str, Tensor]:
        """p at 0, and where in the measured frame of reference that is."""
        if not self.pose:
            return {}
        p = z.new_zeros(z.shape[0], self.settings.model.pose_dim)
        return {"p": p, "origin": self.model.pose_measurement(z) if self.measures else p}

    def _h_after(self, state: State, action: Tensor) -> Tensor:
        h = torch.zeros_like(state["h"]) if self.settings.force_h_zero else state["h"]
        return self.model.predictor(state["z"], h, action).float()

    def step(self, state: State, action: Tensor) -> State:
        """One self-fed step, as `rollout` takes it in training."""
        if self.precision == "bf16" and not torch.is_grad_enabled() and state["z"].device.type == "cpu":
            return self._fast_step(state, action)
        with self._autocast():
            h = self._h_after(state, action)
            after = {"z": self.model.h_to_z(h).float(), "h": h}
            return after | self._pose_after(state, action)

    def _fast_step(self, state: State, action: Tensor) -> State:
        if self._fast is None or not self._fast.is_current():
            self._fast = FastStep(self.model)
        h = torch.zeros_like(state["h"]) if self.settings.force_h_zero else state["h"]
        z, h = self._fast(state["z"], h, action)
        with self._autocast():
            return {"z": z, "h": h} | self._pose_after(state, action)

    def _pose_after(self, state: State, action: Tensor) -> dict[str, Tensor]:
        if not self.pose:
            return {}
        increment = self.model.p_action_delta_projector(state["p"], state["h"], action)
        return {"p": state["p"] + increment.float(), "origin": state["origin"]}

    @torch.no_grad()
    def observe(self, state: State, action: Tensor, frames: Tensor) -> State:
        """One teacher-forced step: h goes on from the last true frame, z is the new one.

        A pose that can be measured is measured anew; otherwise it goes on from the increments.
        """
        action, z = action.to(self.device), self.encode_z(frames)
        with self._autocast():
            h = self._h_after(state, action)
            pose = self._anchor(z) if self.measures else self._pose_after(state, action)
        return {"z": z, "h": h} | pose

    def read(self, state: State, name: str) -> Tensor:
        """z, h, or the pose p in its frame of reference."""
        if name not in self.latents:
            raise UserError(f"this model's states have no {name!r}; there are {', '.join(self.latents)}")
        return state["origin"] + state["p"] if name == "p" else state[name]
