"""What the comparison says: claims stated before it, each held or failed with its figures, a table and a page."""

from __future__ import annotations

import base64
import html
import io
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from jepa_world_model.vla_ki import arm

Row = dict[str, float]
COLUMNS = {  # measured -> what the table calls it
    "vqa_closed": "VQA closed", "vqa_open": "VQA open", "pointing": "pointing",
    "fast_ce": "FAST CE", "fast_accuracy": "FAST accuracy",
    "flow": "flow", "chunk_mse": "chunk MSE", "success_seen": "success, seen", "success_held_out": "held out",
    "language_following_seen": "follows language", "vlm_drift": "VLM drift", "steps_to_0.5": "steps to 0.5",
    "steps_to_0.8": "to 0.8", "step_ms": "ms a step",
}  # fmt: skip
ABOUT = {  # arm or stage -> what it is; the order is that of the colours
    "insulated": "the action gradient stops before the VLM; FAST tokens teach it actions",
    "joint": "the action gradient passes into the VLM whole",
    "insulated_vqa": "insulated, and a share of each batch are questions",
    "open_flow": "joint, without FAST tokens: the flow alone teaches actions",
    "frozen": "the VLM does not move; the expert alone learns",
    "insulated_vqa_long": "insulated_vqa for three times the steps",
    "joint_10": "joint, with ten times the weight on the flow",
    "joint_vqa": "joint, and a share of each batch are questions",
    "fast_only": "FAST tokens alone, no expert",
    "stage0": "the start: the VLM after questions alone",
    "stage0b": "the other start: then questions and FAST tokens",
}
READING = (
    "VQA: share of questions answered right, among the answers that fit (closed) or word for word (open). Success: share "
    "of arms that end on the target they were told, of seen colours or of held out ones, which only questions named. "
    "FAST CE: cross entropy of an action token, in nats. Chunk MSE: squared error of sampled actions, normalised."
)
CURVES = ("success_seen", "success_held_out", "vqa_closed", "fast_ce", "chunk_mse")


@dataclass
class Results:
    """Everything measured so far; an arm is named `ARM@START`, a stage by its own name."""

    arm_steps: int
    ends: dict[str, dict[int, Row]]  # name -> seed -> the last evaluation
    curves: dict[str, dict[int, list[Row]]]  # name -> seed -> every evaluation
    costs: dict[str, float] = field(default_factory=dict)  # ratios of `benchmarks/vla_costs.py`

    def middle(self, name: str, column: str) -> float:
        """The median over seeds. Errors: KeyError for a run that is not there."""
        return statistics.median(row.get(column, float("nan")) for row in self.ends[name].values())


def key(name: str, start: str) -> str:
    """The name of an arm with its start, or of a stage."""
    return f"{name}@{start}" if start else name


@dataclass(frozen=True)
class Verdict:
    """A claim, judged."""

    held: bool | None  # None: a run that it needs is missing
    figures: str


def _e1(r: Results) -> Verdict:
    before, after = r.middle("stage0b", "vqa_closed"), r.middle("insulated_vqa@stage0b", "vqa_closed")
    return Verdict(before - after <= 0.02, f"{before:.3f} before, {after:.3f} after")


def _e2(r: Results) -> Verdict:
    before, open_, shut = (
        r.middle(name, "fast_ce") for name in ("stage0b", "open_flow@stage0b", "insulated@stage0b")
    )
    figures = (
        f"{before:.3f} before; {open_ / before:.2f} times after open flow only, {shut / before:.2f} insulated"
    )
    return Verdict(open_ >= 3 * before and shut <= 1.1 * before, figures)


def _e3(r: Results) -> Verdict:
    shut, open_ = (r.middle(name, "vqa_closed") for name in ("insulated@stage0b", "joint_10@stage0b"))
    return Verdict(shut - open_ >= 0.05, f"{shut:.3f} insulated, {open_:.3f} joint with weight 10")


