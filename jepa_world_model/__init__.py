"""JEPA world models whose gradient routing is declared once, shown, and proven before the first step."""

from __future__ import annotations

__version__ = "0.1.0"
