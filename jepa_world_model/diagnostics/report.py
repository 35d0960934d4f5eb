"""The page of a run: one HTML file on what was trained, what moved what, and what the model learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.run import atomic_write
from jepa_world_model.diagnostics import charts
from jepa_world_model.diagnostics import report_pictures as pictures
from jepa_world_model.diagnostics.gradients import gradient_tables
from jepa_world_model.diagnostics.graph_picture import graph_svg, latents_of
from jepa_world_model.diagnostics.page import (
    STATES,
    Section,
    details,
    escape,
    missing,
    named,
    number,
    page,
    table,
)
from jepa_world_model.diagnostics.pose_pictures import pose_map
from jepa_world_model.diagnostics.reach_picture import closed_gates, reach_table
from jepa_world_model.diagnostics.records import Record, read_run
from jepa_world_model.diagnostics.scorecard import HEADLINES, METRICS, RIVALS, Metric, find


def write_report(run_folder: str | Path) -> Path:
    """Write report.html from what lies in the run folder, whole or not at all, and return its path.

    Reads config.toml, changes.json, environment.json, reach.json, graph.json, metrics.jsonl, snapshot.npz,
    gradients.jsonl, diagnostics.json, advice.json and figures/captions.json; a section whose input is missing
    says so. Errors: UserError for a folder or file that cannot be read.
    """
    record = read_run(Path(run_folder))
    first = _made(record, _summary, _reach, _graph, _evaluation)
    curves, last = _made(record, _losses, _norms), _made(record, _throughput, _settings)
    own = [one for several in _made(record, pictures.captioned) for one in several]
    if own:  # a run that draws its own pictures has none of a world model's
        kind, sections = "Vision-language-action run", [*first, *curves, *own, *last]
    else:
        kind, sections = "World model run", [
            *first, *_made(record, _diagnostics), *curves,
            *_made(record, _pulls, pictures.reconstructions, pictures.rollouts, pictures.projection,
                   pictures.trajectories, pictures.increments, pose_map), *last,
        ]  # fmt: skip
    path = record.folder / "report.html"
    atomic_write(path, page(record.folder.resolve().name, kind, sections))
    return path


# What a section reads besides metrics.jsonl and config.toml.
_SOURCES = {
    "_reach": "reach.json", "_graph": "graph.json", "_diagnostics": "diagnostics.json", "_pulls": "gradients.jsonl",
    "_settings": "changes.json", "captioned": "figures/captions.json", "_summary": "environment.json",
}  # fmt: skip


def _made(record: Record, *sections: Callable[[Record], Any]) -> list[Any]:
    """The sections of a record. Errors: UserError that names the file whose content none of them understands."""
    found = []
    for section in sections:
        try:
            found.append(section(record))
        except UserError:
            raise
        except (
            TypeError,
            KeyError,
            IndexError,
            AttributeError,
            ValueError,
            ArithmeticError,
            OSError,
        ) as error:
            file = _SOURCES.get(section.__name__, "snapshot.npz")
            raise UserError(
                f"{record.folder / file} is not what a run writes ({type(error).__name__}: {' '.join(str(error).split())}); "
                "delete it to have a report without it"
            ) from error
    return found


def _summary(record: Record) -> Section:
    tiles = "".join(_tile(record, metric) for metric in _headlines(record))
    faults = "".join(f'<p class="warn">{escape(words)}</p>' for words in [*_troubles(record), *record.advice])
    losses = record.reach.get("losses")
    terms = "" if isinstance(losses, dict) and "flow" in losses else STATES
    lead = f'<p class="lead">{_sentence(record)}</p>{faults}<div class="tiles">{tiles}</div>{terms}'
    return Section("summary", "", "", lead)


def _sentence(record: Record) -> str:
    source = record.setting("data", "source") or record.environment.get("dataset")
    source = source or record.setting("data", "folder", default=None)  # of a vision-language-action run
    source = source or ("an unnamed data set" if source is None else "the embedded arm")
    if "/" in str(source):
        source = Path(str(source)).name
    words = f"Trained on <b>{escape(str(source))}</b> for <b>{record.last_step:,}</b> steps"
    batch, frames = record.setting("batch_size"), record.setting("seq_len")
    if batch and frames:
        words += f" of {batch} windows with {frames} frames"
    if (count := parameter_count(record)) is not None:
        words += f"; {number(count / 1e6)} million parameters" if count >= 1e5 else f"; {count:,} parameters"
    words += f", on {escape(device)}" if (device := _device(record)) else ""
    rate, clock = record.metrics.get("time/frames_per_s"), record.metrics.get("time")
    if rate is not None:
        words += f", at {number(charts.recent(rate))} frames a second"
    if clock is not None and len(clock) > 1:
        words += f", in {_duration(float(clock.values[-1] - clock.values[0]))}"
    seed = record.setting("seed")
    return words + (f". Seed {seed}." if seed is not None else ".")


def _device(record: Record) -> str:
    """Where the run computed: the first GPU unless it asked for the CPU, or the CPU with its threads."""
    devices, threads = record.environment.get("devices") or [], record.environment.get("threads")
    asked = str(record.setting("device", default="auto"))
    if devices and devices[0] != "cpu" and asked != "cpu":
        return str(devices[0])
    return f"CPU with {threads} thread{'s' if threads != 1 else ''}" if threads else ""


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def parameter_count(record: Record) -> int | None:
    """The number of parameters: `parameters` of environment.json, a number or a table by group."""
    told = record.environment.get("parameters")
    if isinstance(told, Mapping):
        return sum(int(value) for value in told.values())
    return int(told) if isinstance(told, (int, float)) else None


def known_metric(record: Record, name: str) -> Metric | None:
    """The metric of a logged name; where another metric is its rival, the bar is that one's last value."""
    metric, found = find(name), record.under("eval")
    if metric is None or metric.rival not in found:
        return metric
    return replace(metric, bar=float(found[metric.rival].values[-1]))


