"""Panels on prediction: rollouts against copying, what memory and actions contribute, drift and stability."""

from __future__ import annotations

import numpy as np

from jepa_world_model.diagnostics import charts, figures
from jepa_world_model.diagnostics.page import escape, number, picture, table
from jepa_world_model.diagnostics.panels.evidence import Evidence, length, share
from jepa_world_model.diagnostics.panels.panel import PANELS, Found, MissingError, high, low
from jepa_world_model.diagnostics.panels.ways import name_of


def squared(one: np.ndarray, other: np.ndarray) -> float:
    """Mean squared difference."""
    return float(((one.astype(np.float64) - other) ** 2).mean())


@PANELS(
    "rollouts",
    family="prediction",
    title="Rollouts against copying",
    question="Fed on itself, the model is nearer to what happens than the first frame, and its error grows no "
    "faster than the number of steps.",
    limits={
        "z_ratio_1": low(0.5, 1.0, "squared error of z after 1 step over that of keeping z"),
        "z_ratio_k": low(0.6, 1.0, "the same after the longest rollout, K steps"),
        "pixel_ratio_k": low(0.7, 1.0, "the same of decoded pictures after K steps"),
        "growth": low(1.5, 4.0, "distance of z after K steps over K times that after 1; 1 is linear"),
    },
    next_move="Train longer; raise --loss-weights.rollout-kstep-h or turn on --loss-weights.jepa-open-loop; if the first "
    "step is already bad, slow the encoder (--optim.lr-scale encoder 0.02).",
)
def rollouts(seen: Evidence) -> Found:
    """Errors by the number of self-fed steps, beside those of keeping the first state."""
    fed, K = seen.self_fed, seen.horizon
    true, guess = fed.true["z"], fed.open["z"]
    ratio = [share(squared(guess[k], true[k]), squared(true[0], true[k])) for k in range(1, K + 1)]
    far = [float(length(guess[k] - true[k]).mean()) for k in range(1, K + 1)]
    values = {"z_ratio_1": ratio[0], "z_ratio_k": ratio[-1], "growth": share(far[-1], K * far[0])}
    sentence = (
        f"After {K} steps the error of z is {number(ratio[-1])} of copying's, after one {number(ratio[0])}"
    )
    if fed.pixel_ratio is not None:
        values["pixel_ratio_k"] = float(fed.pixel_ratio[-1])
        sentence += f"; decoded, {number(values['pixel_ratio_k'])}"
    return Found(values, sentence + ".", lambda: _rollout_figure(seen, ratio, far))


def _rollout_figure(seen: Evidence, ratio: list[float], far: list[float]) -> str:
    fed, steps = seen.self_fed, np.arange(1, seen.horizon + 1)
    curve = lambda y: charts.Series(steps[np.isfinite(y)], np.asarray(y)[np.isfinite(y)])
    cards = [
        charts.line_chart(
            "error of z over copying's", [curve(ratio)], bar=1.0, sub="dashed: copying", axis="k"
        ),
        charts.line_chart("distance from the true z", [curve(far)], sub="linear growth is right", axis="k"),
    ]
    if fed.pixel_ratio is not None:
        pixel = curve(fed.pixel_ratio)
        cards.append(
            charts.line_chart("pixel error over copying's", [pixel], bar=1.0, sub="dashed: copying", axis="k")
        )
    made = charts.charts(cards)
    if fed.film is not None and fed.film_true is not None:
        for i in range(len(fed.film)):
            rows = figures.rollout_rows({"open_loop": fed.film, "open_loop_true": fed.film_true}, i)
            names = "".join(f"<span>{escape(name)}</span>" for name in rows)
            strip = picture(figures.grid(list(rows.values())), f"rollout {i + 1}")
            made += f'<div class="rows"><div>{names}</div>{strip}</div>'
    return made


@PANELS(
    "actions",
    family="prediction",
    title="Actions matter",
    question="With another action than the one taken the prediction is worse: a model that ignores actions scores 1.0.",
    limits={
        "error_ratio": high(
            1.5, 1.05, "one-step error of z with swapped actions over that with the true ones"
        ),
        "h_effect": high(0.5, 0.1, "how far another action moves the next h, over how far h moves in a step"),
    },
    next_move="The predictor does not hear the action: check in the data that actions precede the frames they cause and "
    "that they vary; raise --loss-weights.action-delta-h and --loss-weights.inverse-dynamics-h.",
)
def actions(seen: Evidence) -> Found:
    """The action-shuffle ablation, on z and on h."""
    one = seen.one_step
    error, spoilt = (squared(guess["z"], one.true["z"]) for guess in (one.after, one.swapped))
    # A perfect prediction would divide by nothing: what is below a 10,000th of copying's error is not told apart.
    least = 1e-4 * squared(one.now["z"], one.true["z"])
    values = {"error_ratio": share(spoilt, max(error, least))}
    role = "h" if "h" in one.after else "z"
    moved = float(length(one.true[role] - one.now[role]).mean())
    values["h_effect"] = share(float(length(one.after[role] - one.swapped[role]).mean()), moved)
    return Found(
        values,
        f"Swapped actions make the one-step error {number(values['error_ratio'])} times as large; "
        f"they move the next {role} by {number(values['h_effect'])} of a usual step.",
    )


