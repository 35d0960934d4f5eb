"""What each loss costs: step time with it over step time without it, at the default configuration.

Command: python benchmarks/loss_costs.py [--budget-s 200] [--batch 8] [--frames 8] [--precision bf16] [--threads 1]

A default loss is taken out of the defaults, any other is added to them. Configurations take turns step by step, and each is
held against the default step measured beside it; figures are medians with quartiles. At one thread the clock is processor
time. Besides: every loss at once over the defaults, and `jepa` alone with every other weight at 0 over `jepa` alone with
no other weight named, which has to be 1 within noise.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import torch
from flags import flags_of
from timing import clock_for, interleaved, ratio

from jepa_world_model.commands.gradients import synthetic_batch, with_actions
from jepa_world_model.core.optim import build_optimizer
from jepa_world_model.core.step import train_step
from jepa_world_model.core.task import Task
from jepa_world_model.data.batch import Batch
from jepa_world_model.experiment import TrainConfig, build_task
from jepa_world_model.experiment.build import no_decay, resolve_precision
from jepa_world_model.losses import LOSSES, LossWeights

BESIDE = 4  # configurations between two measurements of the step they are held against


def a_step(cfg: TrainConfig, batch: Batch, only: dict[str, float] | None = None) -> Callable[[], object]:
    """The training step of a configuration; `only`: with these weights and no others named."""
    task = build_task(cfg)
    if only is not None:
        parts = {key: getattr(task, key) for key in ("gates", "settings", "options", "streams", "autocast")}
        task = Task(task.model, task.graph, task.registry, weights=only, **parts)
    optimizer = build_optimizer(task.groups, dataclasses.replace(cfg.optim, lr_scale={}), no_decay)
    return lambda: train_step(task, optimizer, batch, 0, max_grad_norm=cfg.optim.max_grad_norm)


def measure(cfg: TrainConfig, *, budget_s: float, threads: int) -> tuple[list[tuple], dict[str, tuple], int]:
    """(rows of loss, "default" or "", its ratio; the ratios of the two sums; turns)."""
    batch, default = synthetic_batch(cfg, cfg.batch_size), dataclasses.asdict(cfg.loss_weights)
    weighted = lambda weights: dataclasses.replace(cfg, loss_weights=LossWeights(**weights))
    begin, clock = time.monotonic(), clock_for(threads)
    # Pairs first: what is close to 1 needs many turns, and the two of a pair must stand side by side.
    zeros = dict.fromkeys(LOSSES, 0.0)
    pair = {
        "zeros": a_step(weighted(zeros | {"jepa": 1.0}), batch),
        "alone": a_step(weighted(zeros | {"jepa": 1.0}), batch, {"jepa": 1.0}),
    }
    times = interleaved(pair, turns=60, warmup=5, budget_s=budget_s / 8, clock=clock)
    sums = {"`jepa` alone, other weights 0, over not named": ratio(times["zeros"], times["alone"])}
    steps: dict[str, Callable] = {}
    for number, name in enumerate(LOSSES):
        if number % BESIDE == 0:
            steps[f"default {number}"] = a_step(cfg, batch)
        steps[name] = a_step(weighted(default | {name: 0.0 if default[name] else 1.0}), batch)
    steps["all"] = a_step(weighted(dict.fromkeys(LOSSES, 1.0)), batch)
    left = budget_s - (time.monotonic() - begin)
    times = interleaved(steps, turns=50, warmup=1, budget_s=left, clock=clock)
    rows = []
    for number, name in enumerate(LOSSES):
        base, other = times[f"default {number - number % BESIDE}"], times[name]
        rows.append((name, default[name] > 0, ratio(base, other) if default[name] else ratio(other, base)))
    sums["every loss over the defaults"] = ratio(times["all"], base)
    return rows, sums, len(base)


def markdown(rows: list[tuple], sums: dict[str, tuple]) -> str:
    """The table, dearest first."""
    figure = lambda r: f"{r[0]:.3f} | {r[1]:.3f} to {r[2]:.3f}"
    lines = ["| loss | default | with it over without | quartiles |", "|---|---|---|---|"]
    for name, on, found in sorted(rows, key=lambda row: -row[2][0]):
        lines.append(f"| `{name}` | {'on' if on else ''} | {figure(found)} |")
    lines += ["", "| step time | ratio | quartiles |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {figure(found)} |" for name, found in sums.items())])


def main() -> None:
    """Measure and print the table."""
    parser = flags_of(__doc__)
    parser.add_argument("--budget-s", type=float, default=200)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    precision = resolve_precision(args.precision, torch.device("cpu"))
    cfg = with_actions(
        TrainConfig(
            batch_size=args.batch, seq_len=args.frames, rollout_horizon=min(8, args.frames - 1),
            precision=precision,
        )
    )  # fmt: skip
    rows, sums, turns = measure(cfg, budget_s=args.budget_s, threads=args.threads)
    print(f"B={args.batch}, T={args.frames}, 64 px, {precision}, {args.threads} thread(s), {turns} turns\n")
    print(markdown(rows, sums))


if __name__ == "__main__":
    main()
