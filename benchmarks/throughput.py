"""B4: frames/s of the default step, its share of what the machine can do, and what is not a product of matrices.

Command: python benchmarks/throughput.py [--batches 8 64] [--frames 8] [--threads 1] [--turns 12] [--budget-s 100]
         python benchmarks/throughput.py --compile --batches 8 --threads 2

Every arm (batch x precision) and its convolutions and matrix products alone (the same calls on noise, products.py) take
turns in one process; figures are medians, ratios are taken turn by turn. At one thread the clock is processor time, which a
busy machine disturbs least. Peaks are the best matrix product (2048) and the best 3x3 convolution (64 channels, 32 px, 64
images) of the same process at that precision. FLOPs are those of products, forward and backward. The loader's share is the
time until a batch of the built-in gridworld is there, over that of a training step. --compile: rows of the compiled step
(`--compile` of the trainer) beside those of the plain one, and how long compiling took.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from flags import flags_of
from products import flops_of, peaks, products_of
from timing import clock_for, interleaved, ratio

from jepa_world_model.commands.gradients import synthetic_batch, with_actions
from jepa_world_model.core.compiled import Compiled
from jepa_world_model.core.memory import keep_freed_memory
from jepa_world_model.core.optim import build_optimizer
from jepa_world_model.core.step import train_step
from jepa_world_model.core.task import Task
from jepa_world_model.experiment import TrainConfig, build, build_task
from jepa_world_model.experiment.build import no_decay
from jepa_world_model.experiment.data import DataConfig


def settings(batch: int, frames: int, precision: str) -> TrainConfig:
    """The defaults at this batch, window and precision."""
    return TrainConfig(
        batch_size=batch, seq_len=frames, rollout_horizon=min(8, frames - 1), precision=precision
    )


def step_of(cfg: TrainConfig, *, compiled: bool = False) -> tuple[Task, Callable[[], object]]:
    """The training step of a configuration on one synthetic batch."""
    cfg = with_actions(cfg)
    task, batch = build_task(cfg), synthetic_batch(cfg, cfg.batch_size)
    optimizer = build_optimizer(task.groups, dataclasses.replace(cfg.optim, lr_scale={}), no_decay)
    program = Compiled(task, say=print) if compiled else None
    return task, lambda: train_step(
        task, optimizer, batch, 0, max_grad_norm=cfg.optim.max_grad_norm, differentiate=program
    )


def table(args: argparse.Namespace) -> None:
    """Frames/s, shares of the peaks, and time beside the products."""
    clock, steps, flops = clock_for(args.threads), {}, {}
    for batch in args.batches:
        for precision in args.precision:
            task, step = step_of(settings(batch, args.frames, precision))
            step()
            flops[batch] = flops_of(step) / batch / args.frames
            steps[batch, precision, "step"] = step
            steps[batch, precision, "products"] = products_of(step)
            if args.compile:
                steps[batch, precision, "compiled"] = step_of(
                    settings(batch, args.frames, precision), compiled=True
                )[1]
    times = interleaved(steps, turns=args.turns, warmup=2, budget_s=args.budget_s, clock=clock)
    best = {p: peaks(torch.bfloat16 if p == "bf16" else torch.float32, clock) for p in args.precision}
    count = sum(p.numel() for p in task.model.parameters())
    print(f"{count:,} parameters, {next(iter(flops.values())) / 1e6:.0f} MFLOP a frame, T={args.frames}, 64 px, "
          f"{args.threads} thread(s), {len(times[args.batches[0], args.precision[0], 'step'])} turns")  # fmt: skip
    for precision, (product, conv) in best.items():
        print(f"peak {precision}: matrix product {product / 1e9:.0f}, convolution {conv / 1e9:.0f} GFLOP/s")
    heads = ("B", "precision", "frames/s", "of the product peak", "of the convolution peak", "step over its products",
             "outside them")  # fmt: skip
    print(f"\n| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for batch in args.batches:
        for precision in args.precision:
            for arm, note in (("step", ""), ("compiled", ", compiled")):
                if (batch, precision, arm) not in times:
                    continue
                own = times[batch, precision, arm]
                rate = batch * args.frames / statistics.median(own)
                over, low, high = ratio(own, times[batch, precision, "products"])
                shares = [rate * flops[batch] / one for one in best[precision]]
                print(f"| {batch} | {precision}{note} | {rate:.0f} | {shares[0]:.0%} | {shares[1]:.0%} | "
                      f"{over:.2f} ({low:.2f} to {high:.2f}) | {1 - 1 / over:.0%} |")  # fmt: skip
            if args.compile:
                gain, low, high = ratio(times[batch, precision, "step"], times[batch, precision, "compiled"])
                print(
                    f"| {batch} | {precision}, plain over compiled | {gain:.2f} times ({low:.2f} to {high:.2f}) | | | | |"
                )
        if {"fp32", "bf16"} <= set(args.precision):
            gain = ratio(times[batch, "fp32", "step"], times[batch, "bf16", "step"])
            print(
                f"| {batch} | bf16 over fp32 | {gain[0]:.2f} times ({gain[1]:.2f} to {gain[2]:.2f}) | | | | |"
            )


def loader(args: argparse.Namespace) -> None:
    """Windows/s of the loader, and its share of a training step on real data."""
    clock = clock_for(args.threads)
    with tempfile.TemporaryDirectory() as place:
        for batch in args.batches:
            data = DataConfig(cache_dir=place)
            cfg = dataclasses.replace(settings(batch, 12, "bf16"), rollout_horizon=8, data=data)
            experiment = build(cfg)
            count = [0]

            def take(experiment: Any = experiment, count: list[int] = count) -> object:
                count[0] += 1
                return experiment.batches(count[0])

            step = lambda e=experiment: train_step(e.task, e.optimizer, e.batch(0), 0, max_grad_norm=1.0)
            times = interleaved({"take": take, "step": step}, turns=10, warmup=2, budget_s=20, clock=clock)
            seconds = statistics.median(times["take"])
            share = ratio(times["take"], times["step"])[0]
            print(f"loader, B={batch}, T=12: {batch / seconds:,.0f} windows/s, {share:.2%} of a step")


def main() -> None:
    """Measure and print."""
    parser = flags_of(__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--budget-s", type=float, default=100)
    parser.add_argument("--precision", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"])
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    table(args)
    loader(args)


if __name__ == "__main__":
    main()
