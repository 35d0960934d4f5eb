"""From verdicts to a name: which known fault explains what the panels show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from jepa_world_model.diagnostics.page import number
from jepa_world_model.diagnostics.panels.panel import Panel

Panels = Mapping[str, Panel]


@dataclass(frozen=True)
class Fault:
    """A fault that was found."""

    name: str
    title: str  # the finding in a few words
    text: str  # what shows it
    next_move: str


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A known fault: when it is there, what shows it, and which others follow from it."""

    name: str
    title: str
    shows: Callable[[Panels], bool]
    evidence: tuple[
        str, ...
    ]  # clauses; readings stand in them as {panel.reading}, one not measured drops its clause
    next_move: str
    explains: tuple[str, ...] = ()  # faults that are not named beside this one

    def found(self, panels: Panels) -> Fault | None:
        """The fault, where these panels show it."""
        if not self.shows(panels):
            return None
        text = "; ".join(self.evidence)
        for name, panel in panels.items():
            for one in panel.readings:
                text = text.replace(f"{{{name}.{one.name}}}", number(one.value))
        told = [clause for clause in text.split("; ") if "{" not in clause]
        return Fault(self.name, self.title, f"{'; '.join(told)}.", self.next_move)


def _fails(panel: str, *readings: str) -> Callable[[Panels], bool]:
    return lambda panels: panels[panel].failed(*readings)


def _clock(panels: Panels) -> bool:
    """Moves share a direction, so that opposite ones add up instead of cancelling."""
    rows = panels["increments"]
    drifts = rows.failed("p_inverse") and rows["p_common"] >= 0.4 and not rows.failed("p_q")
    return rows.failed("p_common") or drifts


def _deaf(panels: Panels) -> bool:
    """Another action changes nothing: not h, or not a prediction that is good otherwise."""
    row = panels["actions"]
    return row.failed("h_effect") or (row.failed("error_ratio") and panels["rollouts"].verdict != "fail")


OF_P = ("p_still", "p_clock", "p_erratic", "p_walls")

