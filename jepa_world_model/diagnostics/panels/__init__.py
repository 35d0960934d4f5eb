"""The panels of the dashboard: one file a family; each is a question, its thresholds, and a function of arrays."""

from __future__ import annotations

from jepa_world_model.diagnostics.panels import algebra, places, plans, prediction, states
from jepa_world_model.diagnostics.panels.panel import FAMILIES, PANELS, Panel, Question

__all__ = ["FAMILIES", "PANELS", "Panel", "Question", "algebra", "places", "plans", "prediction", "states"]
