"""Small data sets for the tests of this folder, made by hand so that every value is known."""

from __future__ import annotations

import numpy as np

from jepa_world_model.data.batch import ActionSpace
from jepa_world_model.data.episodes import Episodes

DISCRETE = ActionSpace(kind="discrete", dim=3, names=("rest", "left", "right"), noop=0)


def make_episodes(lengths=(5, 3, 8), *, space: ActionSpace = DISCRETE, states: bool = True) -> Episodes:
    """Frames whose every pixel is their row number, states (row, 2 row)."""
    total = sum(lengths)
    rng = np.random.default_rng(0)
    frames = np.broadcast_to(np.arange(total, dtype=np.uint8)[:, None, None, None], (total, 3, 4, 4)).copy()
    if space.kind == "discrete":
        actions = rng.integers(space.dim, size=total)
    elif space.kind == "multi_binary":
        actions = rng.integers(2, size=(total, space.dim)).astype(np.uint8)
    else:
        actions = rng.uniform(space.low, space.high, size=(total, space.dim)).astype(np.float32)
    starts = np.cumsum(lengths) - np.asarray(lengths)
    row = np.arange(total, dtype=np.float32)
    return Episodes(
        frames=frames,
        actions=actions,
        bounds=np.stack([starts, lengths], 1).astype(np.int64),
        space=space,
        states=np.stack([row, 2 * row], 1) if states else None,
        name="hand-made",
        state_names=("row", "double") if states else (),
    ).validate()
