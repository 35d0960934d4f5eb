"""Steps whose loss stands far above those before: found on the host, from values that were on their way there anyway."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping
from typing import Any

MEMORY = 100  # steps that a loss is held against
FEWEST = 20  # before so many, nothing counts as a spike


class Spikes:
    """Tells which losses are more than `factor` times the median of the last 100; counts them.

    A spike does not enter the memory, so that a level that stays high is told again and again, not taken for normal.
    """

    def __init__(self, factor: float) -> None:
        if factor <= 1:
            raise ValueError(
                f"a spike is a loss above factor times the median: factor must be above 1, got {factor}"
            )
        self.factor, self.count = factor, 0
        self.memory: deque[float] = deque(maxlen=MEMORY)

    def is_spike(self, loss: float) -> bool:
        """Take in the loss of the next step. A loss that is not finite is none: that is told elsewhere."""
        if not math.isfinite(loss):
            return False
        known = len(self.memory) >= FEWEST
        found = known and abs(loss) > self.factor * max(abs(statistics.median(self.memory)), 1e-12)
        if found:
            self.count += 1
        else:
            self.memory.append(loss)
        return found

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds, as JSON."""
        return {"count": self.count, "memory": list(self.memory)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up where a checkpoint left off."""
        self.count, self.memory = int(state["count"]), deque(state["memory"], maxlen=MEMORY)