def _e4(r: Results) -> Verdict:
    rivals = [n for n in ("joint@stage0b", "joint_10@stage0b", "joint_vqa@stage0b") if n in r.ends]
    best = (
        max(r.middle(n, "success_seen") for n in rivals)
        if rivals
        else r.middle("joint@stage0b", "success_seen")
    )
    own = r.middle("insulated_vqa_long@stage0b", "success_seen")
    return Verdict(own >= max(0.85, 0.9 * best), f"{own:.2f}, the best of {len(rivals)} open arms {best:.2f}")


def _e5(r: Results) -> Verdict:
    late, early = (r.middle(f"insulated_vqa_long@{s}", "steps_to_0.5") for s in ("stage0", "stage0b"))
    held = early <= 0.35 * late and early < float("inf")
    return Verdict(held, f"{early:.0f} steps from 0b, {late:.0f} from 0 (inf: not within the run)")


def _e6(r: Results) -> Verdict:
    samples, barrier = r.costs["four_samples_over_one"], r.costs["insulated_over_joint"]
    return Verdict(samples <= 1.15 and barrier <= 1.05, f"{samples:.3f} and {barrier:.3f}")


CLAIMS: Mapping[str, tuple[str, Callable[[Results], Verdict]]] = {
    "E1": ("insulated with questions loses at most 2 points of closed-set accuracy", _e1),
    "E2": ("FAST CE after open flow only is at least 3 times its start, insulated at most 1.1 times", _e2),
    "E3": (
        "without questions, insulated beats joint with flow weight 10 by 5 points of closed-set accuracy",
        _e3,
    ),
    "E4": (
        "insulated with questions, at three times the steps, succeeds in 0.85, and in 0.9 of the best open arm",
        _e4,
    ),
    "E5": ("from 0b, 0.5 success comes in at most 0.35 of the steps that it takes from 0", _e5),
    "E6": (
        "four flow samples cost at most 1.15 times one, an insulated step at most 1.05 times a joint one",
        _e6,
    ),
}


def judge(results: Results) -> dict[str, Verdict]:
    """Every claim with its verdict."""
    found = {}
    for name, (_, claim) in CLAIMS.items():
        try:
            found[name] = claim(results)
        except KeyError as missing:
            found[name] = Verdict(None, f"not measured yet: {missing.args[0]}")
    return found


def word(verdict: Verdict) -> str:
    """Held, failed, or open."""
    return "open" if verdict.held is None else "held" if verdict.held else "failed"


def references(count: int = 500) -> dict[str, float]:
    """Success on seen colours without a model: the script, an arm that cannot read, one that waves, one that rests."""
    seen = [c for c in arm.NAMES if c not in arm.HELD_OUT]
    sim = arm.ArmSim.reset(np.random.default_rng(0), count, goals=seen, others=seen)
    rng = np.random.default_rng(1)
    there = sim.scenes.colours >= 0
    blind = np.where(there, rng.random(there.shape), -1).argmax(1)  # any target that is there
    ends = {
        "the scripted expert": sim.scenes.goal_position,
        "any target, whatever it is told": sim.scenes.targets[np.arange(count), blind],
        "random places": rng.uniform(arm.LOW, arm.HIGH, (count, 2)),
    }
    found = {"holding still": float(sim.success().mean())}
    for name, place in ends.items():
        sim.scenes = replace(sim.scenes, tip=place)
        found[name] = float(sim.success().mean())
    return found


def to_markdown(results: Results) -> str:
    """The table of medians over seeds, the verdicts, and what success is worth."""
    lines = ["| arm | seeds | " + " | ".join(COLUMNS.values()) + " |", "|---|---|" + "---|" * len(COLUMNS)]
    for name, seeds in results.ends.items():
        cells = [_cell(name, column, results) for column in COLUMNS]
        lines.append(f"| {name} | {len(seeds)} | " + " | ".join(cells) + " |")
    lines += ["", f"Medians over the seeds; arms of {results.arm_steps} steps.", ""]
    for name, verdict in judge(results).items():
        lines.append(f"* {name} {word(verdict)}: {CLAIMS[name][0]}. {verdict.figures}.")
    told = ", ".join(f"{name} {value:.2f}" for name, value in references().items())
    return "\n".join([*lines, "", f"Success without a model: {told}.", ""])


