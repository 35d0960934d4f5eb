"""What an ablation measured: means and intervals over seeds, and each arm against the base."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.graph import unknown
from jepa_world_model.diagnostics.page import number
from jepa_world_model.diagnostics.records import Record, read_run
from jepa_world_model.diagnostics.scorecard import HEADLINES, find
from jepa_world_model.experiment.ablation import BASE, Arm, Trial, is_finished
from jepa_world_model.experiment.compare import routing_sentences


@dataclass(frozen=True)
class Interval:
    """A mean with its 95% interval; from one value, no interval (low and high are nan)."""

    mean: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half the width; nan without an interval."""
        return (self.high - self.low) / 2

    def __str__(self) -> str:
        return number(self.mean) + (f" ± {number(self.half)}" if math.isfinite(self.half) else "")


def interval(values: Sequence[float]) -> Interval:
    """Mean and 95% interval by Student's t, for values that are independent draws (one a seed)."""
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return Interval(mean, math.nan, math.nan)
    from scipy.stats import t

    half = float(t.ppf(0.975, count - 1) * np.std(values, ddof=1) / math.sqrt(count))
    return Interval(mean, mean - half, mean + half)


@dataclass(frozen=True)
class Cell:
    """One metric of one arm."""

    values: dict[int, float]  # by seed, at the end of the run
    over_seeds: Interval
    change: Interval | None  # against the base, seed by seed; None for the base or without a common seed
    better: bool | None = None  # whether the change is for the better, where the interval leaves out 0

    def to_json(self) -> dict[str, Any]:
        """Plain values; no interval is null."""
        spread = lambda x: (
            x
            and {
                "mean": _plain(x.mean),
                "low": _plain(x.low),
                "high": _plain(x.high),
            }
        )
        return {
            "values": {str(seed): value for seed, value in self.values.items()},
            **spread(self.over_seeds),
            "change": spread(self.change),
            "better": self.better,
        }


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class Results:
    """Everything the table and the page show."""

    arms: list[Arm]
    seeds: list[int]
    metrics: list[str]
    cells: dict[str, dict[str, Cell]]  # arm -> metric; a metric that no run of the arm has is absent
    routing: dict[str, list[str]]  # arm -> how it differs from the base, in sentences
    failures: dict[str, str]  # run -> one sentence
    records: dict[str, dict[int, Record]]  # arm -> seed, finished runs only

    def to_json(self) -> dict[str, Any]:
        """As ablation.json holds it."""
        arms = [
            {
                "name": arm.name,
                "toggles": arm.what,
                "routing": self.routing[arm.name],
                "finished_seeds": sorted(self.records[arm.name]),
                "metrics": {name: cell.to_json() for name, cell in self.cells[arm.name].items()},
            }
            for arm in self.arms
        ]
        return {"seeds": self.seeds, "metrics": self.metrics, "arms": arms, "failures": self.failures}

    def to_markdown(self) -> str:
        """Arms by metrics, then what each arm changes, then what failed."""
        titles = [name.removeprefix("eval/") for name in self.metrics]
        lines = ["| arm | " + " | ".join(titles) + " |", "|---|" + "---|" * len(titles)]
        for arm in self.arms:
            cells = (_words(self.cells[arm.name].get(name)) for name in self.metrics)
            lines.append(f"| {arm.name} | " + " | ".join(cells) + " |")
        lines += [
            "",
            f"{_seed_words(self.seeds)} In brackets: the change against the base, seed by seed. " + READING,
            "",
        ]
        lines += [f"- {arm.name}: {'; '.join(self.routing[arm.name]) or SAME}" for arm in self.arms[1:]]
        lines += [f"- failed: {name}: {why}" for name, why in self.failures.items()]
        return "\n".join(lines) + "\n"


SAME = "the same routing, other values"
READING = "A star marks a change whose 95% interval leaves out 0; one in twenty does so by chance alone."


def _seed_words(seeds: Sequence[int]) -> str:
    if len(seeds) == 1:
        return "One seed, so there are no intervals."
    return f"Mean ± half the 95% interval over {len(seeds)} seeds."


def _words(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    if cell.change is None:
        return str(cell.over_seeds)
    sign = "+" if cell.change.mean > 0 else ""
    star = "*" if cell.better is not None else ""
    return f"{cell.over_seeds} ({sign}{cell.change}{star})"


def results(trials: Sequence[Trial], failures: Mapping[str, str], metrics: Sequence[str] = ()) -> Results:
    """Read the finished runs. metrics: names as logged, or the end of one; empty: the headline metrics.

    Errors: UserError for a metric that no run has.
    """
    arms = list({trial.arm.name: trial.arm for trial in trials}.values())
    records: dict[str, dict[int, Record]] = {arm.name: {} for arm in arms}
    for trial in trials:
        if trial.name not in failures and is_finished(trial):
            records[trial.arm.name][trial.seed] = read_run(trial.folder)
    names = _chosen(records, metrics)
    ends = {arm: {name: _ends(by_seed, name) for name in names} for arm, by_seed in records.items()}
    return Results(
        arms=arms,
        seeds=list(dict.fromkeys(trial.seed for trial in trials)),
        metrics=names,
        cells={
            arm: {
                name: _cell(name, values, {} if arm == BASE else ends[BASE][name])
                for name, values in rows.items()
                if values
            }
            for arm, rows in ends.items()
        },
        routing={arm.name: _routing_words(arms[0], arm) for arm in arms},
        failures=dict(failures),
        records=records,
    )


def _routing_words(base: Arm, arm: Arm) -> list[str]:
    """How an arm's routing differs from the base's, without naming the arm again and again."""
    found = routing_sentences(base.cfg, arm.cfg, (BASE, "the arm"))
    return [words.removeprefix("with the arm, ") for words in found]


def _chosen(records: Mapping[str, Mapping[int, Record]], wanted: Sequence[str]) -> list[str]:
    """The metrics to show, by their logged names."""
    there = dict.fromkeys(name for rows in records.values() for row in rows.values() for name in row.metrics)
    if not there:
        return []
    if wanted:
        missing = [name for name in wanted if name not in there and f"eval/{name}" not in there]
        if missing:
            raise UserError(f"--metrics: {unknown('metric', missing[0], there)[:400]}")
        return [name if name in there else f"eval/{name}" for name in wanted]
    heads = [head.replace("{k}", "") for head in HEADLINES]
    known = [name for name in there if name.startswith("eval/") and find(name)]
    stem = lambda name: name.removeprefix("eval/").rstrip("0123456789")
    bare = lambda name: name.removeprefix("eval/")
    return [name for head in heads for name in known if head in (bare(name), stem(name))]


def _ends(by_seed: Mapping[int, Record], name: str) -> dict[int, float]:
    """The last value of a metric, by seed."""
    return {seed: float(row.metrics[name].values[-1]) for seed, row in by_seed.items() if name in row.metrics}


def _cell(name: str, values: dict[int, float], base: Mapping[int, float]) -> Cell:
    common = [seed for seed in values if seed in base]
    if not common:
        return Cell(values, interval(list(values.values())), None)
    change = interval([values[seed] - base[seed] for seed in common])
    sure = change.low > 0 or change.high < 0
    metric = find(name)
    low = name.startswith("loss/") or (metric is not None and metric.better == "low")
    return Cell(values, interval(list(values.values())), change, ((change.mean < 0) == low) if sure else None)
