"""What a run leaves in its folder, read back for its report; anything may be missing."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.log import read_metrics
from jepa_world_model.diagnostics.charts import Series

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Record:
    """A run folder, read."""

    folder: Path
    config: dict[str, Any]  # config.toml, as nested tables
    changes: dict[str, Any]  # changes.json: key to {"default": ..., "value": ...}, or to the value alone
    environment: dict[str, Any]
    reach: dict[str, Any]
    graph: dict[str, Any]
    metrics: dict[str, Series]  # by name; finite values only, one a step, the last record of a step wins
    broken: dict[str, int]  # names to the number of values that were not finite
    snapshot: dict[str, np.ndarray]
    gradients: list[dict[str, Any]]  # rows of gradients.jsonl
    advice: list[str]  # sentences of advice.json
    diagnostics: dict[str, Any]  # diagnostics.json

    @property
    def last_step(self) -> int:
        """The greatest step of any record; 0 without one."""
        return int(max((curve.steps[-1] for curve in self.metrics.values() if len(curve)), default=0))

    def setting(self, *path: str, default: Any = None) -> Any:
        """A value of the configuration by its path; `default` where it does not say."""
        value: Any = self.config
        for key in path:
            if not isinstance(value, Mapping) or key not in value:
                return default
            value = value[key]
        return value

    def under(self, prefix: str) -> dict[str, Series]:
        """The curves whose names start with `prefix/`, by the rest of the name."""
        cut = len(prefix) + 1
        return {n[cut:]: c for n, c in self.metrics.items() if n.startswith(prefix + "/") and len(c)}


def read_run(folder: Path) -> Record:
    """Everything the report needs of a run folder.

    Errors: UserError when there is no such folder, or a file in it cannot be understood. A torn last line,
    which a killed run leaves, is skipped.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"there is no run folder {folder}; give the folder that holds metrics.jsonl")
    path = folder / "metrics.jsonl"
    metrics, broken = curves(list(read_metrics(path)) if path.exists() else [])
    return Record(
        folder=folder,
        config=_toml(folder / "config.toml"),
        changes=_json(folder / "changes.json"),
        environment=_json(folder / "environment.json"),
        reach=_json(folder / "reach.json"),
        graph=_json(folder / "graph.json"),
        metrics=metrics,
        broken=broken,
        snapshot=load_snapshot(folder),
        gradients=_gradient_rows(folder / "gradients.jsonl"),
        diagnostics=_json(folder / "diagnostics.json"),
        advice=_advice(folder / "advice.json"),
    )


def curves(rows: list[dict[str, Any]]) -> tuple[dict[str, Series], dict[str, int]]:
    """Records as one curve a name, and how many values of each name were not finite numbers."""
    found: dict[str, dict[float, float]] = {}
    broken: dict[str, int] = {}
    for row in rows:
        step = row.get("step", 0)
        for name, value in row.items():
            if name == "step" or isinstance(value, (str, list, dict)):
                continue
            if value is None or not math.isfinite(value):
                broken[name] = broken.get(name, 0) + 1
            else:
                found.setdefault(name, {})[step] = float(value)
    made = {}
    for name, points in found.items():
        steps = np.array(sorted(points), float)
        made[name] = Series(steps, np.array([points[step] for step in steps]))
    return made, broken


def _gradient_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of nested tables; one that a killed run left unfinished is skipped."""
    lines, rows = _text(path).splitlines(), []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            if number < len(lines):
                raise UserError(f"{path}, line {number}, is not JSON ({error}); delete that line") from None
    return rows


def _advice(path: Path) -> list[str]:
    try:
        return [str(one["text"]) for one in _json(path).get("advice", [])]
    except (TypeError, KeyError) as error:
        raise UserError(
            f"{path} is not what a run writes ({error}); delete it to have a report without it"
        ) from None


def _text(path: Path) -> str:
    """What stands in a file, nothing where there is none. Errors: UserError where it is no text file."""
    try:
        return path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}); delete it to have a report without it") from None


def _json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        value = json.loads(_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}); delete it to have a report without it") from None
    return value if isinstance(value, dict) else {}


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(_text(path))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not TOML ({error}); delete it to have a report without it") from None


def save_snapshot(folder: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    """Write snapshot.npz into a run folder, whole or not at all."""
    path, draft = Path(folder) / "snapshot.npz", Path(folder) / "snapshot.npz.part"
    with draft.open("wb") as file:
        np.savez_compressed(file, **arrays)
    os.replace(draft, path)
    return path


def load_snapshot(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of a run's snapshot.npz; empty without one. Errors: UserError if it cannot be read."""
    path = Path(folder) / "snapshot.npz"
    if not path.exists():
        return {}
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # zipfile, zlib and numpy each raise their own
        raise UserError(f"{path} cannot be read ({error}); delete it and evaluate the run again") from None