def _headlines(record: Record) -> list[tuple[str, Metric]]:
    known = {name: known_metric(record, name) for name in record.under("eval")}
    order = []
    for wanted in HEADLINES:
        for name, metric in known.items():
            if metric is not None and wanted.replace("{k}", "") in (name.rstrip("0123456789"), name):
                order.append((name, metric))
    return order


def _tile(record: Record, named: tuple[str, Metric]) -> str:
    name, metric = named
    value = float(record.metrics[f"eval/{name}"].values[-1])
    return (
        f'<div class="tile"><b>{number(value)}</b><span>{escape(metric.title)}</span>'
        f"<small>{_verdict(metric, value)}</small></div>"
    )


def _verdict(metric: Metric, value: float) -> str:
    """The bar of a metric and whether it is cleared, in words and colour."""
    met = metric.met(value)
    if met is None:
        return escape(metric.meaning)
    sign, tone = ("&#10003;", "good") if met else ("&#10007;", "bad")
    relation = "below" if metric.better == "low" else "above"
    who = f", {escape(metric.trivial)}" if metric.trivial else ""
    aim = f"; aim {number(metric.aim)}" if metric.aim is not None else ""
    words = f"{sign} {relation if met else 'not ' + relation} {number(metric.bar)}"
    return f'<span class="{tone}">{words}</span>{who}{aim}'


def _troubles(record: Record) -> list[str]:
    found = [f"Reach: {words}." for words in record.reach.get("faults", [])]
    found += [f"{one['title']}: {one['text']}" for one in record.diagnostics.get("faults", [])]
    if record.broken:
        worst = sorted(record.broken.items(), key=lambda item: -item[1])[:4]
        found.append("Not finite: " + ", ".join(f"{name} ({count} records)" for name, count in worst) + ".")
    return found


