"""How the cost of a training step grows: with batch, window, horizon, number of losses and state size.

Command: python benchmarks/scaling.py [--budget-s 300] [--precision bf16] [--out docs/pictures/step_scaling.svg]

One setting at a time leaves the middle of its panel (B=8, T=8, K=4, the default losses, Dh=128); z is half of h, hidden
layers are four times as wide. The configurations of a panel take turns, one thread, processor time. A point is the fastest
of its turns over the fastest of the default's: what others do on the machine adds, and never takes away. Exponent: the
slope of a line through the points in logarithms ("fit"), and between the last two ("at the end"). Losses are added in the
order of their names, `jepa` first, without those that decode imagined frames.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from flags import flags_of
from throughput import step_of
from timing import interleaved

from jepa_world_model.core.memory import keep_freed_memory
from jepa_world_model.experiment import TrainConfig
from jepa_world_model.losses import LOSSES, LossWeights
from jepa_world_model.model_config import ModelConfig

CHEAP = ["jepa", *sorted(name for name in LOSSES if name != "jepa" and "rollout_recon" not in name
                         and name != "rollout_project_z")]  # fmt: skip


def base(precision: str) -> TrainConfig:
    """The middle of every panel."""
    return TrainConfig(batch_size=8, seq_len=8, rollout_horizon=4, precision=precision)


def sized(cfg: TrainConfig, state: int) -> TrainConfig:
    """A state h of this size, with z and hidden layers in proportion."""
    return dataclasses.replace(
        cfg, model=ModelConfig(state_dim=state, z_dim=state // 2, hidden_dim=4 * state)
    )


def some_losses(cfg: TrainConfig, count: int) -> TrainConfig:
    """The first `count` losses at weight 1, all others off."""
    weights = dict.fromkeys(LOSSES, 0.0) | dict.fromkeys(CHEAP[:count], 1.0)
    return dataclasses.replace(cfg, loss_weights=LossWeights(**weights))


def panels(cfg: TrainConfig) -> dict[str, dict[int, TrainConfig]]:
    """What is varied: setting -> value -> configuration."""
    long = dataclasses.replace(cfg, seq_len=17)
    return {
        "windows a batch, B": {n: dataclasses.replace(cfg, batch_size=n) for n in (1, 2, 4, 8, 16, 32)},
        "frames a window, T": {n: dataclasses.replace(cfg, seq_len=n) for n in (5, 8, 12, 16, 24, 32)},
        "horizon, K (T = 17)": {n: dataclasses.replace(long, rollout_horizon=n) for n in (2, 4, 8, 16)},
        "number of losses": {n: some_losses(cfg, n) for n in (1, 3, 6, 12, 25, len(CHEAP))},
        "state size, Dh": {n: sized(cfg, n) for n in (32, 64, 128, 256, 512)},
    }


def exponents(points: Mapping[int, float]) -> tuple[float, float]:
    """(slope of a line through all points in logarithms, slope between the last two)."""
    x, y = np.log(list(points)), np.log(list(points.values()))
    return float(np.polyfit(x, y, 1)[0]), float((y[-1] - y[-2]) / (x[-1] - x[-2]))


def measure(precision: str, budget_s: float) -> dict[str, dict[int, float]]:
    """Setting -> value -> step time over that of the default, each the fastest of its turns."""
    cfg, found = base(precision), {}
    for panel, configs in panels(cfg).items():
        steps: dict[object, Callable[[], object]] = {"default": step_of(cfg)[1]}
        steps |= {value: step_of(changed)[1] for value, changed in configs.items()}
        share = budget_s / len(panels(cfg))
        times = interleaved(steps, turns=16, warmup=2, budget_s=share, clock=time.process_time)
        least = {name: min(spent) for name, spent in times.items()}
        print(f"{panel}: {len(times['default'])} turns", flush=True)
        found[panel] = {value: least[value] / least["default"] for value in configs}
    return found


def draw(found: Mapping[str, Mapping[int, float]], path: Path) -> None:
    """A panel a setting, both axes logarithmic, with the fitted line and its exponent."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "scaling", "font.size": 9}
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(found), figsize=(13, 3.2), sharey=True, layout="constrained")
    for axis, (panel, points) in zip(axes, found.items(), strict=True):
        values, middle = list(points), list(points.values())
        slope, last = exponents(points)
        at = np.polyfit(np.log(values), np.log(middle), 1)
        axis.plot(values, np.exp(np.polyval(at, np.log(values))), "--", color="#999999", linewidth=1)
        axis.plot(values, middle, "o-", color="#1f6fb4", markersize=4, linewidth=1.4)
        axis.set(
            xscale="log",
            yscale="log",
            xlabel=panel,
            title=f"fit: x$^{{{slope:.2f}}}$, at the end: x$^{{{last:.2f}}}$",
        )
        axis.set_xticks(values, [str(value) for value in values])
        axis.minorticks_off()
        axis.grid(alpha=0.25)
    ticks = (0.25, 0.5, 1, 2, 4, 8)
    axes[0].set_yticks(ticks, [str(tick) for tick in ticks])
    axes[0].set_ylabel("time of a step over the default's")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    """Measure, draw, and print a line a setting."""
    parser = flags_of(__doc__)
    parser.add_argument("--budget-s", type=float, default=300)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/step_scaling.svg"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    found = measure(args.precision, args.budget_s)
    draw(found, args.out)
    for panel, points in found.items():
        slopes = [round(slope, 2) for slope in exponents(points)]
        print(json.dumps({"setting": panel, "exponent": slopes[0], "last": slopes[1],
                          "over_default": {value: round(m, 2) for value, m in points.items()}}))  # fmt: skip


if __name__ == "__main__":
    main()
