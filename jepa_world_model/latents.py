"""The latent table of the world model: one function a latent, then the table, then the named gates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_world_model.core.graph import Edge, Graph, Latent, Scope
from jepa_world_model.model_config import ModelConfig
from jepa_world_model.models.repeated import repeated

RENDER_MODES = ("direct", "anchor_delta")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What latents and losses may know of the configuration."""

    model: ModelConfig
    rollout_horizon: int = 8  # K, in steps; shorter windows are rolled out for T - 1
    force_h_zero: bool = False  # the predictor gets zeros for h: no memory but the last frame (an ablation)
    render_mode: str = "direct"  # of imagined frames; "anchor_delta": true start frame plus decoded change

    def __post_init__(self) -> None:
        if self.rollout_horizon < 1:
            raise ValueError(f"rollout_horizon must be 1 or above, got {self.rollout_horizon}")
        if self.render_mode not in RENDER_MODES:
            raise ValueError(f"render_mode must be {' or '.join(RENDER_MODES)}, got {self.render_mode!r}")


@dataclass(frozen=True)
class Rollout:
    """Self-fed states from every start at once, of ever fewer starts.

    z[k], h[k] [B,T-k,D]: the state after k steps from start t; entry t belongs to frame t+k, so `h[k]` stands
    against `h[:, k:]`. k = 0 is the start itself.
    """

    z: tuple[Tensor, ...]
    h: tuple[Tensor, ...]


# Frames and frame states


def observe(at: Scope) -> Tensor:
    """Frames in [0, 1], once a step."""
    return at.batch.frames.float().mul_(1 / 255)  # [B,T,C,H,W]


def encode(at: Scope) -> Tensor:
    """What each frame shows, all B*T frames in one call."""
    x = at.x
    return at.model.encoder(x.flatten(0, 1)).unflatten(0, x.shape[:2])  # [B,T,Dz]


def decode(at: Scope) -> Tensor:
    """Frames from frame states."""
    return at.model.decoder(at.z)  # [B,T,C,H,W]


# Dynamics


def lift(at: Scope) -> Tensor:
    """A dynamics state from a single frame."""
    return at.model.z_to_h(at.z)  # [B,T,Dh]


def _over_true_frames(at: Scope, h: Tensor) -> Tensor:
    z, a, states = at.z, at.batch.actions, [h]
    with repeated(at.model.predictor):
        for t in range(a.shape[1]):
            states.append(at.model.predictor(z[:, t], states[-1], a[:, t]))
    return torch.stack([state.to(h.dtype) for state in states], 1)  # [B,T,Dh]


def no_memory(at: Scope, z: Tensor) -> Tensor:
    """Zeros in the place of h, one for each frame state [...,Dz] -> [...,Dh]."""
    return z.new_zeros(*z.shape[:-1], at.settings.model.state_dim)


def teacher_forced(at: Scope) -> Tensor:
    """h from true frames, starting at the lifted first frame."""
    return _over_true_frames(at, at.h_from_z[:, 0].float())


def teacher_forced_from_zero(at: Scope) -> Tensor:
    """h from true frames, starting at zero."""
    return _over_true_frames(at, no_memory(at, at.z[:, 0]))


def without_memory(at: Scope) -> Tensor:
    """h from the last true frame and action alone: what the predictor makes of zeros. The first is zero."""
    z = at.z
    zeros = no_memory(at, z)
    return torch.cat([zeros[:, :1], at.model.predictor(z[:, :-1], zeros[:, 1:], at.batch.actions)], 1)


def read_out(at: Scope) -> Tensor:
    """The frame state that a dynamics state stands for."""
    return at.model.h_to_z(at.h)  # [B,T,Dz]


def next_frame(at: Scope) -> Tensor:
    """One-step prediction: entry t belongs to frame t+1."""
    return at.z_from_h[:, 1:]


def open_loop(at: Scope) -> Rollout:
    """K self-fed steps from every frame at once: one recurrence over the starts that still have an action."""
    zs, hs, a = [at.z], [at.h], at.batch.actions
    with repeated(at.model.predictor, at.model.h_to_z):
        for k in range(min(at.settings.rollout_horizon, a.shape[1])):
            starts = a.shape[1] - k
            hs.append(at.model.predictor(zs[-1][:, :starts], hs[-1][:, :starts], a[:, k:]))
            zs.append(at.model.h_to_z(hs[-1]))
    return Rollout(tuple(zs), tuple(hs))


def open_loop_without_memory(at: Scope) -> Rollout:
    """The same with zeros for h at every step: only z is fed on."""
    zs, a = [at.z], at.batch.actions
    hs = [no_memory(at, zs[0])]
    with repeated(at.model.predictor, at.model.h_to_z):
        for k in range(min(at.settings.rollout_horizon, a.shape[1])):
            starts = a.shape[1] - k
            hs.append(at.model.predictor(zs[-1][:, :starts], hs[0][:, :starts], a[:, k:]))
            zs.append(at.model.h_to_z(hs[-1]))
    return Rollout(tuple(zs), tuple(hs))


