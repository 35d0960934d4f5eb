"""Panels on the algebra of actions: straight lines, increments, undoing, order, sums."""

from __future__ import annotations

import numpy as np

from jepa_world_model.diagnostics import figures, probes
from jepa_world_model.diagnostics.page import details, escape, number, table
from jepa_world_model.diagnostics.panels.evidence import Evidence, Imagined, length, share
from jepa_world_model.diagnostics.panels.panel import PANELS, Found, MissingError, high, low
from jepa_world_model.diagnostics.panels.ways import name_of

STATES = ("z", "h", "p")
LEAST = 5  # samples that a mean is taken over


@PANELS(
    "straight",
    family="algebra",
    title="One action, a straight line",
    question="The same action again and again moves p along a straight line, and h without turning back.",
    limits={
        "p_straight": high(
            0.95, 0.8, "distance from start to end of the way of p, over the length of that way"
        ),
        "h_straight": high(0.5, 0.25, "the same of h, whose code of a place may be curved"),
    },
    next_move="p: raise --loss-weights.action-delta-dp and --loss-weights.additivity-dp, which ask that an "
    "action always does the same. h: raise --loss-weights.rollout-kstep-delta-h.",
)
def straight(seen: Evidence) -> Found:
    """How straight the ways of p and h are when one action is repeated in imagination."""
    said = seen.repeats
    free = _free(said)
    values = {}
    for name in ("p", "h"):
        if name in said.latents:
            ways = said.latents[name][free].astype(np.float64)  # [n,L+1,D]
            walked = length(np.diff(ways, axis=1)).sum(1)
            reached = length(ways[:, -1] - ways[:, 0])
            values[f"{name}_straight"] = share(float(reached.sum()), float(walked.sum()))
    told = ", ".join(f"{name[0]} {number(value)}" for name, value in values.items())
    steps = next(iter(said.latents.values())).shape[2] - 1
    return Found(values, f"Repeated {steps} times, the end lies as far as the way is long (1): {told}.",
                 lambda: _line_figure(said, free))  # fmt: skip


def _free(said: Imagined) -> np.ndarray:
    """Which sequences and starts count [S,N]: those that meet no wall, or all where none is free."""
    return said.free if said.free.sum() >= LEAST else np.ones_like(said.free)


def _line_figure(said: Imagined, free: np.ndarray) -> str:
    names = [name for name in ("p", "h") if name in said.latents]
    made, axes = figures.canvas(len(names), width=3.8, height=3.5)
    for ax, name in zip(axes, names, strict=True):
        ways = said.latents[name].astype(np.float64)
        ways = ways - ways[:, :, :1]
        ends = ways[free].reshape(-1, ways.shape[-1])
        plane = np.linalg.svd(ends, full_matrices=False)[2][:2]
        for number_, label in enumerate(said.labels):
            colour = figures.ACTIONS[number_ % len(figures.ACTIONS)]
            rows = np.flatnonzero(free[number_])[:12]
            flat = np.pad(ways[number_, rows] @ plane.T, ((0, 0), (0, 0), (0, 2 - len(plane))))
            for row, line in enumerate(flat):
                ax.plot(*line.T, color=colour, linewidth=1.2, alpha=0.7, label=label if row == 0 else None)
                ax.plot(*line[-1], marker="o", markersize=3, color=colour)
        ax.plot(0, 0, marker="+", markersize=9, color=figures.INK)
        ax.set_aspect("equal", "datalim")
        figures.title(ax, f"{name}, one action repeated")
    axes[0].legend(frameon=False, fontsize=8, labelcolor="linecolor")
    return f"<figure>{figures.svg(made, 'straight')}</figure>"