def _reach(record: Record) -> Section:
    look = (
        "Each row is a loss, each column a part of the model. A filled cell says that the "
        "declaration allows the loss "
        "to move that part, and that autograd measured it before the first step."
    )
    if not record.reach.get("losses"):
        return Section("reach", "Which loss moves what", "", missing("This table needs reach.json."))
    notes = "".join(f"<li>{escape(words)}</li>" for words in record.reach.get("warnings", []))
    body = reach_table(record.reach) + closed_gates(record.reach.get("gates", {}))
    return Section("reach", "Which loss moves what", look, body + (f"<ul>{notes}</ul>" if notes else ""))


def _graph(record: Record) -> Section:
    gates = record.graph.get("gates") or record.reach.get("gates") or {}
    latents = record.graph.get("latents") or latents_of(gates)
    if not latents:
        return Section("graph", "Latent graph", "", missing("This picture needs graph.json or reach.json."))
    look = (
        "Values flow down every edge; gradients flow back up the solid ones only. "
        "Under each name: the modules that make it."
    )
    return Section("graph", "Latent graph", look, f'<div class="scroll">{graph_svg(latents, gates)}</div>')


def _evaluation(record: Record) -> Section:
    title, found = "Evaluation on held-out episodes", record.under("eval")
    if not found:
        return Section("evaluation", title, "", missing("These curves need eval/ records in metrics.jsonl."))
    cards, rows = [], []
    for name in sorted(found, key=_rank_of):
        metric, curve = known_metric(record, name), found[name]
        value = float(curve.values[-1])
        words = _verdict(metric, value) if metric else ""
        if len(curve) > 1 and name not in RIVALS:
            bar = metric.bar if metric else None
            cards.append(charts.line_chart(metric.title if metric else name, [curve], value=number(value),
                                           sub=words, bar=bar))  # fmt: skip
        meaning, barred = (escape(metric.meaning), metric.met(value) is not None) if metric else ("", False)
        rows.append((named(name), number(value), words if barred else "", meaning))
    head, look = (
        ("metric", "last", "bar", "meaning"),
        (
            f"{'Dashed: the' if cards else 'The'} bar is what the trivial answer named beside it scores. A model that "
            "does not clear it has learned nothing there."
        ),
    )
    if not any(words for _, _, words, _ in rows):  # a run none of whose metrics has a bar
        rows, head, look = (
            [(name, value, meaning) for name, value, _, meaning in rows],
            (*head[:2], head[3]),
            "",
        )
    listing = table(rows, head)
    body = charts.charts(cards) + details("All metrics", listing) if cards else listing
    return Section("evaluation", title, look, body)


def _diagnostics(record: Record) -> Section:
    """The verdicts of the dashboard, which has a page of its own."""
    told, title = record.diagnostics, "Diagnostics"
    if not told:
        words = "This part needs diagnostics.json, which `jepa-wm diagnose` writes."
        return Section("diagnostics", title, "", missing(words))
    rows = [
        (escape(one["title"]), escape(one["verdict"]), escape(one["sentence"]))
        for one in told["panels"].values()
    ]
    look = f'{escape(told["summary"])}. <a href="diagnostics.html">Every panel, with its pictures</a>'
    return Section("diagnostics", title, look, details("All panels", table(rows)))


def _rank_of(name: str) -> tuple[int, str]:
    stems = [metric.name.replace("{k}", "") for metric in METRICS]
    stem = name if name in stems else name.rstrip("0123456789")
    return (stems.index(stem) if stem in stems else len(stems), name)