def action_delta_h(at: Scope) -> Tensor:
    """The change of h that an action is expected to cause."""
    return at.model.h_action_delta_projector(at.h[:, :-1], at.batch.actions)


def undo(at: Scope) -> Tensor:
    """The action that undoes a[t] where h[t] was."""
    return at.model.inverse_action_head(at.h[:, :-1], at.batch.actions)  # [B,T-1,A]


def step_back(at: Scope) -> Tensor:
    """A step on from h[t+1] with the action that undoes a[t]: entry t should be h[t]."""
    return at.model.predictor(at.z_hat, at.h[:, 1:], at.undoing_action)


def step_back_without_memory(at: Scope) -> Tensor:
    """The same with zeros for h."""
    return at.model.predictor(at.z_hat, no_memory(at, at.z_hat), at.undoing_action)


# Pose


def _in_fp32(h: Tensor) -> torch.autocast:
    """Increments are summed, so they are computed as exactly as the sum; a bf16 product this small only costs more."""
    return torch.autocast(h.device.type, enabled=False)


def pose_deltas(at: Scope) -> Tensor:
    """Increments of the pose along the window, each seen from the pose integrated so far."""
    h, a = at.h, at.batch.actions
    p, deltas = h.new_zeros(h.shape[0], at.settings.model.pose_dim), []
    with _in_fp32(h), repeated(at.model.p_action_delta_projector):
        for t in range(a.shape[1]):
            deltas.append(at.model.p_action_delta_projector(p, h[:, t], a[:, t]))
            p = p + deltas[-1]
    return torch.stack(deltas, 1)  # [B,T-1,Dp]


def integrate(at: Scope) -> Tensor:
    """The pose: increments summed from the origin, p[:, 0] = 0."""
    return torch.nn.functional.pad(at.delta_p.cumsum(1), (0, 0, 1, 0))


def two_step_increment(at: Scope) -> Tensor:
    """Two increments from the origin and one base state: d0 = g(0, h[t], a[t]), d1 = g(d0, h[t], a[t+1])."""
    h, a, g = at.h[:, :-2], at.batch.actions, at.model.p_action_delta_projector
    with _in_fp32(h), repeated(g):
        first = g(h.new_zeros(*h.shape[:2], at.settings.model.pose_dim), h, a[:, :-1])
        return first + g(first, h, a[:, 1:])


def integrate_open_loop(at: Scope) -> tuple[Tensor, ...]:
    """The pose along the imagined h, from every start: entry k [B,T-k,Dp], k = 0..K."""
    ps, a = [at.p], at.batch.actions
    hs = (at.h, *at.rollout.h[1:])
    with _in_fp32(at.p), repeated(at.model.p_action_delta_projector):
        for k in range(len(hs) - 1):
            starts = a.shape[1] - k
            p = ps[-1][:, :starts]
            ps.append(p + at.model.p_action_delta_projector(p, hs[k][:, :starts], a[:, k:]))
    return tuple(ps)


def increment_back(at: Scope) -> Tensor:
    """The increment of the action that undoes a[t], taken where a[t] led."""
    p, h, a = at.p[:, 1:], at.h[:, 1:], at.undoing_action
    with _in_fp32(p):
        return at.model.p_action_delta_projector(p, h, a)  # [B,T-1,Dp]


def action_prototypes(at: Scope) -> Tensor:
    """The pose increment an action stands for, whatever the state; a no-op stands for none."""
    return at.model.dp_action_delta_projector(at.batch.actions) * ~at.batch.noop[..., None]


# Imagined frames


def decode_next(at: Scope) -> Tensor:
    """Frames from one-step predictions: entry t belongs to frame t+1."""
    return at.model.decoder(at.z_hat)  # [B,T-1,C,H,W]


def _decoded(at: Scope, rollout: Rollout) -> tuple[Tensor, ...]:
    zs = rollout.z[1:]
    return at.model.decoder(torch.cat(zs, 1)).split([z.shape[1] for z in zs], 1)


