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


SPACES = {
    "discrete": DISCRETE,
    "multi_binary": ActionSpace(kind="multi_binary", dim=3, names=("A", "B", "C")),
    "continuous": ActionSpace(
        kind="continuous", dim=2, low=(-1.0, -2.0), high=(1.0, 3.0), noop_threshold=0.1
    ),
}


def noisy_store(folder, *, lengths=(9, 2, 6), kind="discrete", size=(32, 32), channels=3, states=True):
    """An open store whose every pixel is drawn at random, so that nothing that is lost goes unseen."""
    from dataclasses import replace

    from jepa_world_model.data.store import StoreWriter, open_store

    plain = make_episodes(lengths, space=SPACES[kind], states=states)
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (sum(lengths), channels, *size), np.uint8)
    episodes = replace(plain, frames=frames)
    writer = StoreWriter(
        folder, frame_shape=frames.shape[1:], space=episodes.space, state_names=episodes.state_names,
        env="Noise-v0", seed=3, policy="random", about={"note": "hand-made"},
    )  # fmt: skip
    with writer:
        for start, length in episodes.bounds.tolist():
            rows = slice(start, start + length)
            writer.add(frames[rows], episodes.actions[rows], episodes.states[rows] if states else None)
    return open_store(folder)


def assert_same(found: Episodes, wanted: Episodes, *, pixels: float = 0.0) -> None:
    """All that a model may read is equal, and so is what is known about it; `pixels`: mean error allowed."""
    np.testing.assert_array_equal(found.bounds, wanted.bounds)
    assert found.space == wanted.space
    rows = wanted.transitions()
    np.testing.assert_array_equal(found.actions[rows], wanted.actions[rows])
    assert found.state_names == wanted.state_names
    if wanted.states is not None:
        np.testing.assert_array_equal(found.states, wanted.states)
    for key in ("env", "seed", "policy", "note"):
        assert found.manifest.get(key) == wanted.manifest.get(key)
    assert found.frames.shape == wanted.frames.shape
    error = np.abs(np.asarray(found.frames).astype(int) - np.asarray(wanted.frames)).mean()
    assert error <= pixels
