"""Has the step become slower? Four ratios with bounds that a busy machine does not break; exit code 1 when one is broken.

Command: python benchmarks/regression.py      (under a minute of processor time, one thread)

Arms take turns and are timed by processor time; a figure is the median of turn-by-turn ratios. A bound that is broken is
measured again with twice the turns, three times in all, before it counts. The bounds leave room: docs/log.md has what was
measured.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from loss_costs import a_step
from naive import arms
from products import products_of
from throughput import settings, step_of
from timing import interleaved, ratio
from vla_costs import SIZES, Step, random_batch

from jepa_world_model.commands.gradients import synthetic_batch, with_actions
from jepa_world_model.core.memory import keep_freed_memory
from jepa_world_model.losses import LOSSES, LossWeights

TRIES = 3


@dataclass(frozen=True)
class Check:
    """A ratio of two step times and the bound it must keep."""

    over: Callable[[], object]
    under: Callable[[], object]
    least: float = 0.0
    most: float = float("inf")
    turns: int = 7

    def holds(self, value: float) -> bool:
        """Whether the ratio is within the bound."""
        return self.least <= value <= self.most

    def measured(self, turns: int) -> float:
        """The ratio."""
        times = interleaved(
            {"over": self.over, "under": self.under}, turns=turns, warmup=2, clock=time.process_time
        )
        return ratio(times["over"], times["under"])[0]


def checks() -> dict[str, Check]:
    """What is checked."""
    steps = arms(8, 8, "fp32")
    cfg = with_actions(settings(4, 6, "fp32"))
    batch = synthetic_batch(cfg, 4)
    alone = dict.fromkeys(LOSSES, 0.0) | {"jepa": 1.0}
    weighted = dataclasses.replace(cfg, loss_weights=LossWeights(**alone))
    _, step = step_of(settings(8, 8, "fp32"))
    step()
    rows = random_batch(SIZES["tiny"], 16, torch.device("cpu"))
    both = {"fast_ce": 1.0, "flow": 1.0}
    insulated, joint = (
        Step(SIZES["tiny"], rows, "fp32", [{"weights": both, "setting": how}], 4)
        for how in ("insulated", "joint")
    )
    return {
        "naive step over ours, fp32": Check(steps["naive"], steps["ours, fp32"], least=2.2, turns=5),
        "our step over its products, fp32": Check(step, products_of(step), most=2.0),
        "one loss with 57 zero weights over one loss": Check(
            a_step(weighted, batch), a_step(weighted, batch, {"jepa": 1.0}), most=1.1, turns=15
        ),
        "insulated step over joint": Check(insulated, joint, most=1.15, turns=9),
    }


def main() -> int:
    """Measure, print, and tell whether all bounds held."""
    torch.set_num_threads(1)
    keep_freed_memory()
    broken = 0
    for name, check in checks().items():
        for number in range(TRIES):
            value = check.measured(check.turns * 2**number)
            if check.holds(value):
                break
        bound = f"at least {check.least}" if check.least else f"at most {check.most}"
        print(f"{'ok' if check.holds(value) else 'BROKEN'}: {name} {value:.2f} ({bound})", flush=True)
        broken += not check.holds(value)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
