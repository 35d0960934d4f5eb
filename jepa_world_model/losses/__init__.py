"""Floor 3: the losses, one file a family. Importing this package fills the table `LOSSES`."""

from __future__ import annotations

from jepa_world_model.losses import (  # noqa: F401  (imported for their registrations)
    algebra_h,
    algebra_p,
    bridges,
    distribution,
    inverse,
    prediction,
    reconstruction,
)
from jepa_world_model.losses.registry import LOSSES
from jepa_world_model.losses.weights import LossWeights

__all__ = ["LOSSES", "LossWeights"]