@PANELS(
    "memory",
    family="prediction",
    title="Memory matters",
    question="With zeros in the place of h the prediction is worse: h carries something that the last frame does not.",
    limits={"error_ratio": high(1.2, 0.95, "one-step error of z with zeros for h over that with h")},
    next_move="Below 1: h does harm, so train longer, or raise --loss-weights.rollout-kstep-h. Near 1: one frame tells the "
    "world, or h is not used; compare with a run with --force-h-zero.",
)
def memory(seen: Evidence) -> Found:
    """The h zero-out ablation."""
    one = seen.one_step
    if one.no_memory is None:
        raise MissingError("a model whose state has an h that can be set to zeros")
    error, blank = squared(one.after["z"], one.true["z"]), squared(one.no_memory, one.true["z"])
    copying = squared(one.now["z"], one.true["z"])
    values = {
        "error_ratio": share(blank, max(error, 1e-4 * copying)),
        "with_h": share(error, copying),
        "without_h": share(blank, copying),
    }
    return Found(
        values,
        f"Over copying the last frame, the one-step error is {number(values['with_h'])} with h and "
        f"{number(values['without_h'])} with zeros.",
    )


@PANELS(
    "drift",
    family="prediction",
    title="Drift by action",
    question="Whichever action is taken, a self-fed h stays with the h of the true frames.",
    limits={
        "worst": low(
            0.5, 1.5, "distance between the two after K steps, in median moves of h, of the worst last action"
        ),
        "worst_over_mean": low(1.5, 3.0, "the worst action's drift over the mean action's"),
    },
    next_move="One action alone: collect more of it, or look at what it does in the filmstrips. All: raise "
    "--loss-weights.rollout-kstep-h, or train longer.",
)
def drift(seen: Evidence) -> Found:
    """How far imagined and true h part, by the action that was taken last."""
    fed = seen.self_fed
    if "h" not in fed.open:
        raise MissingError("a model with h")
    moves = length(np.diff(seen.latent("h"), axis=1))
    scale = float(np.median(moves[seen.moved])) if seen.moved.any() else np.nan
    gap = length(fed.open["h"] - fed.true["h"])  # [K+1,n]
    last, final = fed.action_id[-1], gap[-1]
    ids = [i for i in np.unique(last) if (last == i).sum() >= 5]
    mean = {int(i): share(float(final[last == i].mean()), scale) for i in ids}
    if not mean:
        raise MissingError("at least five rollouts that end with the same action")
    worst = max(mean, key=lambda i: mean[i])
    values = {
        "worst": mean[worst],
        "worst_over_mean": share(mean[worst], float(np.mean(list(mean.values())))),
    }
    name = lambda i: "any action" if i < 0 else name_of(seen.space, i)

    def figure() -> str:
        steps = np.arange(1, len(gap), dtype=float)
        curve = charts.Series(steps, gap[1:].mean(1) / scale)
        card = charts.line_chart("drift of h, median moves", [curve], sub="mean over all actions", axis="k")
        rows = [
            (escape(name(i)), number(mean[i]), f"{(last == i).sum():,}")
            for i in sorted(mean, key=lambda i: -mean[i])
        ]
        return charts.charts([card]) + table(rows, ("last action", "drift", "rollouts"))

    which = f" where {name(worst)} came last, which is the worst" if len(mean) > 1 else ""
    return Found(
        values, f"After {seen.horizon} steps h is off by {number(mean[worst])} of a move{which}.", figure
    )


@PANELS(
    "norms",
    family="prediction",
    title="Long rollouts stay in range",
    question="Far beyond the horizon of training, h and z neither explode nor die.",
    limits={
        "h_factor": low(1.5, 3.0, "how far the length of h leaves its usual one, as a factor, over 64 steps"),
        "z_factor": low(1.5, 3.0, "the same of z"),
    },
    next_move="Keep --model.predictor-layer-norm on, or turn on --model.spectral-norm; raise --rollout-horizon.",
)
def norms(seen: Evidence) -> Found:
    """Lengths of self-fed states over many steps, against those of true frames."""
    values, cards, told = {}, [], []
    for name, sizes in seen.norms.items():
        usual = float(np.median(length(seen.flat(name))))
        middle = np.median(sizes.astype(np.float64), axis=1)
        finite = bool(np.isfinite(middle).all())
        off = np.abs(np.log(np.maximum(middle, 1e-12) / max(usual, 1e-12))).max() if finite else np.log(1e6)
        values[f"{name}_factor"] = float(np.exp(min(off, np.log(1e6)))) if usual > 1e-9 else np.nan
        told.append(f"{name} by a factor of {number(values[f'{name}_factor'])}")
        if finite:
            curve = charts.Series(np.arange(len(middle), dtype=float), middle)
            cards.append(
                charts.line_chart(
                    f"length of {name}", [curve], bar=usual, sub="dashed: of true frames", axis="k"
                )
            )
    steps = len(next(iter(seen.norms.values()))) - 1 if seen.norms else 0
    return Found(
        values,
        f"Over {steps} steps the length leaves its usual one: {', '.join(told)}.",
        lambda: charts.charts(cards),
    )
