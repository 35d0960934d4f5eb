"""Windows: every run of T frames inside an episode, gathered without a loop over windows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from jepa_world_model.core.errors import UserError
from jepa_world_model.data.batch import Batch
from jepa_world_model.data.episodes import Episodes


class Windows:
    """Every run of `frames` frames inside the chosen episodes, numbered episode after episode."""

    def __init__(self, episodes: Episodes, episode_ids: Sequence[int] | np.ndarray, *, frames: int) -> None:
        if frames < 2:
            raise UserError(f"a window of {frames} frames holds no action; use 2 frames or more")
        self.episodes = episodes
        self.frames = frames
        self.episode_ids = np.asarray(episode_ids, np.int64)  # [E]
        lengths = episodes.lengths[self.episode_ids]
        count = np.maximum(lengths - frames + 1, 0)  # [E] windows of each episode
        self._after = np.cumsum(count)  # [E] windows up to and including this episode
        self._before = self._after - count
        if len(self) == 0:
            raise UserError(_no_window(episodes.name, lengths, frames))
        # Without the memmap subclass an index gives a plain array; the pages stay mapped.
        source = episodes.frames
        self._frames = source.view(np.ndarray) if isinstance(source, np.memmap) else source

    def __len__(self) -> int:
        return int(self._after[-1]) if len(self._after) else 0

    def locate(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Episode and first frame inside it, for each window number."""
        indices = np.asarray(indices, np.int64)
        if indices.size and not (indices.min() >= 0 and indices.max() < len(self)):
            raise IndexError(f"window numbers {indices.min()}..{indices.max()} exceed 0..{len(self) - 1}")
        slot = np.searchsorted(self._after, indices, side="right")  # [B]
        return self.episode_ids[slot], indices - self._before[slot]

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """The numbered windows as one batch, by one gather a field."""
        episode, start = self.locate(indices)
        data, space = self.episodes, self.episodes.space
        rows = (data.bounds[episode, 0] + start)[:, None] + np.arange(self.frames)  # [B,T]
        flat = self._frames[rows.reshape(-1)]  # [B*T,C,H,W]
        raw = np.asarray(data.actions[rows[:, :-1]])
        state = None
        if data.states is not None:
            state = torch.from_numpy(np.asarray(data.states[rows], np.float32))
        return Batch(
            frames=torch.from_numpy(flat).unflatten(0, rows.shape),
            actions=torch.from_numpy(space.encode(raw)),
            action_id=torch.from_numpy(space.ids(raw)),
            noop=torch.from_numpy(space.is_noop(raw)),
            episode=torch.from_numpy(episode),
            start=torch.from_numpy(start),
            state=state,
            space=space,
        )


def _no_window(name: str, lengths: np.ndarray, frames: int) -> str:
    if len(lengths) == 0:
        return f"{name}: no episode was chosen, so there is no window; check val_fraction and the data set"
    values, counts = np.unique(lengths, return_counts=True)
    shown = ", ".join(f"{c} of {v}" for v, c in list(zip(values, counts, strict=True))[-8:])
    more = "" if len(values) <= 8 else f" and {counts[:-8].sum()} shorter ones"
    return (
        f"{name}: no usable window of {frames} frames: every one of the {len(lengths)} episodes is "
        f"too short (episodes by frames: {shown}{more}); use windows of at most "
        f"{lengths.max()} frames or longer episodes"
    )
