"""Floor 3: the losses, one file a family. Importing this package fills the table `LOSSES`."""

from __future__ import annotations

# Imported for their registrations, in the order of every table.
# isort: off
from jepa_world_model.losses import prediction  # noqa: F401
from jepa_world_model.losses import distribution  # noqa: F401
from jepa_world_model.losses import reconstruction  # noqa: F401
from jepa_world_model.losses import bridges  # noqa: F401
from jepa_world_model.losses import algebra_h  # noqa: F401
from jepa_world_model.losses import algebra_p  # noqa: F401
from jepa_world_model.losses import geometry_p  # noqa: F401
from jepa_world_model.losses import algebra_z  # noqa: F401
from jepa_world_model.losses import inverse  # noqa: F401

# isort: on
from jepa_world_model.losses.registry import LOSSES
from jepa_world_model.losses.weights import LossWeights

__all__ = ["LOSSES", "LossWeights"]
