"""The training step as one would write it first, beside ours: the same model and losses, and what each idea gives.

Command: python benchmarks/naive.py [--batch 8] [--frames 8] [--turns 20] [--budget-s 240] [--threads 2] [--compile]

Naive: frames encoded one time step after the other, h, p and every rollout step by step, each rollout loss with its own
rollout from each start by itself, the encoder's mirror as decoder (a 3x3 convolution at each size, full resolution too),
the image losses as their formula reads and differentiated by autograd, fp32, frames and weights in torch's own layout, AdamW
parameter by parameter. With our decoder the naive step has the same losses and gradients as ours (tests/test_benchmarks.py).
--compile: also our step as the trainer's `--compile` makes it. Freed memory is kept, as the trainer does, for all arms. They
take turns; ratios are medians over turns, with quartiles.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from decoder import NaiveDecoder
from flags import flags_of
from timing import clock_for, interleaved, ratio
from torch import Tensor

from jepa_world_model.commands.gradients import synthetic_batch, with_actions
from jepa_world_model.core.barrier import stop
from jepa_world_model.core.compiled import Compiled
from jepa_world_model.core.graph import View
from jepa_world_model.core.memory import keep_freed_memory
from jepa_world_model.core.optim import build_optimizer
from jepa_world_model.core.step import train_step
from jepa_world_model.core.task import Task
from jepa_world_model.data.batch import Batch
from jepa_world_model.experiment import TrainConfig, build_task
from jepa_world_model.experiment.build import no_decay, resolve_precision
from jepa_world_model.latents import Rollout
from jepa_world_model.losses.image_distance import MultiBoxConfig
from jepa_world_model.models import soft_argmax

TINY = 1e-6
ROLLED = ("rollout", "rollout_p")  # each loss that reads one computes its own


def naive_terms(task: Task, batch: Batch) -> dict[str, Tensor]:
    """The losses of the default gates, without batching over time and without sharing rollouts."""
    model, a, T = task.model, batch.actions, batch.T
    x = batch.frames.float() / 255
    z = torch.stack([model.encoder(x[:, t]) for t in range(T)], 1)
    fixed = stop(z)  # z -> h, z -> rollout, z -> h_from_z
    lifted = torch.stack([model.z_to_h(fixed[:, t]) for t in range(T)], 1)
    h = [stop(lifted[:, 0])]
    for t in range(T - 1):
        h.append(model.predictor(fixed[:, t], h[-1], a[:, t]))
    h = torch.stack(h, 1)
    read = torch.stack([model.h_to_z(h[:, t]) for t in range(T)], 1)
    still, p, deltas = stop(h), [h.new_zeros(batch.B, task.settings.model.pose_dim)], []
    for t in range(T - 1):
        deltas.append(model.p_action_delta_projector(p[-1], still[:, t], a[:, t]))
        p.append(p[-1] + deltas[-1])
    p = torch.stack(p, 1)
    states: dict[str, Any] = {
        "x": x, "z": z, "h_from_z": lifted, "h": h, "z_from_h": read, "z_hat": read[:, 1:],
        "x_hat": torch.stack([model.decoder(z[:, t]) for t in range(T)], 1),
        "delta_h_hat": torch.stack([model.h_action_delta_projector(h[:, t], a[:, t]) for t in range(T - 1)], 1),
        "delta_p": torch.stack(deltas, 1), "p": p, "delta_p_pair": _pairs(model, still, a, p),
        "delta_p_proto": model.dp_action_delta_projector(a) * ~batch.noop[..., None],
    }  # fmt: skip
    context, terms = task.context(batch), {}
    for loss in task.losses:
        own = dict(states)
        if any(name in ROLLED for name in loss.contract.moves + loss.contract.fixed):
            own["rollout"] = roll(task, fixed, h, a)
        if "rollout_p" in loss.contract.moves:
            own["rollout_p"] = roll_pose(task, stop(p), still, stop(own["rollout"]), a)
        view = task.view(loss, own, context)
        terms[loss.name] = PLAIN.get(loss.name, loss.function)(view)
    return terms


def multi_box(x_hat: Tensor, x: Tensor, o: MultiBoxConfig) -> Tensor:
    """The distance of two lists of pictures [N,C,H,W] as one reads it in docs/losses.md."""
    total = x.new_zeros(())
    for kernel, stride, beta, share in zip(o.kernels, o.strides, o.betas, o.lambdas, strict=True):
        e = (x_hat - x).abs().mean(1, keepdim=True)
        around = F.avg_pool2d(e.detach(), min(kernel, *e.shape[2:]), stride)
        around = F.interpolate(around, size=e.shape[2:], mode="nearest")
        w = (e.detach() / (around + TINY)).pow(beta).clamp(max=o.max_hardness)
        total = total + share * ((w * e).sum((1, 2, 3)) / (w.sum((1, 2, 3)) + TINY)).mean()
        x_hat, x = F.avg_pool2d(x_hat, 2, ceil_mode=True), F.avg_pool2d(x, 2, ceil_mode=True)
    return total


def recon_multi_box(view: View) -> Tensor:
    """The loss of that name."""
    return multi_box(view.x_hat.flatten(0, 1), view.fixed.x.flatten(0, 1), view.options)


def pixel_delta_multi_box(view: View) -> Tensor:
    """The loss of that name."""
    drawn, true = (x[:, 1:] - x[:, :-1] for x in (view.x_hat, view.fixed.x))
    return multi_box(drawn.flatten(0, 1), true.flatten(0, 1), view.options)


PLAIN = {"recon_multi_box": recon_multi_box, "pixel_delta_multi_box": pixel_delta_multi_box}


def _pairs(model: Any, h: Tensor, a: Tensor, p: Tensor) -> Tensor:
    """Two increments from the origin and one base state, for each start."""
    g, found = model.p_action_delta_projector, []
    for t in range(a.shape[1] - 1):
        first = g(torch.zeros_like(p[:, 0]), h[:, t], a[:, t])
        found.append(first + g(first, h[:, t], a[:, t + 1]))
    return torch.stack(found, 1)


def _starts(actions: Tensor, horizon: int, k: int) -> range:
    return range(actions.shape[1] + 1 - k) if k <= horizon else range(0)


def roll(task: Task, z: Tensor, h: Tensor, a: Tensor) -> Rollout:
    """Self-fed states, from one start after the other."""
    horizon = min(task.settings.rollout_horizon, a.shape[1])
    paths = []
    for t in range(a.shape[1] + 1):
        zs, hs = [z[:, t]], [h[:, t]]
        for k in range(min(horizon, a.shape[1] - t)):
            hs.append(task.model.predictor(zs[-1], hs[-1], a[:, t + k]))
            zs.append(task.model.h_to_z(hs[-1]))
        paths.append((zs, hs))
    turned = [
        tuple(torch.stack([paths[t][part][k] for t in _starts(a, horizon, k)], 1) for k in range(horizon + 1))
        for part in (0, 1)
    ]
    return Rollout(*turned)


def roll_pose(task: Task, p: Tensor, h: Tensor, rollout: Rollout, a: Tensor) -> tuple[Tensor, ...]:
    """The pose along imagined states, from one start after the other."""
    horizon, paths = len(rollout.h) - 1, []
    for t in range(a.shape[1] + 1):
        ps = [p[:, t]]
        for k in range(min(horizon, a.shape[1] - t)):
            here = rollout.h[k][:, t] if k else h[:, t]
            ps.append(ps[-1] + task.model.p_action_delta_projector(ps[-1], here, a[:, t + k]))
        paths.append(ps)
    return tuple(torch.stack([paths[t][k] for t in _starts(a, horizon, k)], 1) for k in range(horizon + 1))


class FullFrames(torch.nn.Module):
    """The mirror of the encoder, for states of any leading dimensions."""

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.mirror = NaiveDecoder(cfg)

    def forward(self, z: Tensor) -> Tensor:
        return self.mirror(z)


def naive_step(task: Task, batch: Batch, lr: float, autocast: bool = False) -> Callable[[], None]:
    """One naive step: losses one after the other, backward, clip group by group, AdamW parameter by parameter."""
    groups = [list(members.values()) for members in task.groups.values()]
    optimizer = torch.optim.AdamW(
        [p for members in groups for p in members], lr=lr, foreach=False, fused=False
    )

    def step() -> None:
        optimizer.zero_grad()
        plain = patch.object(soft_argmax, "serves", lambda _: False)
        with plain, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            terms = naive_terms(task, batch)
            loss = sum(task.weights[name] * term for name, term in terms.items())
        loss.backward()
        for members in groups:
            torch.nn.utils.clip_grad_norm_(members, 1.0, foreach=False)
        optimizer.step()

    return step


def our_step(
    cfg: TrainConfig, batch: Batch, *, mirror: bool = False, compiled: bool = False
) -> Callable[[], object]:
    """Our step, also with the mirror as decoder, also compiled."""
    task = build_task(cfg)
    if mirror:
        task = _with_mirror(task, cfg)
    optimizer = build_optimizer(task.groups, dataclasses.replace(cfg.optim, lr_scale={}), no_decay)
    program = Compiled(task, say=print) if compiled else None
    return lambda: train_step(
        task, optimizer, batch, 0, max_grad_norm=cfg.optim.max_grad_norm, differentiate=program
    )


def _with_mirror(task: Task, cfg: TrainConfig) -> Task:
    task.model.decoder = FullFrames(cfg.model)
    return task.with_model(task.model)


def arms(
    batch_size: int, frames: int, precision: str, *, compiled: bool = False
) -> dict[str, Callable[[], object]]:
    """Naive, ours, and the steps between them."""
    make = lambda p: with_actions(
        TrainConfig(batch_size=batch_size, seq_len=frames, rollout_horizon=min(8, frames - 1), precision=p)
    )
    fp32, fast = make("fp32"), make(precision)
    batch = synthetic_batch(fp32, batch_size)
    return {
        "naive": naive_step(_with_mirror(build_task(fp32), fp32), batch, fp32.optim.lr),
        f"naive in {precision}": naive_step(_with_mirror(build_task(fp32), fp32), batch, fp32.optim.lr, precision == "bf16"),
        "naive, our decoder": naive_step(build_task(fp32), batch, fp32.optim.lr),
        "ours, mirror decoder, fp32": our_step(fp32, batch, mirror=True),
        "ours, fp32": our_step(fp32, batch),
        f"ours, {precision}": our_step(fast, batch),
        **({f"ours, {precision}, compiled": our_step(fast, batch, compiled=True)} if compiled else {}),
    }  # fmt: skip


def main() -> None:
    """Measure and print a table, and the ratio of the first arm to the last as JSON."""
    parser = flags_of(__doc__)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--budget-s", type=float, default=240)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(args.threads)
    precision = resolve_precision(args.precision, torch.device("cpu"))
    steps = arms(args.batch, args.frames, precision, compiled=args.compile)
    times = interleaved(
        steps, turns=args.turns, warmup=2, budget_s=args.budget_s, clock=clock_for(args.threads)
    )
    ours = list(steps)[-1]
    print(f"B={args.batch}, T={args.frames}, 64 px, {args.threads} thread(s), {len(times[ours])} turns\n")
    print(f"| step | time over {ours} | quartiles |\n|---|---|---|")
    for name in steps:
        middle, low, high = ratio(times[name], times[ours])
        print(f"| {name} | {middle:.2f} | {low:.2f} to {high:.2f} |")
    print(json.dumps({"naive_over_ours": round(ratio(times["naive"], times[ours])[0], 2)}))


if __name__ == "__main__":
    main()
