"""What the dashboard says of a run, and of the same run broken in three ways: one line each, and a page each.

    python benchmarks/broken.py runs/<name> --out runs/broken

Broken by surgery on the trained weights: the encoder's are zeroed (z collapses), the pose increment keeps only a constant
(p is a clock), the predictor's action columns are zeroed (h ignores actions).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from flags import flags_of
from torch import nn

from jepa_world_model.core.errors import UserError
from jepa_world_model.data.episodes import split_episodes
from jepa_world_model.data.windows import Windows
from jepa_world_model.diagnostics.dashboard import write_dashboard
from jepa_world_model.experiment.data import open_dataset
from jepa_world_model.experiment.diagnose import examine
from jepa_world_model.experiment.load import LoadedRun, load


def blind(run: LoadedRun) -> None:
    """An encoder that gives every frame the same state."""
    for parameter in run.model.encoder.parameters():
        parameter.zero_()


def clock(run: LoadedRun) -> None:
    """A pose that goes on by one length whatever is done."""
    last: nn.Linear = run.model.p_action_delta_projector.outer
    last.weight.zero_()
    last.bias.fill_(len(last.bias) ** -0.5)


def deaf(run: LoadedRun) -> None:
    """A predictor that does not see the action."""
    run.model.predictor.inner.weight[:, -run.cfg.model.action_dim :] = 0


BREAK: dict[str, Callable[[LoadedRun], None]] = {
    "healthy": lambda run: None, "collapsed_z": blind, "clock_p": clock, "deaf_h": deaf,
}  # fmt: skip


def main() -> None:
    """Question the run and its broken copies."""
    parser = flags_of(__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    first = load(given.run, device="cpu", precision="fp32")
    for group in ("encoder", "predictor", "p_action_delta_projector"):
        if not hasattr(first.model, group):
            raise UserError(f"{given.run} has no {group} to break; give a run with z, h and p")
    cfg, episodes = first.cfg, open_dataset(first.cfg.data)
    _, held = split_episodes(episodes, cfg.data.val_fraction, cfg.data.seed)
    windows = Windows(episodes, held, frames=max(cfg.seq_len, cfg.rollout_horizon + 1))
    for name, ruin in BREAK.items():
        run = load(given.run, device="cpu", precision="fp32")
        with torch.no_grad():
            ruin(run)
        found = examine(run.task, cfg, episodes, windows, step=run.step)
        (given.out / name).mkdir(parents=True, exist_ok=True)
        page = write_dashboard(given.out / name, found, title=f"{given.run.name}, {name.replace('_', ' ')}")
        print(f"{name}: {found.summary}\n    {page}", flush=True)


if __name__ == "__main__":
    main()
