"""Packages that only this pipeline needs, imported when they are used."""

from __future__ import annotations

import importlib
from types import ModuleType

from jepa_world_model.core.errors import UserError


def require(module: str, purpose: str) -> ModuleType:
    """The module. Errors: UserError that names the extra to install."""
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise UserError(
            f"{purpose} need the package `{package}`: pip install 'jepa-world-model[vla]'"
        ) from None
