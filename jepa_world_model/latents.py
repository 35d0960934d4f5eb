"""The latent table of the world model: one function a latent, then the table, then the named gates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_world_model.core.graph import Edge, Graph, Latent, Scope
from jepa_world_model.model_config import ModelConfig


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What latents and losses may know of the configuration."""

    model: ModelConfig
    rollout_horizon: int = 8  # K, in steps


@dataclass(frozen=True)
class Rollout:
    """Self-fed states from every start at once, over the last axis but one of ever fewer starts.

    z[k], h[k] [B,T-k,D]: the state after k steps from start t; entry t belongs to frame t+k, so `h[k]` stands against
    `h[:, k:]`. k = 0 is the start itself.
    """

    z: tuple[Tensor, ...]
    h: tuple[Tensor, ...]


def observe(at: Scope) -> Tensor:
    """Frames in [0, 1], once a step."""
    return at.batch.frames.float().mul_(1 / 255)  # [B,T,C,H,W]


def encode(at: Scope) -> Tensor:
    """All B*T frames in one call."""
    x = at.x
    return at.model.encoder(x.flatten(0, 1)).unflatten(0, x.shape[:2])  # [B,T,Dz]


def lift(at: Scope) -> Tensor:
    """A dynamics state from a single frame."""
    return at.model.z_to_h(at.z)  # [B,T,Dh]


def _teacher_forced(at: Scope, h: Tensor) -> Tensor:
    z, a, states = at.z, at.batch.actions, [h]
    for t in range(a.shape[1]):
        states.append(at.model.predictor(z[:, t], states[-1], a[:, t]))
    return torch.stack([state.to(h.dtype) for state in states], 1)  # [B,T,Dh]


def teacher_forced(at: Scope) -> Tensor:
    """h from true frames, starting at the lifted first frame."""
    return _teacher_forced(at, at.h_from_z[:, 0].float())


def teacher_forced_from_zero(at: Scope) -> Tensor:
    """h from true frames, starting at zero."""
    return _teacher_forced(at, at.z.new_zeros(at.z.shape[0], at.settings.model.state_dim))


def read_out(at: Scope) -> Tensor:
    """The frame state that a dynamics state stands for."""
    return at.model.h_to_z(at.h)  # [B,T,Dz]


def next_frame(at: Scope) -> Tensor:
    """One-step prediction: entry t belongs to frame t+1."""
    return at.z_from_h[:, 1:]


def open_loop(at: Scope) -> Rollout:
    """K self-fed steps from every frame at once: one batched recurrence, with the starts that still have an action."""
    zs, hs, a = [at.z], [at.h], at.batch.actions
    for k in range(min(at.settings.rollout_horizon, a.shape[1])):
        starts = a.shape[1] - k
        hs.append(at.model.predictor(zs[-1][:, :starts], hs[-1][:, :starts], a[:, k:]))
        zs.append(at.model.h_to_z(hs[-1]))
    return Rollout(tuple(zs), tuple(hs))


def action_delta_h(at: Scope) -> Tensor:
    """The change of h that an action is expected to cause."""
    return at.model.h_action_delta_projector(at.h[:, :-1], at.batch.actions)


def pose_deltas(at: Scope) -> Tensor:
    """Increments of the pose along the window, each seen from the pose integrated so far."""
    h, a = at.h, at.batch.actions
    p, deltas = h.new_zeros(h.shape[0], at.settings.model.pose_dim), []
    for t in range(a.shape[1]):
        deltas.append(at.model.p_action_delta_projector(p, h[:, t], a[:, t]).float())
        p = p + deltas[-1]
    return torch.stack(deltas, 1)  # [B,T-1,Dp]


def integrate(at: Scope) -> Tensor:
    """The pose: increments summed from the origin, p[:, 0] = 0."""
    return torch.nn.functional.pad(at.delta_p.cumsum(1), (0, 0, 1, 0))