def _cell(name: str, column: str, results: Results) -> str:
    value = results.middle(name, column)
    if np.isnan(value):
        return ""
    return "never" if np.isinf(value) else f"{value:.0f}" if value >= 20 else f"{value:.3f}"


def to_page(results: Results) -> str:
    """The same as one HTML page, with curves."""
    rows = "".join(
        f'<tr><td>{name}</td><td class="{word(v)}">{word(v)}</td><td>{html.escape(CLAIMS[name][0])}</td>'
        f"<td>{html.escape(v.figures)}</td></tr>"
        for name, v in judge(results).items()
    )
    head = "".join(f"<th>{text}</th>" for text in ("arm", "seeds", *COLUMNS.values()))
    body = "".join(
        f"<tr><td>{name}</td><td>{len(seeds)}</td>"
        + "".join(f"<td>{_cell(name, column, results)}</td>" for column in COLUMNS)
        + "</tr>"
        for name, seeds in results.ends.items()
    )
    told = ", ".join(f"{name} {value:.2f}" for name, value in references().items())
    there = {name.partition("@")[0] for name in results.ends}
    arms = "".join(
        f"<tr><td>{name}</td><td>{says}</td></tr>" for name, says in ABOUT.items() if name in there
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><link rel="icon" href="data:,">'
        "<title>Knowledge insulation, compared</title>"
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>'
        "<h1>Knowledge insulation, compared</h1>"
        "<p>Claims were written down before the runs. Medians over seeds; the band of a curve is its range.</p>"
        f"<table>{rows}</table><h2>The arms</h2><table>{arms}</table>"
        f"<h2>Curves</h2><p>{READING}</p>{''.join(_figures(results))}<h2>At the end</h2>"
        f'<div class="wide"><table><tr>{head}</tr>{body}</table></div><p>Success without a model: {told}.</p>'
        "</body></html>\n"
    )


def _figures(results: Results) -> list[str]:
    starts = [s for s in ("stage0b", "stage0") if any(name.endswith(f"@{s}") for name in results.curves)]
    return [_figure(results, start) for start in starts]


def _figure(results: Results, start: str) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.4), layout="constrained")
    axes = figure.subplots(1, len(CURVES))
    names = [name for name in results.curves if name.endswith(f"@{start}")]
    for ax, column in zip(axes, CURVES, strict=True):
        for name in names:
            color = f"C{list(ABOUT).index(name.partition('@')[0])}"  # the same in every figure
            seeds = [
                {row["step"]: row[column] for row in rows if column in row}
                for rows in results.curves[name].values()
            ]
            steps = sorted(set(seeds[0]).intersection(*seeds[1:])) if seeds else []
            if steps:
                values = np.array([[seed[step] for step in steps] for seed in seeds])
                ax.plot(steps, np.median(values, 0), color=color, label=name.partition("@")[0], marker=".")
                ax.fill_between(steps, values.min(0), values.max(0), color=color, alpha=0.12, linewidth=0)
        ax.set_title(COLUMNS[column], fontsize=10)
        ax.set_xlabel("step of the arm", fontsize=8)
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
        if column in ("fast_ce", "chunk_mse"):
            ax.set_yscale("log")
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=9, fontsize=8, frameon=False
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<h3>From {start}</h3><div class="wide">'
        f'<img alt="curves of the arms from {start}" src="data:image/png;base64,{data}"></div>'
    )


STYLE = (
    "body{font:15px/1.55 system-ui,sans-serif;max-width:1180px;margin:40px auto;padding:0 20px;color:#1c2026}"
    "table{border-collapse:collapse;font-size:13px;margin-bottom:18px;font-variant-numeric:tabular-nums}"
    "td,th{padding:5px 12px 5px 0;text-align:left;vertical-align:top;border-bottom:1px solid #e3e6ea}"
    "th{color:#626b78;font-weight:500}.wide{overflow-x:auto}img{width:100%;min-width:1000px}"
    "h1{font-size:27px;line-height:1.25}h2{margin-top:36px}p{max-width:74ch}td:first-child{white-space:nowrap}"
    ".held{color:#26805b;font-weight:600}.failed{color:#c4372c;font-weight:600}.open{color:#626b78}"
)
