"""The latent table of the vision-language-action model, its one gated edge, and the losses as contracts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.graph import Graph, Latent, Scope, View
from jepa_world_model.core.losses import Registry
from jepa_world_model.vla_ki.flow import FlowTargets, flow_targets, masked_mse
from jepa_world_model.vla_ki.gemma import KV
from jepa_world_model.vla_ki.model import KIConfig, run_prefix, slice_kv, to_float

BARRIER = "kv->velocity"
SETTINGS = ("insulated", "joint", "leaky")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What latents and losses may know of the configuration."""

    model: KIConfig
    # noisy versions of each chunk a VLM pass; cheap because the barrier keeps them off the VLM
    flow_samples: int = 4

    def __post_init__(self) -> None:
        if self.flow_samples < 1:
            raise UserError(f"flow_samples must be at least 1, got {self.flow_samples}")


@dataclass(frozen=True)
class Prefix:
    """The result of the one VLM pass."""

    hidden: Tensor  # [B,S,W], S = images + prompt + answer
    kv: KV  # keys and values of the visible columns, a pair a layer
    valid: Tensor  # [B,P] bool: which visible columns hold a token


def see(at: Scope) -> Tensor:
    """Image tokens of all cameras, in one call."""
    return at.model.vision(to_float(at.batch.images))  # [B,N,W]


def read(at: Scope) -> Prefix:
    """The VLM over images, prompt and answer; once, whoever needs it."""
    b, visible = at.batch, at.settings.model.visible
    hidden, kv, valid = run_prefix(
        at.model.vlm, at.image_tokens, b.image_mask, b.ids, b.token_mask, b.ar_mask
    )
    return Prefix(hidden, slice_kv(kv, visible), valid[:, :visible])


def keys_and_values(at: Scope) -> KV:
    """Every layer's keys and values of the visible prefix: all that the expert gets to know of the VLM."""
    return at.prefix.kv


def token_ce(at: Scope) -> Tensor:
    """Cross entropy of each supervised token from the hidden state one place before it, [M]."""
    b, cfg = at.batch, at.settings.model
    text = at.prefix.hidden[:, cfg.image_tokens :]  # [B,L,W]
    before = text.flatten(0, 1)[b.supervised - 1]  # never another row: a prompt stands before every answer
    return at.model.vlm.token_ce(before, b.ids.flatten()[b.supervised])


def draw(at: Scope) -> FlowTargets:
    """Noise, times, and the velocities to predict."""
    return flow_targets(at.batch.actions, at.settings.flow_samples, at.generator("flow"), at.world)


def predict(at: Scope) -> Tensor:
    """The expert's velocities of the robot rows, which come first; the one place where it reads the VLM."""
    rows = max(at.batch.robots, 1)  # a process without robot rows must keep in step with the others
    kv = tuple((k[:rows], v[:rows]) for k, v in at.kv)
    seen = visible_mask(at.batch, at.settings.model)[:rows]
    return at.model.expert(at.flow.x_t[:rows], at.flow.t[:rows], kv, seen)  # [R,K,T,A]


def visible_mask(batch: object, cfg: KIConfig) -> Tensor:
    """Which columns of the visible prefix hold a token. [B,P] bool."""
    per_camera = cfg.image_tokens // cfg.cameras
    images = batch.image_mask.repeat_interleave(per_camera, 1)
    return torch.cat([images, batch.token_mask[:, : cfg.prompt_length]], 1)


GRAPH = Graph(
    (
        Latent("image_tokens", see, trains=("vision",), shape="B N W", fp32=False),
        Latent("prefix", read, reads=("image_tokens",), trains=("vlm",), fp32=False),
        Latent("token_ce", token_ce, reads=("prefix",), trains=("vlm",), shape="M"),
        Latent("kv", keys_and_values, reads=("prefix",), fp32=False),
        Latent("flow", draw),
        Latent("velocity", predict, reads=("kv", "flow"), trains=("expert",), shape="R K T A"),
    )
)

LOSSES = Registry()


@LOSSES("fast_ce", family="vlm", moves=("token_ce",))
def fast_ce(view: View) -> Tensor:
    """The VLM names the FAST tokens of the coming actions.

    Formula: mean over robot rows of mean over FAST ids, closing mark and end mark of -log p; about ln(V) at
    first.
    """
    return _row_mean(view, view.batch.robot)


@LOSSES("text_ce", family="vlm", moves=("token_ce",))
def text_ce(view: View) -> Tensor:
    """The VLM answers questions about the image.

    Formula: mean over text rows of mean over answer tokens of -log p.
    """
    return _row_mean(view, ~view.batch.robot)


@LOSSES("flow", family="expert", moves=("velocity",), fixed=("flow",))
def flow(view: View) -> Tensor:
    """The expert knows the way from noise to the actions.

    Formula: mean over K draws and real action values of (v(x_t, t) - (noise - actions))^2.
    """
    rows = len(view.velocity)
    return masked_mse(view.velocity, view.fixed.flow.u[:rows], view.batch.action_mask[:rows], view.world)


def _row_mean(view: View, chosen: Tensor) -> Tensor:
    """Mean over the chosen rows of each row's mean over its supervised tokens; exactly 0 without any."""
    real = view.batch.supervised >= 0
    row = view.batch.supervised.clamp(min=0) // view.batch.ids.shape[1]
    ce = view.token_ce * (chosen[row] & real)
    totals = ce.new_zeros(len(chosen)).index_add(0, row, ce)
    counts = ce.new_zeros(len(chosen)).index_add(0, row, real.to(ce.dtype))
    rows = (totals / counts.clamp(min=1)).sum()
    return view.world.total(rows) / view.world.total(chosen.sum()).clamp(min=1)


def setting_gates(setting: str, leak: float) -> Mapping[str, float]:
    """The gate of a named setting. Errors: an unknown setting, or a leak outside [0, 1]."""
    if setting not in SETTINGS:
        raise UserError(f"setting must be one of {', '.join(SETTINGS)}, got {setting!r}")
    keep = {"insulated": 0.0, "joint": 1.0, "leaky": leak}[setting]
    return GRAPH.gates({BARRIER: keep})
