"""`jepa-wm diff A B`: what two runs or configurations differ in: routing, settings, and what came of it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jepa_world_model.core.config import from_toml
from jepa_world_model.core.errors import UserError

if TYPE_CHECKING:
    from jepa_world_model.experiment.config import TrainConfig

SHOWN = ("eval/", "loss/")  # metrics in the text; JSON has all of them


@dataclass(frozen=True)
class Difference:
    """Everything that `jepa-wm diff` tells."""

    a: str
    b: str
    routing: list[str]  # sentences
    settings: dict[str, tuple[Any, Any]]
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)  # name -> step, a, b, difference

    def to_json(self) -> dict[str, Any]:
        """As `--format json` prints it."""
        settings = {path: {"a": one, "b": two} for path, (one, two) in self.settings.items()}
        parts = {"routing": self.routing, "settings": settings, "metrics": self.metrics}
        return {"a": self.a, "b": self.b, **parts}


def main(argv: Sequence[str]) -> None:
    """Print the difference. Errors: UserError for what is neither a run folder nor a configuration file."""
    parser = argparse.ArgumentParser(prog="jepa-wm diff", description=__doc__)
    parser.add_argument("a", type=Path, help="a run folder or a configuration file (TOML)")
    parser.add_argument("b", type=Path, help="another")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="of what is printed")
    own = parser.parse_args(argv)
    found = difference(own.a, own.b)
    print(json.dumps(found.to_json(), indent=1, default=str) if own.format == "json" else render(found))


def difference(a: Path, b: Path) -> Difference:
    """What the two differ in; metrics where both are runs."""
    from jepa_world_model.experiment.compare import routing_sentences, settings_difference

    one, two = read_settings(a), read_settings(b)
    metrics = metric_differences(a, b) if a.is_dir() and b.is_dir() else {}
    return Difference(str(a), str(b), routing_sentences(one, two), settings_difference(one, two), metrics)


def read_settings(place: Path) -> TrainConfig:
    """The configuration of a run folder or file. Errors: UserError when there is none."""
    path = place / "config.toml" if place.is_dir() else place
    if not path.is_file():
        what = "a run folder with a config.toml, or a TOML file"
        raise UserError(f"{place} is no configuration: give {what}")
    from jepa_world_model.experiment.config import TrainConfig

    return from_toml(TrainConfig, path)


def metric_differences(a: Path, b: Path) -> dict[str, dict[str, float]]:
    """Each metric at the last step at which both runs have it: step, a, b and b - a."""
    from jepa_world_model.diagnostics.records import read_run

    one, two = read_run(a).metrics, read_run(b).metrics
    found = {}
    for name in sorted(set(one) & set(two) - {"time"}):
        mine, theirs = (dict(zip(curve.steps, curve.values, strict=True)) for curve in (one[name], two[name]))
        if common := set(mine) & set(theirs):
            step = max(common)
            left, right = float(mine[step]), float(theirs[step])
            found[name] = {"step": int(step), "a": left, "b": right, "difference": right - left}
    return found


def render(found: Difference) -> str:
    """The difference as text."""
    lines = [f"A  {found.a}", f"B  {found.b}", "", "Routing"]
    lines += [f"  {words}" for words in found.routing] or ["  the same: every loss moves the same modules"]
    lines += ["", "Settings"]
    width = max(map(len, found.settings), default=0)
    rows = [f"  {path:<{width}}  {_value(a)} -> {_value(b)}" for path, (a, b) in found.settings.items()]
    lines += rows or ["  the same"]
    shown = {name: row for name, row in found.metrics.items() if name.startswith(SHOWN)}
    if shown:
        lines += ["", *_metric_lines(shown)]
    return "\n".join(lines)


def _metric_lines(shown: Mapping[str, Mapping[str, float]]) -> list[str]:
    from jepa_world_model.diagnostics.page import number

    width = max(map(len, shown))
    head = f"{'At the last common step':<{width + 2}}  {'step':>7}  {'A':>10}  {'B':>10}  {'B - A':>10}"
    cells = lambda row: "  ".join(f"{number(row[key]):>10}" for key in ("a", "b", "difference"))
    return [head, *(f"  {name:<{width}}  {row['step']:>7}  {cells(row)}" for name, row in shown.items())]


def _value(value: Any) -> str:
    return json.dumps(value, default=str) if isinstance(value, (str, dict, bool)) else str(value)
