"""Packages that only this pipeline needs, imported when they are used."""

from __future__ import annotations

from types import ModuleType

from jepa_world_model.core import extras


def require(module: str, purpose: str) -> ModuleType:
    """The module. Errors: UserError that names the extra to install."""
    return extras.require(module, purpose, "vla")
