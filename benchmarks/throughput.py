"""Where the time of a training step goes: frames/s in fp32 and bf16, and the share of each part.

Command: python benchmarks/throughput.py [--batch 8] [--frames 8] [--threads 2] [--steps 100] [--precision fp32 bf16]

Precisions take turns step by step, so that a drift of the machine hits both; every figure is a median. The parts are timed
alone, forward and backward, in the same turns; "rest" is the step minus their sum. The peak is the best matrix product of
the same process at that precision.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable

import torch

from jepa_world_model.commands.gradients import synthetic_batch, with_actions
from jepa_world_model.core.barrier import clip_grad_groups, stop
from jepa_world_model.core.optim import build_optimizer
from jepa_world_model.core.step import train_step
from jepa_world_model.experiment import TrainConfig, build_task
from jepa_world_model.experiment.build import no_decay


def parts(task, optimizer, batch, autocast) -> dict[str, Callable[[], object]]:
    """Each part of the step as a function of nothing: forward and backward on constant inputs."""
    model, x = task.model, batch.frames.flatten(0, 1).float() / 255
    z = stop(task.states(batch, ["z"])["z"])

    def both(function: Callable) -> Callable[[], None]:
        def run() -> None:
            task.model.zero_grad(set_to_none=True)
            with autocast():
                out = function()
            (
                out.float() if isinstance(out, torch.Tensor) else sum(t.float().mean() for t in out)
            ).mean().backward()

        return run

    def image_losses() -> torch.Tensor:
        picture = x.unflatten(0, batch.frames.shape[:2]).clone().requires_grad_() * 0.9
        terms = []
        for loss in task.losses:
            if loss.family == "reconstruction":
                view = task.view(loss, {"x_hat": picture, "x": picture + 0.1}, task.context(batch))
                terms.append(loss.function(view))
        return torch.stack(terms)

    def dynamics() -> tuple:
        gates = dict.fromkeys(task.gates, 0.0) | {"h->rollout": 1.0}
        frozen = dataclasses.replace(
            task.graph,
            latents=tuple(
                dataclasses.replace(latent, compute=(lambda at: z), reads=(), trains=())
                if latent.name == "z"
                else latent
                for latent in task.graph.latents
            ),
            edges=(),
        )
        return frozen.run(
            task.context(batch), ["rollout"], {e: gates.get(e, 0.0) for e in frozen.edge_names}
        )["rollout"].h

    def update() -> None:
        clip_grad_groups(task.groups, 1.0)
        optimizer.step()

    return {
        "encoder": both(lambda: model.encoder(x)),
        "decoder": both(lambda: model.decoder(z)),
        "image losses": lambda: image_losses().sum().backward(),
        "h and rollout": both(dynamics),
        "clip and optimizer": update,
    }


def peak(dtype: torch.dtype, size: int = 2048, tries: int = 8) -> float:
    """The best matrix product of this process, in FLOP/s."""
    a = torch.randn(size, size).to(dtype)
    times = []
    for _ in range(tries):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


def main() -> None:
    """Measure and print one JSON line a precision."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    runs: dict[str, dict[str, Callable]] = {}
    for precision in args.precision:
        cfg = with_actions(
            TrainConfig(
                batch_size=args.batch,
                seq_len=args.frames,
                rollout_horizon=min(8, args.frames - 1),
                precision=precision,
            )
        )
        task, batch = build_task(cfg), synthetic_batch(cfg, args.batch)
        optimizer = build_optimizer(task.groups, cfg.optim, no_decay)
        step = lambda t=task, o=optimizer, b=batch: train_step(t, o, b, 0, max_grad_norm=1.0)
        runs[precision] = {"step": step} | parts(task, optimizer, batch, task.autocast)
    times = {precision: {name: [] for name in functions} for precision, functions in runs.items()}
    for turn in range(20 + args.steps):
        for precision, functions in runs.items():
            for name, function in functions.items():
                start = time.perf_counter()
                function()
                if turn >= 20:
                    times[precision][name].append(time.perf_counter() - start)
    for precision in runs:
        median = {name: statistics.median(values) for name, values in times[precision].items()}
        step = median.pop("step")
        shares = {name: round(value / step, 3) for name, value in median.items()}
        shares["rest"] = round(1 - sum(median.values()) / step, 3)
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        print(json.dumps({
            "precision": precision, "frames_per_s": round(args.batch * args.frames / step, 1),
            "step_ms": round(step * 1e3, 2), "shares": shares, "threads": args.threads,
            "peak_matmul_gflops": round(peak(dtype) / 1e9),
        }))  # fmt: skip


if __name__ == "__main__":
    main()