def _anchored(at: Scope, decoded: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    base = at.x - at.x_anchor
    return tuple(base[:, : frames.shape[1]] + frames for frames in decoded)


def render(at: Scope) -> tuple[Tensor, ...]:
    """Frames of the rollout, decoded in one call: entry k [B,T-k,C,H,W], k = 0..K; entry 0 is the true x."""
    return at.x, *_decoded(at, at.rollout)


def render_anchored(at: Scope) -> tuple[Tensor, ...]:
    """The same as true start frame plus decoded change: x[t] + decode(z_open[t,k]) - decode(sg z[t])."""
    return at.x, *_anchored(at, _decoded(at, at.rollout))


def render_live(at: Scope) -> tuple[Tensor, ...]:
    """Frames of the rollout from live z, as `render` gives them."""
    return at.x, *_decoded(at, at.rollout_live)


def render_live_anchored(at: Scope) -> tuple[Tensor, ...]:
    """Frames of the rollout from live z, as `render_anchored` gives them."""
    return at.x, *_anchored(at, _decoded(at, at.rollout_live))


def see_again(at: Scope) -> tuple[Tensor, ...]:
    """Frame states of the imagined frames, encoded in one call: entry k-1 [B,T-k,Dz], k = 1..K."""
    drawn = at.x_rollout_live[1:]
    frames = torch.cat(drawn, 1)
    z = at.model.encoder(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
    return z.split([step.shape[1] for step in drawn], 1)


# Part of the design, not of an experiment; `gates` can open each of them.
CLOSED_BY_DESIGN: Mapping[str, str] = {
    "z->h_from_z": "z_to_h learns from constant frames",
    "h_from_z->h": "only the z2h family trains z_to_h",
    "h->undoing_action": "the head that undoes an action reads states, it does not shape them",
    "p->rollout_p": "an imagined pose starts from a pose that is taken as true",
    "p->delta_p_back": "an increment back starts from a pose that is taken as true",
    "z->x_anchor": "the decoded start of an imagined change is the same constant for every step",
}

# Open by design, although dynamics and frames are on their two ends: the algebra on z is about z itself.
OPEN_BY_DESIGN: Mapping[str, str] = {
    "z->rollout_live": "the algebra on z starts from live z; `rollout` is the one from constant z",
}

NAMED_GATES: Mapping[str, tuple[str, ...]] = {
    "detach_z_from_h_and_p": ("z->h", "z->rollout"),
    "detach_decoder": (
        "z->x_hat", "z_hat->x_from_z_hat", "rollout->x_rollout", "rollout_live->x_rollout_live",
    ),
    "pose_delta_detach_h": (
        "h->delta_p", "h->delta_p_pair", "h->rollout_p", "rollout->rollout_p", "h->delta_p_back",
    ),
}  # fmt: skip


def world_graph(settings: Settings) -> Graph:
    """The latent table of the world model under these settings."""
    own_h: tuple[str, ...] = ()
    starts: tuple[str, ...] = ("z",)
    forced, unrolled, returned = without_memory, open_loop_without_memory, step_back_without_memory
    if not settings.force_h_zero:
        own_h, forced, unrolled, returned = ("h",), teacher_forced_from_zero, open_loop, step_back
        if settings.model.h_init == "z_to_h":
            forced, starts = teacher_forced, ("z", "h_from_z")
    anchor: tuple[str, ...] = ()
    drawn, drawn_live = render, render_live
    if settings.render_mode == "anchor_delta":
        drawn, drawn_live, anchor = render_anchored, render_live_anchored, ("x_anchor",)
    dynamics, decoder, pose = ("predictor", "h_to_z"), ("decoder",), ("p_action_delta_projector",)
    latents = (  # name, function, reads, trains, shape
        Latent("x", observe, (), (), "B T C H W"),
        Latent("z", encode, ("x",), ("encoder",), "B T Dz"),
        Latent("x_hat", decode, ("z",), decoder, "B T C H W"),
        Latent("h_from_z", lift, ("z",), ("z_to_h",), "B T Dh"),
        Latent("h", forced, starts, ("predictor",), "B T Dh"),
        Latent("z_from_h", read_out, ("h",), ("h_to_z",), "B T Dz"),
        Latent("z_hat", next_frame, ("z_from_h",), (), "B T-1 Dz"),
        Latent("rollout", unrolled, ("z", *own_h), dynamics),
        Latent("rollout_live", unrolled, ("z", *own_h), dynamics),
        Latent("delta_h_hat", action_delta_h, ("h",), ("h_action_delta_projector",), "B T-1 Dh"),
        Latent("undoing_action", undo, ("h",), ("inverse_action_head",), "B T-1 A"),
        Latent("h_back", returned, ("z_hat", *own_h, "undoing_action"), ("predictor",), "B T-1 Dh"),
        Latent("delta_p", pose_deltas, ("h",), pose, "B T-1 Dp"),
        Latent("p", integrate, ("delta_p",), (), "B T Dp"),
        Latent("delta_p_pair", two_step_increment, ("h",), pose, "B T-2 Dp"),
        Latent("rollout_p", integrate_open_loop, ("p", "h", "rollout"), pose),
        Latent("delta_p_back", increment_back, ("p", "h", "undoing_action"), pose, "B T-1 Dp"),
        Latent("delta_p_proto", action_prototypes, (), ("dp_action_delta_projector",), "B T-1 Dp"),
        Latent("x_from_z_hat", decode_next, ("z_hat",), decoder, "B T-1 C H W"),
        Latent("x_anchor", decode, ("z",), decoder, "B T C H W"),
        Latent("x_rollout", drawn, ("x", "rollout", *anchor), decoder),
        Latent("x_rollout_live", drawn_live, ("x", "rollout_live", *anchor), decoder),
        Latent("z_again", see_again, ("x_rollout_live",), ("encoder",)),
    )
    names = {f"{read}->{latent.name}" for latent in latents for read in latent.reads}
    closed = (name for name in CLOSED_BY_DESIGN if name in names)
    return Graph(latents, tuple(Edge(*name.split("->"), keep=0.0) for name in closed))


def named_gates(**closed: bool) -> dict[str, float]:
    """The edges of each named gate, cut where it is True. Example: named_gates(detach_decoder=True)."""
    return {edge: 0.0 if shut else 1.0 for name, shut in closed.items() for edge in NAMED_GATES[name]}
