"""Optional packages: imported where they are used, named with their extra where they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from jepa_world_model.core.errors import UserError


def require(module: str, purpose: str, extra: str) -> ModuleType:
    """The module; `purpose` is a plural ("HDF5 files"). Errors: UserError that names the extra to install."""
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise UserError(
            f"{purpose} need the package `{package}`: pip install 'jepa-world-model[{extra}]'"
        ) from None
