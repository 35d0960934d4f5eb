"""Floor 1: data. From files and environments to the one thing that enters a model.

    frames and actions on disk -> Episodes -> Windows -> Loader -> Batch

`batch.py` defines `ActionSpace` and `Batch`; `episodes.py` the in-memory view of a data set; `store.py` the
memory-mapped format; `windows.py` cuts windows inside episodes; `loader.py` shuffles them by step
number; `sources/` reads other formats; `frames.py` makes frames square; `collect.py` fills a store from an
environment or a generator.

Nothing here knows a model or an environment by name; images are decoded when a store is written, never while
training.
"""

from __future__ import annotations

from jepa_world_model.data.batch import ActionSpace, Batch
from jepa_world_model.data.episodes import Episodes, describe, split_episodes
from jepa_world_model.data.loader import Loader
from jepa_world_model.data.windows import Windows

__all__ = ["ActionSpace", "Batch", "Episodes", "Loader", "Windows", "describe", "split_episodes"]
