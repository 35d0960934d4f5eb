"""Where the time of a compiled step goes: its products, and everything beside them by kind.

Command: python benchmarks/accounting.py [--batch 8] [--frames 8] [--threads 2] [--precision fp32] [--steps 30]

The default step as the trainer's `--compile` makes it, with a profiler's clock around every operation and every kernel of
the program (compiled anew for that). Medians over steps, in ms and as a share of the step's own convolutions and matrix
products. A kernel counts as one over maps and pictures when it takes 50 us or more. Calls: the time between operations.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator

import torch
from flags import flags_of
from throughput import settings
from torch.profiler import ProfilerActivity, profile

from jepa_world_model.commands.gradients import synthetic_batch, with_actions
from jepa_world_model.core.barrier import clip_grad_groups
from jepa_world_model.core.compiled import Compiled
from jepa_world_model.core.memory import keep_freed_memory
from jepa_world_model.core.optim import build_optimizer
from jepa_world_model.core.step import update_if
from jepa_world_model.experiment import build_task
from jepa_world_model.experiment.build import no_decay

KINDS = ("convolutions", "matrix products", "kernels over maps and pictures", "small kernels", "our C", "other operations",
         "calls", "clipping", "update and gradients freed")  # fmt: skip
LARGE_US = 50


def kind_of(name: str, us: float) -> str:
    """What an operation of the program counts as."""
    if "cpp_fused" in name:
        return "kernels over maps and pictures" if us >= LARGE_US else "small kernels"
    if "convolution" in name:
        return "convolutions"
    if "mm_out" in name:
        return "matrix products"
    return "our C" if name.startswith("jepa_world_model::") else "other operations"


def operations(record: profile) -> Iterator[tuple[str, float]]:
    """The outermost operations inside the program, with their microseconds; the program itself first."""
    events = sorted(record.events(), key=lambda e: (e.time_range.start, -e.time_range.elapsed_us()))
    whole = next(e for e in events if "Call CompiledFxGraph" in e.name)
    yield "program", whole.time_range.elapsed_us()
    end = whole.time_range.start
    for event in events:
        inside = end <= event.time_range.start and event.time_range.end <= whole.time_range.end
        if event is not whole and inside:
            end = event.time_range.end
            yield event.name, event.time_range.elapsed_us()


def account(
    program: Callable[[], object], clip: Callable[[], object], update: Callable[[], object]
) -> dict[str, float]:
    """Milliseconds of one step by kind."""
    spent: dict[str, float] = defaultdict(float)
    with profile(activities=[ProfilerActivity.CPU]) as record:
        program()
    (_, whole), *parts = operations(record)
    for name, us in parts:
        spent[kind_of(name, us)] += us / 1e3
    spent["calls"] = whole / 1e3 - sum(us for _, us in parts) / 1e3
    for name, function in (("clipping", clip), ("update and gradients freed", update)):
        start = time.perf_counter()
        function()
        spent[name] = (time.perf_counter() - start) * 1e3
    return spent


def main() -> None:
    """Measure and print a table."""
    parser = flags_of(__doc__)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--steps", type=int, default=30)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    cfg = with_actions(settings(args.batch, args.frames, args.precision))
    task, batch = build_task(cfg), synthetic_batch(cfg, args.batch)
    optimizer = build_optimizer(task.groups, dataclasses.replace(cfg.optim, lr_scale={}), no_decay)
    compiled, sound = Compiled(task, say=print), torch.ones((), dtype=torch.bool)
    with torch._inductor.config.patch("cpp.enable_kernel_profile", True):
        compiled.program(batch)

    def update() -> None:
        update_if(optimizer, sound)
        optimizer.zero_grad(set_to_none=True)

    clip = lambda: clip_grad_groups(task.groups, cfg.optim.max_grad_norm)
    steps = [account(lambda: compiled(batch, 0), clip, update) for _ in range(args.steps + 3)][3:]
    spent = {kind: statistics.median(step[kind] for step in steps) for kind in KINDS}
    products = spent["convolutions"] + spent["matrix products"]
    print("\n| | ms | of its products |\n|---|---|---|")
    for kind, ms in spent.items():
        print(f"| {kind} | {ms:.1f} | {ms / products:.1%} |")
    print(f"| together | {sum(spent.values()):.1f} | {sum(spent.values()) / products:.0%} |")


if __name__ == "__main__":
    main()