def two_step_increment(at: Scope) -> Tensor:
    """Two increments composed from the origin and one base state: g(0, h_t, a_t), then g of that with a_{t+1}."""
    h, a, g = at.h[:, :-2], at.batch.actions, at.model.p_action_delta_projector
    first = g(h.new_zeros(*h.shape[:2], at.settings.model.pose_dim), h, a[:, :-1])
    return first + g(first, h, a[:, 1:])


def integrate_open_loop(at: Scope) -> tuple[Tensor, ...]:
    """The pose along the imagined h, from every start: entry k [B,T-k,Dp], k = 0..K."""
    ps, rollout, a = [at.p], at.rollout, at.batch.actions
    for k in range(len(rollout.h) - 1):
        starts = a.shape[1] - k
        p = ps[-1][:, :starts]
        ps.append(p + at.model.p_action_delta_projector(p, rollout.h[k][:, :starts], a[:, k:]))
    return tuple(ps)


def action_prototypes(at: Scope) -> Tensor:
    """The pose increment an action stands for, whatever the state; a no-op stands for none."""
    return at.model.dp_action_delta_projector(at.batch.actions) * ~at.batch.noop[..., None]


def decode(at: Scope) -> Tensor:
    """Frames from frame states."""
    return at.model.decoder(at.z)  # [B,T,C,H,W]


def world_graph(settings: Settings) -> Graph:
    """The latent table of the world model under these settings."""
    lifted = settings.model.h_init == "z_to_h"
    start = Latent(
        "h", teacher_forced if lifted else teacher_forced_from_zero,
        reads=("z", "h_from_z") if lifted else ("z",), trains=("predictor",), shape="B T Dh",
    )  # fmt: skip
    pose = ("p_action_delta_projector",)
    latents = (
        Latent("x", observe, shape="B T C H W"),
        Latent("z", encode, reads=("x",), trains=("encoder",), shape="B T Dz"),
        Latent("h_from_z", lift, reads=("z",), trains=("z_to_h",), shape="B T Dh"),
        start,
        Latent("z_from_h", read_out, reads=("h",), trains=("h_to_z",), shape="B T Dz"),
        Latent("z_hat", next_frame, reads=("z_from_h",), shape="B T-1 Dz"),
        Latent("rollout", open_loop, reads=("z", "h"), trains=("predictor", "h_to_z")),
        Latent("delta_h_hat", action_delta_h, reads=("h",), trains=("h_action_delta_projector",), shape="B T-1 Dh"),
        Latent("delta_p", pose_deltas, reads=("h",), trains=pose, shape="B T-1 Dp"),
        Latent("p", integrate, reads=("delta_p",), shape="B T Dp"),
        Latent("delta_p_pair", two_step_increment, reads=("h",), trains=pose, shape="B T-2 Dp"),
        Latent("rollout_p", integrate_open_loop, reads=("rollout", "p"), trains=pose),
        Latent("delta_p_proto", action_prototypes, trains=("dp_action_delta_projector",), shape="B T-1 Dp"),
        Latent("x_hat", decode, reads=("z",), trains=("decoder",), shape="B T C H W"),
    )
    # Part of the design, not of an experiment: z_to_h is trained by its own losses on constant frames, and an imagined
    # pose starts from a pose that is taken as true. `gates` can open each of them.
    closed = [Edge("z", "h_from_z", keep=0.0), Edge("p", "rollout_p", keep=0.0)]
    if lifted:
        closed.append(Edge("h_from_z", "h", keep=0.0))
    return Graph(latents, tuple(closed))


NAMED_GATES: Mapping[str, tuple[str, ...]] = {
    "detach_z_from_h_and_p": ("z->h", "z->rollout"),
    "detach_decoder": ("z->x_hat",),
    "pose_delta_detach_h": ("h->delta_p", "h->delta_p_pair", "rollout->rollout_p"),
}


def named_gates(**closed: bool) -> dict[str, float]:
    """The edges of each named gate, cut where it is True. Example: named_gates(detach_decoder=True)."""
    return {edge: 0.0 if shut else 1.0 for name, shut in closed.items() for edge in NAMED_GATES[name]}
