"""`jepa-wm replay FOLDER`: compute a step that went wrong once more, and tell which loss it was."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jepa_world_model.experiment.faults import Replay


def main(argv: Sequence[str]) -> int:
    """Print the losses of a kept step. Returns 0 when what was not finite is so again, or nothing was; else 1.

    Errors: UserError for a folder that is no kept step.
    """
    parser = argparse.ArgumentParser(prog="jepa-wm replay", description=__doc__)
    parser.add_argument("folder", type=Path, help="a folder below a run's faults/ or spikes/")
    parser.add_argument(
        "--weights", type=Path, help="a model.safetensors in place of the weights that were kept"
    )
    own = parser.parse_args(argv)
    from jepa_world_model.core.log import NON_FINITE
    from jepa_world_model.experiment.faults import replay

    about, found = replay(own.folder, own.weights)
    told = {name: NON_FINITE.get(value, value) for name, value in about["values"].items()}
    print(
        f"step {about['step']}, {len(found)} batch{'es' if len(found) > 1 else ''}, "
        f"{about['processes']} process{'es' if about['processes'] > 1 else ''}\n"
    )
    for number, one in enumerate(found):
        print("\n".join(lines(one, told, f"batch {number}: " if len(found) > 1 else "")))
    if not about["not_finite"] and all(math.isfinite(value) for value in told.values()):
        return 0
    if all(one.is_sound for one in found):
        print("\neverything is finite here: it was not finite on another device or in another precision")
        return 1
    return 0


def lines(one: Replay, told: dict[str, float], prefix: str = "") -> list[str]:
    """The losses as they were and are, and what is not finite, in words."""
    width = max(map(len, one.terms))
    rows = [f"{prefix}{'loss':<{width}}  {'then':>12}  {'now':>12}"]
    for name, value in one.terms.items():
        mark = "  <- not finite" if name in one.bad_terms else ""
        mark = mark or (
            f"  <- gradient not finite on {', '.join(one.bad_gradients[name])}"
            if name in one.bad_gradients
            else ""
        )
        rows.append(f"{name:<{width}}  {told.get(f'loss/{name}', math.nan):>12.6g}  {value:>12.6g}{mark}")
    for what, names in (("weights", one.bad_weights), ("latents", one.bad_latents)):
        if names:
            rows.append(f"{what} that are not finite: {', '.join(names)}")
    return rows
