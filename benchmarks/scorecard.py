"""B3, the pose and algebra scorecard of trained runs, on held-out episodes of their own data.

Command: python benchmarks/scorecard.py RUN [RUN ...] [--latents p z h] [--windows 128] [--frames 12] [--json FILE]
"""

from __future__ import annotations

import json
from pathlib import Path

from flags import flags_of

from jepa_world_model.data.episodes import split_episodes
from jepa_world_model.data.windows import Windows
from jepa_world_model.diagnostics.algebra import Card, algebra, card_table
from jepa_world_model.experiment import load, open_dataset
from jepa_world_model.experiment.build import spread
from jepa_world_model.planning.dynamics import WorldModelDynamics


def card_of(folder: Path, windows: int, frames: int) -> Card:
    """The card of a run."""
    run = load(folder, device="cpu", precision="fp32")
    episodes = open_dataset(run.cfg.data)
    fit_ids, held_ids = split_episodes(episodes, run.cfg.data.val_fraction, run.cfg.data.seed)
    held, fit = (Windows(episodes, ids, frames=frames) for ids in (held_ids, fit_ids))
    dynamics = WorldModelDynamics(run.task.model, run.task.settings, run.space, pose=True)
    return algebra(dynamics, spread(held, windows), spread(fit, windows))


def main() -> None:
    """One table over all runs."""
    parser = flags_of(__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--latents", nargs="+", default=["p", "z", "h"])
    parser.add_argument("--windows", type=int, default=128)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cards = {folder.name: card_of(folder, args.windows, args.frames) for folder in args.runs}
    if args.json:
        args.json.write_text(
            json.dumps({name: card.to_json() for name, card in cards.items()}, indent=1) + "\n"
        )
    print(card_table(cards, args.latents))


if __name__ == "__main__":
    main()