def _losses(record: Record) -> Section:
    found = record.under("loss")
    if not found:
        return Section("losses", "Losses", "", missing("These curves need loss/ records in metrics.jsonl."))
    weighted = record.under("weighted")
    now = {name: charts.recent(curve) for name, curve in weighted.items()}
    whole, cards = sum(now.values()), []
    for name, curve in found.items():
        curves, sub = [curve], ""
        if name in weighted:
            weight = now[name] / value if (value := charts.recent(curve)) else 0.0
            sub = f"{charts.percent(now[name] / whole)} of the total" if whole else ""
            if abs(weight - 1) > 0.02:
                curves.append(charts.Series(weighted[name].steps, weighted[name].values, "second"))
                sub += f" &middot; weighted {number(now[name])}"
        cards.append(charts.line_chart(name, curves, value=number(charts.recent(curve)), sub=sub))
    look = (
        "Raw values; where the weight is not 1, the weighted loss is the second line. Light band: "
        "the range of "
        "records behind one point; log: a logarithmic axis. A curve that never falls is a loss that nothing follows."
    )
    body = charts.charts(cards)
    if whole:
        body += "<h3>Share of the weighted total at the end</h3>" + charts.shares(now)
    return Section("losses", "Losses", look, body)


def _norms(record: Record) -> Section:
    found = record.under("grad_norm")
    if not found:
        return Section(
            "norms", "Gradient norms", "", missing("These curves need grad_norm/ records in metrics.jsonl.")
        )
    look = (
        "Of each parameter group, before clipping. Each group is clipped on its own, so none can "
        "hold another back."
    )
    limit = record.setting("optim", "max_grad_norm")
    cards = []
    for name, curve in found.items():
        sub = ""
        if isinstance(limit, (int, float)):
            sub = f"clipped in {float((curve.values > limit).mean()):.0%} of records"
        cards.append(charts.line_chart(name, [curve], value=number(charts.recent(curve)), sub=sub))
    if (rate := record.metrics.get("lr")) is not None and len(rate) > 1:
        cards.append(charts.line_chart("learning rate", [rate], value=number(float(rate.values[-1]))))
    return Section("norms", "Gradient norms", look, charts.charts(cards))


def _pulls(record: Record) -> Section:
    title = "Who pulls whom"
    if not record.gradients:
        return Section(
            "pulls",
            title,
            "",
            missing("These tables need gradients.jsonl: train with --grad-report-every 100."),
        )
    last = record.gradients[-1]
    look = (
        f"Norm of each weighted loss's gradient on each module at step {last['step']:,}; shade: its "
        "share of the "
        "strongest pull on that module. Below, the cosine between two losses on one module: red "
        "pairs work against "
        "each other."
    )
    return Section("pulls", title, look, gradient_tables(last))


def _throughput(record: Record) -> Section:
    found = record.under("time")
    if not found:
        return Section(
            "throughput", "Throughput", "", missing("These curves need time/ records in metrics.jsonl.")
        )
    cards = [
        charts.line_chart(name.replace("_", " "), [curve], value=number(charts.recent(curve)))
        for name, curve in found.items()
    ]
    return Section(
        "throughput", "Throughput", "A slow drift points at the data or the machine.", charts.charts(cards)
    )


def _settings(record: Record) -> Section:
    parts = []
    if record.changes:
        rows = [
            (named(key), f'<span class="any">{_change(value)}</span>')
            for key, value in record.changes.items()
        ]
        parts.append("<h3>What differs from the defaults</h3>" + table(rows))
    for words, content in (
        ("All settings (config.toml)", record.config),
        ("Environment", record.environment),
    ):
        if content:
            rows = [(named(key), f'<span class="any">{escape(value)}</span>') for key, value in flat(content)]
            parts.append(details(words, table(rows)))
    body = "".join(parts) or missing("This part needs config.toml, changes.json or environment.json.")
    return Section("settings", "Settings", "", body)


def _change(value: Any) -> str:
    if isinstance(value, Mapping) and "value" in value:
        return f"{escape(str(value['value']))} (default {escape(str(value.get('default', 'none')))})"
    return escape(str(value))


def flat(nested: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested tables as (dotted key, value in words)."""
    rows = []
    for key, value in nested.items():
        name = f"{prefix}{key}"
        rows += flat(value, name + ".") if isinstance(value, Mapping) else [(name, str(value))]
    return rows
