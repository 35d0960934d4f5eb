"""The collapse guard: says once, and with what to try, that a state no longer tells frames apart."""

from __future__ import annotations

from collections.abc import Mapping

from jepa_world_model.core.gradient_report import Advice
from jepa_world_model.core.task import Task
from jepa_world_model.data.batch import Batch
from jepa_world_model.diagnostics.evaluate import buildable, measuring, spread

STATES = ("z", "h", "p")
LOST_SPREAD = 0.01  # of the largest standard deviation so far
LEAST_SPREAD = 1e-4  # whatever it was before
LOST_RANK = 0.25  # of the largest effective rank so far
LEAST_RANK = 1.5  # of z and h: less is a line

REMEDIES = {
    "z": "try --loss-weights.sigreg 0.1 or --loss-weights.vicreg_var 1, raise a reconstruction loss, "
    "or keep prediction off the encoder with --detach-z-from-h-and-p",
    "h": "raise --loss-weights.inverse_dynamics_h or --loss-weights.h2z, which need h to tell frames apart, "
    "or lower the losses that prefer a still h (h_smooth, noop_still_h, action_delta_h)",
    "p": "raise --loss-weights.scale_dp, which asks that a move has length 1, "
    "or lower the losses that a still pose fulfils (additivity_dp, rollout_kstep_p, action_delta_dp)",
}


class CollapseGuard:
    """Compares rank and spread of each state with the best seen since the start of this process."""

    def __init__(self, start: Mapping[str, float]) -> None:
        self.best = dict(start)  # names without eval/
        self.told: set[str] = set()

    @classmethod
    def measured(cls, task: Task, batch: Batch) -> CollapseGuard:
        """A guard that starts from what the untrained (or resumed) model scores on this batch."""
        with measuring(task.model):
            names = buildable(task) & set(STATES)
            return cls(spread(task, task.states(batch.to(task.device), sorted(names))))

    def check(self, values: Mapping[str, float]) -> list[Advice]:
        """A sentence for each state that has newly collapsed in these eval/rank_* and eval/std_* numbers."""
        found = []
        for state in STATES:
            rank, std = values.get(f"eval/rank_{state}"), values.get(f"eval/std_{state}")
            signs = self._signs(state, "std", std, LOST_SPREAD, LEAST_SPREAD)
            signs += self._signs(state, "rank", rank, LOST_RANK, 0.0 if state == "p" else LEAST_RANK)
            if signs and state not in self.told:
                self.told.add(state)
                text = f"{state} collapses: {' and '.join(signs)}; {REMEDIES[state]}"
                found.append(Advice("collapse", state, (), text))
        return found

    def _signs(self, state: str, name: str, value: float | None, share: float, least: float) -> list[str]:
        """What is wrong with one number, if anything; the best so far is remembered."""
        if value is None:
            return []
        key, words = f"{name}_{state}", {"std": "standard deviation", "rank": "effective rank"}[name]
        best = self.best[key] = max(value, self.best.get(key, value))
        if value < share * best:
            return [f"its {words} is {value:.2g}, after {best:.2g}"]
        return [f"its {words} is only {value:.2g}"] if value < least else []