RULES: tuple[Rule, ...] = (  # causes before what follows from them
    Rule(
        name="z_collapsed", title="z has collapsed", shows=_fails("spread", "z_std", "z_rank"),
        explains=("z_blind", "h_collapsed", "ignores_actions", "copies", "unstable", *OF_P),
        evidence=("frames look alike to the model: a feature of z varies by {spread.z_std} (about 1 is healthy) along "
                  "{spread.z_rank} directions", "what else fails follows from it until z is mended"),
        next_move="Give z a reason to differ: --loss-weights.recon-multi-box 1, --loss-weights.sigreg 0.1 or "
                  "--loss-weights.vicreg-var 1; or keep prediction off the encoder with --detach-z-from-h-and-p.",
    ),
    Rule(
        name="z_blind", title="z does not show where things are", shows=_fails("position", "z_r2"),
        evidence=("a linear map of z explains {position.z_r2} of the true position",),
        next_move="Raise a reconstruction loss, give z more --model.keypoints, or train longer.",
    ),
    Rule(
        name="h_collapsed", title="h has collapsed", shows=_fails("spread", "h_std", "h_rank"),
        evidence=("a feature of h varies by {spread.h_std} along {spread.h_rank} directions",),
        explains=("ignores_actions", "copies", "unstable", "p_walls"),
        next_move="Raise --loss-weights.h2z and --loss-weights.inverse-dynamics-h, which need h to differ, or "
                  "lower the losses that a still h fulfils (h_smooth, noop_still_h, action_delta_h).",
    ),
    Rule(
        name="ignores_actions", title="h ignores actions", shows=_deaf,
        explains=("copies",),
        evidence=("with swapped actions the one-step error is {actions.error_ratio} times that with the true ones, where 1 "
                  "means that they make no difference", "another action moves the next h by {actions.h_effect} of a step"),
        next_move="Check in the data that actions precede the frames they cause and that they vary; raise "
                  "--loss-weights.action-delta-h and --loss-weights.inverse-dynamics-h, or train longer.",
    ),
    Rule(
        name="unstable", title="long rollouts leave their range", shows=_fails("norms", "h_factor", "z_factor"),
        explains=("copies",),
        evidence=("fed on itself, the length of h changes by a factor of {norms.h_factor}",
                  "that of z by {norms.z_factor}"),
        next_move="Keep --model.predictor-layer-norm on, turn on --model.spectral-norm, or raise "
                  "--rollout-horizon.",
    ),
    Rule(
        name="copies", title="prediction is no better than copying",
        shows=_fails("rollouts", "z_ratio_1", "z_ratio_k"),
        evidence=("the error of z over that of keeping the first frame is {rollouts.z_ratio_1} after one step and "
                  "{rollouts.z_ratio_k} after the longest rollout",),
        next_move="Train longer, or slow what the predictor chases: --optim.lr-scale encoder 0.02.",
    ),
    Rule(
        name="p_still", title="p stands still", shows=_fails("spread", "p_step"),
        evidence=("a move's increment of p is {spread.p_step} long",), explains=OF_P[1:],
        next_move="Raise --loss-weights.scale-dp, which asks that a move has length 1.",
    ),
    Rule(
        name="p_clock", title="p is a clock", shows=_clock, explains=OF_P[2:],
        evidence=("all actions push p the same way: what they share is {increments.p_common} of a move (0 is right)",
                  "opposite actions add up to {increments.p_inverse} of a move (0 is right, 2 is a clock)",
                  "p orders frames by {ranking.p_beyond_clock} better than the time index does"),
        next_move="Take out what a clock fulfils, --loss-weights.geometry-rank-p 0, and ask for what it cannot have: "
                  "--loss-weights.loop-closure-p 1 --loss-weights.action-delta-dp 8 --loss-weights.pose-measure-p 1 "
                  "--loss-weights.pose-correct-dp 1, as configs/recommended.toml does.",
    ),
    Rule(
        name="p_erratic", title="an action does not do one thing in p", shows=_fails("increments", "p_q", "p_align"),
        explains=OF_P[3:],
        evidence=("the increments of one action spread by {increments.p_q} of their length around its mean",),
        next_move="Raise --loss-weights.action-delta-dp and --loss-weights.additivity-dp; where "
                  "--loss-weights.loop-closure-p is on, lower it or its scale.",
    ),
    Rule(
        name="p_walls", title="p moves where nothing moved", shows=_fails("increments", "p_blocked"),
        evidence=("an action without effect, such as a move that a wall blocks, changes p by {increments.p_blocked} of what "
                  "a free move does (0 is right)",),
        next_move="Set --loss-weights.pose-correct-dp 8, as configs/pose_planning.toml does: it takes from z that a "
                  "blocked move is none, against scale_dp and action_delta_dp, which know no walls; and train on walks "
                  "that meet walls.",
    ),
)  # fmt: skip


def name_faults(panels: Panels) -> list[Fault]:
    """The faults that these panels show, causes first; what a cause explains is left out."""
    found, explained = [], set()
    for rule in RULES:
        fault = rule.found(panels)
        if fault is not None and rule.name not in explained:
            found.append(fault)
            explained.update(rule.explains)
    return found


def summarise(panels: Panels, faults: list[Fault]) -> str:
    """One line on the model: the faults by name, or that none was found."""
    count = {
        word: sum(p.verdict == word for p in panels.values())
        for word in ("pass", "warn", "fail", "not measured")
    }
    tail = ", ".join(f"{number_} {word}" for word, number_ in count.items() if number_)
    if faults:
        return f"{'; '.join(fault.title for fault in faults)} ({tail})"
    failing = [p.title for p in panels.values() if p.verdict == "fail"]
    if failing:
        fail = "panels fail" if len(failing) > 1 else "panel fails"
        return f"no known fault, but {len(failing)} {fail}: {'; '.join(failing)} ({tail})"
    return f"no fault found ({tail})"
