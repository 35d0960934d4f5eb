"""What kind of actions recorded numbers are, where the format does not tell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jepa_world_model.core.errors import UserError
from jepa_world_model.data.batch import ActionSpace

MOST_ACTIONS = 4096  # of a discrete space


def infer_space(actions: Sequence[np.ndarray], kind: str = "auto", names: Sequence[str] = ()) -> ActionSpace:
    """The action space that fits all arrays [n] or [n,dims]; `names` says in errors where each came from.

    Whole numbers [n] are discrete actions, zeros and ones [n,bits] are buttons (multi_binary), other floats [n]
    or [n,dims] are continuous.
    """
    names = names or [f"array {i}" for i in range(len(actions))]
    widths = [a.shape[1:] for a in actions]
    for name, width in zip(names, widths, strict=True):
        if width != widths[0]:
            raise UserError(
                f"{name} has actions of shape {list(width)} while {names[0]} has {list(widths[0])}; all "
                "episodes of a data set share one action space"
            )
    whole = np.concatenate([a.astype(np.float64) for a in actions])
    if whole.size == 0:
        raise UserError(f"no episode has an action (widths {list(widths[0])}); every one has a single frame")
    if kind == "auto":
        kind = _kind(actions, whole, names[0])
    if kind == "discrete":
        return _discrete(whole, names[0])
    if kind == "multi_binary":
        if not _binary(whole):
            raise UserError(
                f"{names[0]}: multi_binary actions are zeros and ones [n, bits]; got other values"
            )
        return ActionSpace(kind="multi_binary", dim=whole.shape[1])
    # Symmetric, so that the zero vector stays zero when it is encoded.
    reach = np.abs(whole.reshape(len(whole), -1)).max(0)
    reach = np.where(reach > 0, reach, 1.0)
    return ActionSpace(kind="continuous", dim=len(reach), low=tuple(-reach), high=tuple(reach))


def _binary(whole: np.ndarray) -> bool:
    return whole.ndim == 2 and bool(((whole == 0) | (whole == 1)).all())


def _kind(actions: Sequence[np.ndarray], whole: np.ndarray, name: str) -> str:
    integral = all(a.dtype.kind in "biu" for a in actions)
    if integral and (whole.ndim == 1 or whole.shape[1] == 1):
        return "discrete"
    if _binary(whole):
        return "multi_binary"
    if integral:
        raise UserError(
            f"{name} has whole-numbered actions of {whole.shape[1]} columns, not all 0 or 1, which is neither "
            "discrete nor multi_binary; set the action kind, or encode them as one index"
        )
    return "continuous"


def _discrete(whole: np.ndarray, name: str) -> ActionSpace:
    if (whole.ndim == 2 and whole.shape[1] != 1) or (whole != np.floor(whole)).any() or whole.min() < 0:
        raise UserError(f"{name}: discrete actions are whole numbers [n] from 0; got shape {whole.shape[1:]}")
    if whole.max() >= MOST_ACTIONS:
        raise UserError(
            f"discrete actions go up to {whole.max():.0f}; more than {MOST_ACTIONS} actions are not supported"
        )
    return ActionSpace(kind="discrete", dim=int(whole.max()) + 1)
