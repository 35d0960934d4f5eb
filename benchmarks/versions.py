"""Two versions of this code against each other: the default step, turn by turn, in a process each.

Command: python benchmarks/versions.py OLD NEW [--turns 40] [--threads 1] [--batch 8] [--frames 8] [--precision bf16]

OLD and NEW are checkouts (`git worktree add /tmp/old COMMIT`). Each trains the same synthetic batch; the processes take
turns, three steps a turn, and the ratio of each turn is taken before the median. At one thread the clock is processor
time, children of both processes excluded. Printed: old over new with quartiles, and the largest relative difference
between their losses at the first step.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from flags import flags_of
from timing import ratio

WORKER = """
import dataclasses, json, sys, time
import torch
options = json.loads(sys.argv[1])
torch.set_num_threads(options["threads"])
try:
    from jepa_world_model.core.memory import keep_freed_memory
    keep_freed_memory()
except ImportError:
    pass
from jepa_world_model.commands.gradients import synthetic_batch, with_actions
from jepa_world_model.core.optim import build_optimizer
from jepa_world_model.core.step import train_step
from jepa_world_model.experiment import TrainConfig, build_task
from jepa_world_model.experiment.build import no_decay
B, T = options["batch"], options["frames"]
cfg = with_actions(TrainConfig(batch_size=B, seq_len=T, rollout_horizon=min(8, T - 1), precision=options["precision"]))
task, batch = build_task(cfg), synthetic_batch(cfg, B)
optimizer = build_optimizer(task.groups, dataclasses.replace(cfg.optim, lr_scale={}), no_decay)
step = lambda: train_step(task, optimizer, batch, 0, max_grad_norm=1.0)
first = {k: float(v) for k, v in step().items() if k.startswith(("loss/", "grad_norm/"))}
for _ in range(3):
    step()
print(json.dumps(first), flush=True)
clock = time.process_time if options["threads"] == 1 else time.perf_counter
for line in sys.stdin:
    start = clock()
    for _ in range(3):
        step()
    print((clock() - start) / 3, flush=True)
"""


class Version:
    """A checkout in a process of its own."""

    def __init__(self, place: Path, options: dict[str, object]) -> None:
        environment = os.environ | {"PYTHONPATH": str(place.resolve())}
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, json.dumps(options)], cwd=place, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.first = json.loads(self.process.stdout.readline())

    def seconds(self) -> float:
        """Of one step, over three of them."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def main() -> None:
    """Measure and print one JSON line."""
    parser = flags_of(__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    args = parser.parse_args()
    options = {name: getattr(args, name) for name in ("threads", "batch", "frames", "precision")}
    old, new = Version(args.old, options), Version(args.new, options)
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(args.turns):
        for number in (0, 1) if turn % 2 else (1, 0):
            times[number].append((old, new)[number].seconds())
    middle, low, high = ratio(*times)
    gap = max(abs(new.first[k] - v) / max(abs(v), 1e-6) for k, v in old.first.items() if k in new.first)
    ms = [round(1e3 * sorted(t)[len(t) // 2], 1) for t in times]
    print(json.dumps({"old_over_new": round(middle, 3), "quartiles": [round(low, 3), round(high, 3)],
                      "median_ms": ms, "largest_difference": gap} | options))  # fmt: skip
    for version in (old, new):
        version.process.stdin.close()
        version.process.wait()


if __name__ == "__main__":
    main()