def _pieces(seen: Evidence, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Increments of a latent [n,D], their action ids [n], and which are of real moves [n]."""
    delta = np.diff(seen.latent(name).astype(np.float64), axis=1)
    counts = seen.moved & ~seen.noop
    return delta.reshape(-1, delta.shape[-1]), seen.action_id.reshape(-1), counts.reshape(-1)


def _of_actions(
    seen: Evidence, name: str
) -> tuple[dict[str, float], list[tuple[str, int, float, float, float]]]:
    """Readings of one latent's increments, and a row an action: name, count, length, alignment, spread over length."""
    delta, ids, counts = _pieces(seen, name)
    found = probes.increments_by_action(delta[counts], ids[counts], least=LEAST)
    if not found:
        return {}, []
    rows = []
    for i, one in found.items():
        mine = delta[counts & (ids == i)]
        align = share(float((mine @ one.mean).mean()), float((length(mine) * one.length).mean()))
        rows.append((name_of(seen.space, i), one.count, one.length, align, one.q))
    values = {
        "align": float(np.mean([row[3] for row in rows])),
        "q": float(np.mean([row[4] for row in rows])),
        "common": _common([one.mean for one in found.values()]),
    }
    pairs = probes.opposite_actions(seen.space.names)
    if seen.space.kind == "multi_binary":
        pairs = [(1 << a, 1 << b) for a, b in pairs]
    ratios = [
        probes.inverse_ratio(found[a].mean, found[b].mean) for a, b in pairs if a in found and b in found
    ]
    if ratios:
        values["inverse"] = float(np.mean(ratios))
    return values, rows


def _common(means: list[np.ndarray]) -> float:
    """The length of the mean of these increments over their mean length; nan where one action does all the moving."""
    sizes = length(np.stack(means))
    movers = sizes.sum() ** 2 / max(float((sizes**2).sum()), 1e-30)
    if movers < 1.5:
        return np.nan
    return share(float(length(np.mean(means, 0))), float(sizes.mean()))


def _of_vectors(seen: Evidence, name: str) -> dict[str, float]:
    """The same readings for continuous actions: what a linear map of the action leaves unexplained.

    The map has a constant part; what it says of an action and of its negative adds up to twice that part.
    """
    delta, _, counts = _pieces(seen, name)
    raw = seen.space.decode(seen.actions).reshape(len(delta), -1)[counts]
    delta = delta[counts]
    if len(delta) < LEAST * (raw.shape[1] + 1):
        return {}
    inputs = np.concatenate([raw, np.ones((len(raw), 1))], 1)
    weight = np.linalg.lstsq(inputs, delta, rcond=None)[0]
    guess, drift = inputs @ weight, weight[-1]
    there, back = guess, 2 * drift - guess
    return {
        "align": share(float((delta * guess).sum()), float((length(delta) * length(guess)).sum())),
        "q": share(float(np.sqrt(((delta - guess) ** 2).sum(1).mean())), float(length(guess).mean())),
        "common": share(float(length(drift)), float(length(guess).mean())),
        "inverse": share(2 * float(length(drift)), float((length(there) + length(back)).mean() / 2)),
    }


@PANELS(
    "increments",
    family="algebra",
    title="What an action does",
    question="In p an action does the same wherever it is taken, opposite actions cancel, a no-op and a blocked move do "
    "nothing; in z and h a no-op does little.",
    limits={
        "p_align": high(0.95, 0.8, "cosine between an increment of p and its action's mean"),
        "p_q": low(0.2, 0.4, "spread of an action's increments of p over their length"),
        "p_inverse": low(0.15, 0.4, "|mu_L + mu_R| / L of p over opposite actions: 0 cancels, 2 is a clock"),
        "p_common": low(
            0.2, 0.6, "length of the mean over actions of their increments of p, over the mean length"
        ),
        "p_noop": low(0.1, 0.25, "length of a no-op's increment of p over a move's"),
        "p_blocked": low(
            0.25,
            0.6,
            "increment of p of an action that changed nothing (a wall stopped it) over a free move's",
        ),
        "h_noop": low(0.3, 0.6, "length of a no-op's change of h over a move's"),
        "z_noop": low(0.1, 0.25, "length of a no-op's change of z over a move's"),
    },
    next_move="Opposites of p that do not cancel: configs/recommended.toml. No-ops of p: "
    "--loss-weights.noop-still-dp 1. Blocked moves: --loss-weights.pose-correct-dp 8. Spread: raise "
    "--loss-weights.action-delta-dp. No-ops of h: train longer; h keeps the last action while inverse_dynamics_h asks.",
)
def increments(seen: Evidence) -> Found:
    """Alignment, consistency, inverse, no-op and blocked ratios of the increments of p, h and z."""
    values, tables = {}, {}
    for name in (n for n in STATES if n in seen.latents):
        if seen.space.kind == "continuous":
            found, rows = _of_vectors(seen, name), []
        else:
            found, rows = _of_actions(seen, name)
        delta = np.diff(seen.latent(name), axis=1)
        moves = seen.moved & ~seen.noop
        found["noop"] = _over(delta, seen.noop, moves)
        if seen.blocked is not None:
            found["blocked"] = _over(delta, seen.blocked, moves)
        values |= {f"{name}_{key}": value for key, value in found.items()}
        tables[name] = rows
    if not values:
        raise MissingError(f"at least {LEAST} moves of one action")
    first = "p" if "p" in seen.latents else "h" if "h" in seen.latents else "z"
    words = {"q": "spread over length {}", "inverse": "opposite actions add up to {} of a move",
             "noop": "a no-op is {} of a move", "blocked": "a blocked move {}"}  # fmt: skip
    told = [
        words[k].format(number(values[f"{first}_{k}"]))
        for k in words
        if np.isfinite(values.get(f"{first}_{k}", np.nan))
    ]
    return Found(values, f"In {first}: {', '.join(told)}.", lambda: _increment_figure(seen, values, tables))


def _over(delta: np.ndarray, these: np.ndarray, moves: np.ndarray) -> float:
    """Mean length of these increments over that of moves; nan without both."""
    if these.sum() < LEAST or moves.sum() < LEAST:
        return np.nan
    return share(float(length(delta[these]).mean()), float(length(delta[moves]).mean()))


def _increment_figure(seen: Evidence, values: dict[str, float], tables: dict[str, list]) -> str:
    drawn = []
    for name in tables:
        delta = np.diff(seen.latent(name), axis=1)
        pick = np.linspace(0, delta[..., 0].size - 1, min(delta[..., 0].size, 800)).round().astype(int)
        flat = lambda x, pick=pick: x.reshape(-1, *x.shape[2:])[pick]
        arrays = {
            "increments": flat(delta), "increment_action": flat(seen.action_id), "increment_code": flat(seen.actions),
            "increment_noop": flat(seen.noop), "increment_moved": flat(seen.moved),
            "action_names": np.array(seen.space.names or [str(i) for i in range(seen.space.dim)]),
            "action_kind": np.array(seen.space.kind),
        }  # fmt: skip
        if name == "p":
            drawn.append(f"<figure>{figures.svg(figures.increments(arrays), 'increments of p')}</figure>")
    rows = [
        (escape(name), escape(label), f"{count:,}", number(long), number(align), number(q))
        for name, mine in tables.items() for label, count, long, align, q in mine
    ]  # fmt: skip
    keys = ("align", "q", "inverse", "common", "noop", "blocked")
    across = [(escape(name), *(number(values[f"{name}_{k}"]) if np.isfinite(values.get(f"{name}_{k}", np.nan)) else ""
                               for k in keys)) for name in tables]  # fmt: skip
    head = ("state", "alignment", "spread", "opposites", "common part", "no-op", "blocked")
    made = "".join(drawn) + table(across, head)
    if not rows:
        return made
    return made + details(
        "By action", table(rows, ("state", "action", "moves", "length", "alignment", "spread"))
    )


@PANELS(
    "returns",
    family="algebra",
    title="There and back",
    question="An action and then its inverse lead back to where one was, in z, h and p.",
    limits={
        "z_gap": low(0.3, 0.8, "distance of z from the start after both, over that after the first"),
        "h_gap": low(0.4, 0.9, "the same of h"),
        "p_gap": low(0.3, 0.8, "the same of p; 2 is a clock"),
    },
    next_move="h, z: --loss-weights.inverse-cycle-h 1, or longer training. p: --loss-weights.inverse-cycle-dp 1.",
)
def returns(seen: Evidence) -> Found:
    """The cycle error: how far the start is after an action and the one that undoes it."""
    said = seen.returns
    if said is None:
        raise MissingError(
            "actions that undo each other: names such as left and right, or continuous actions"
        )
    free, values = _free(said), {}
    rows: dict[str, list[str]] = {label: [] for label in said.labels}
    names = [name for name in STATES if name in said.latents]
    for name in names:
        ways = said.latents[name].astype(np.float64)
        back, there = length(ways[:, :, 2] - ways[:, :, 0]), length(ways[:, :, 1] - ways[:, :, 0])
        values[f"{name}_gap"] = share(float(back[free].mean()), float(there[free].mean()))
        for s, label in enumerate(said.labels):
            mine = free[s]
            gap = share(float(back[s][mine].mean()), float(there[s][mine].mean())) if mine.any() else np.nan
            rows[label].append(number(gap) if np.isfinite(gap) else "no free start")
    told = ", ".join(f"{name} {number(values[f'{name}_gap'])}" for name in names)
    listing = [(escape(label), *cells) for label, cells in rows.items()]
    return Found(values, f"After an action and its inverse the gap is, in moves: {told}.",
                 lambda: table(listing, ("action", *names)))  # fmt: skip


@PANELS(
    "orders",
    family="algebra",
    title="The order does not matter",
    question="Where the environment says that two actions commute, both orders end in the same z, h and p.",
    limits={
        "z_gap": low(
            0.25, 0.6, "distance of z between the two ends, over the distance that both are from the start"
        ),
        "h_gap": low(0.35, 0.7, "the same of h"),
        "p_gap": low(0.2, 0.5, "the same of p"),
    },
    next_move="h: raise --loss-weights.rollout-kstep-h, or turn on --loss-weights.additivity-h. p: raise "
    "--loss-weights.additivity-dp.",
)
def orders(seen: Evidence) -> Found:
    """Path independence: a then b against b then a, where both truly end in one place that is not the start."""
    said = seen.orders
    if said is None or said.places is None:
        raise MissingError("a simulator that tells which actions commute (gridworld and two_rooms have one)")
    ends = said.places[:, :, -1]
    same = np.abs(ends[0::2] - ends[1::2]).max(-1) < 1e-6  # [S/2,N]
    left = np.abs(ends[0::2] - said.places[0::2, :, 0]).max(-1) > 1e-6
    both = said.free[0::2] & said.free[1::2] & same & left
    if both.sum() < LEAST:
        raise MissingError(f"at least {LEAST} starts from which two actions commute and meet no wall")
    values = {}
    for name in (n for n in STATES if n in said.latents):
        ways = said.latents[name].astype(np.float64)
        moved = ways[:, :, -1] - ways[:, :, 0]
        gap = length(ways[0::2, :, -1] - ways[1::2, :, -1])[both]
        far = (length(moved[0::2]) + length(moved[1::2]))[both] / 2
        values[f"{name}_gap"] = share(float(gap.mean()), float(far.mean()))
    told = ", ".join(f"{name[0]} {number(value)}" for name, value in values.items())
    return Found(
        values, f"Over {both.sum():,} pairs, the two ends differ, in parts of the way made, by: {told}."
    )


@PANELS(
    "composition",
    family="algebra",
    title="Two steps add up",
    question="The increments of two actions, seen from the first state, are the two steps that were walked.",
    limits={
        "p_gap": low(0.15, 0.4, "distance between the two sums of p over the length of the two steps"),
        "h_gap": low(
            0.5, 1.0, "the same of h with the increments that action_delta_h expects; 1 expects nothing"
        ),
    },
    next_move="p: raise --loss-weights.additivity-dp. h: turn on --loss-weights.additivity-h.",
)
def composition(seen: Evidence) -> Found:
    """Two-step composition in p and in h."""
    values = {}
    if (sums := seen.pose_sums) is not None:
        gap, far = length(sums.first_then_second - sums.integrated), length(sums.integrated)
        values["p_gap"] = share(float(gap.mean()), float(far.mean()))
    if seen.h_two_steps is not None:
        expected, true = seen.h_two_steps
        values["h_gap"] = share(float(length(expected - true).mean()), float(length(true).mean()))
    if not values:
        raise MissingError("the increments of p (any loss on delta_p) or of h (action_delta_h)")
    told = ", ".join(f"{name[0]} {number(value)}" for name, value in values.items())
    return Found(values, f"Off by these parts of the two steps: {told}.")


@PANELS(
    "commutator",
    family="algebra",
    title="Increments commute",
    question="From one base state, a then b and b then a add up to the same increment of p.",
    limits={"p_commutator": low(0.15, 0.4, "gap between the two sums over their mean length")},
    next_move="Raise --loss-weights.additivity-dp or --loss-weights.action-delta-dp.",
)
def commutator(seen: Evidence) -> Found:
    """The commutator of increments of p."""
    sums = seen.pose_sums
    if sums is None:
        raise MissingError("the increments of p (any loss on delta_p)")
    here, there = sums.first_then_second[sums.differs], sums.second_then_first[sums.differs]
    if len(here) < LEAST:
        raise MissingError(f"at least {LEAST} pairs of different actions")
    far = float((length(here) + length(there)).mean()) / 2
    values = {"p_commutator": share(float(length(here - there).mean()), far)}
    return Found(values, f"The two orders differ by {number(values['p_commutator'])} of their length.")
