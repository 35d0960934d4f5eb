"""The metrics that a reader needs named: what each means, and the bar it should clear."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One evaluation metric."""

    name: str  # without "eval/"; "{k}" stands for a number of steps
    title: str
    meaning: str
    better: str = "high"  # or "low"
    bar: float | None = None  # clear this to be better than the trivial answer
    aim: float | None = None
    trivial: str = ""  # who scores the bar
    rival: str = ""  # another metric whose value is the bar

    def met(self, value: float) -> bool | None:
        """Whether the bar is cleared; None where there is none, or no number."""
        if self.bar is None or not math.isfinite(value):
            return None
        return value < self.bar if self.better == "low" else value > self.bar


def _low(
    name: str, title: str, meaning: str, bar: float | None = None, trivial: str = "", **more: Any
) -> Metric:
    return Metric(name=name, title=title, meaning=meaning, better="low", bar=bar, trivial=trivial, **more)


def _high(
    name: str, title: str, meaning: str, bar: float | None = None, trivial: str = "", rival: str = ""
) -> Metric:
    return Metric(name=name, title=title, meaning=meaning, bar=bar, trivial=trivial, rival=rival)


METRICS: tuple[Metric, ...] = (
    _low("latent_one_step_ratio", "One-step error", "error of z_hat over that of repeating the last z",
         1.0, "repeating the last frame"),
    _low("latent_open_loop_ratio_k{k}", "Latent error, k = {k}",
         "rollout error over that of keeping the first z",
         1.0, "keeping the first frame"),
    _low("open_loop_ratio_k{k}", "Pixel error, k = {k}",
         "decoded rollout error over that of keeping the picture",
         1.0, "keeping the first picture"),
    _low("recon_mse", "Reconstruction error", "mean squared error of x_hat, pixels in [0, 1]"),
    _high("inverse_accuracy", "Action recovered", "exact action read off h[t] and h[t+1], made with it",
          trivial="the commonest action", rival="inverse_accuracy_majority"),
    _high("inverse_accuracy_unblocked", "Action recovered, unblocked",
          "the same on moves that moved, and no-ops",
          trivial="the commonest action", rival="inverse_accuracy_majority"),
    _high("inverse_accuracy_majority", "Commonest action",
          "what always answering the commonest action scores"),
    _high("inverse_r2", "Action recovered", "variance of a continuous action read off two states",
          0.0, "the mean action"),
    _high("probe_z_r2", "Position in z", "R2 of a linear probe on true position, other episodes",
          0.0, "the mean position"),
    _high("probe_h_r2", "Position in h", "R2 of a linear probe on true position, other episodes",
          0.0, "the mean position"),
    _high("probe_p_r2", "Displacement in p", "R2 of a linear probe on the way since the window's first frame",
          0.0, "blind dead reckoning", "probe_actions_r2"),
    _high("probe_actions_r2", "Displacement in actions",
          "the same probe on summed actions: blind dead reckoning"),
    _high("rank_accuracy", "Order by distance", "pairs of frames that p orders by true distance to the goal",
          0.5, "chance"),
    _high("rank_accuracy_minus_clock", "Order, beyond a clock",
          "the same, minus what the time index alone scores",
          0.0, "the time index"),
    _low("p_q", "Spread of an action", "spread of an action's increments over their length", 0.4, aim=0.2),
    _low("p_inverse_ratio", "Opposites cancel",
         "|mu_L + mu_R| / L over pairs of opposite actions", 0.4, aim=0.15),
    _low("p_noop_ratio", "A no-op stays", "length of a no-op's increment over a move's", 0.25, aim=0.1),
    _low("p_commutator", "Actions commute",
         "gap between a then b and b then a, over their length", 0.4, aim=0.15),
    _low("p_loop_residual", "Loops close", "pose gap between two visits of a place, over that of other pairs",
         1.0, "a pose that does not notice"),
    _high("rank_z", "Effective rank of z", "directions that z really uses", 1.0, "a line"),
    _high("rank_h", "Effective rank of h", "directions that h really uses", 1.0, "a line"),
    _high("rank_p", "Effective rank of p", "directions that p really uses", 1.0, "a line"),
    _high("std_z", "Spread of z", "mean standard deviation of a feature; 0 is a collapse"),
    _high("std_h", "Spread of h", "mean standard deviation of a feature; 0 is a collapse"),
    _high("std_p", "Spread of p", "mean standard deviation of a feature; 0 is a collapse"),
    _low("sigreg", "SIGReg", "the loss on the evaluation windows, between the two lines below",
         trivial="a collapse", rival="sigreg_collapse"),
    _low("sigreg_floor", "SIGReg floor", "what a perfect Gaussian scores on average"),
    _low("sigreg_collapse", "SIGReg collapse", "what constant states score at this batch size"),
    # of vision-language-action runs
    _low("chunk_mse", "Action error", "squared error of sampled chunks of actions, in normalised units"),
    _low("flow", "Flow loss", "flow-matching loss of the action expert"),
    _low("fast_ce", "Action token loss", "cross entropy of a FAST action token, in nats"),
    _high("fast_accuracy", "Action tokens right", "share of FAST action tokens that are foretold"),
    _low("text_ce", "Answer loss", "cross entropy of a token of an answer, in nats"),
    _high("vqa_open", "Questions answered", "share of held-out questions that are answered word for word"),
    _high("vqa_closed", "Questions answered, by choice", "the same, of the answers that such a question can have"),
    _high("pointing", "Places pointed at", "share of questions for a place that are answered with one on the target"),
    _high("success_seen", "Arms that arrive", "share of simulated arms that end on the target they were told"),
    _high("success_held_out", "Arms that arrive, new colours",
          "the same, with colours that no demonstration but only questions named"),
    _high("language_following_seen", "Arms that obey", "of the arms that end on any target, those that went where told"),
    _high("language_following_held_out", "Arms that obey, new colours", "the same, with colours only questions named"),
    _low("vlm_drift", "Drift of the VLM", "way of vision and language weights since action training began, over their norm"),
)  # fmt: skip

HEADLINES = (
    "latent_one_step_ratio", "open_loop_ratio_k{k}", "inverse_accuracy", "inverse_r2", "probe_z_r2",
    "probe_p_r2", "p_inverse_ratio", "p_noop_ratio", "rank_z",
    "chunk_mse", "success_seen", "success_held_out", "vqa_closed",
)  # fmt: skip
"""The metrics of a run's first screen, in order; those that were not measured are left out."""


RIVALS = frozenset(metric.rival for metric in METRICS if metric.rival)


def find(name: str) -> Metric | None:
    """The metric of a logged name, with or without "eval/", its number of steps filled in."""
    bare = name.removeprefix("eval/")
    for metric in METRICS:
        match = re.fullmatch(re.escape(metric.name).replace(r"\{k\}", r"(\d+)"), bare)
        if match:
            if not match.groups():
                return metric
            return replace(metric, name=bare, title=metric.title.replace("{k}", match.group(1)))
    return None
