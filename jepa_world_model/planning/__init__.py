"""Floor 3: planning with any model that offers the protocol of `dynamics.Dynamics`; imports no trainer."""

from __future__ import annotations
