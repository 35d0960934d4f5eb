"""`jepa-wm plan RUN`: plan with a trained model in closed loop, beside chance, an untrained model and perfect dynamics."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from jepa_world_model.core.config import load_config
from jepa_world_model.core.errors import UserError
from jepa_world_model.core.run import atomic_write
from jepa_world_model.diagnostics.plan_pictures import episodes_gif, episodes_png
from jepa_world_model.experiment.load import load
from jepa_world_model.experiment.plan import (
    evaluate_plans,
    manifest,
    open_planning,
    untrained_model,
    write_results,
)
from jepa_world_model.experiment.plan_config import PlanConfig
from jepa_world_model.planning.scores import table_text

OWN_FLAGS = ("--checkpoint", "--label", "--device")


def main(argv: Sequence[str]) -> None:
    """Evaluate, print the table of arms, and write <run>/planning/<label>/.

    Errors: UserError for a folder that is no run, a world that cannot be planned in, or a model without the
    part that the cost needs.
    """
    words, own = list(argv), {}
    for flag in OWN_FLAGS:
        if flag in words:
            at = words.index(flag)
            if at + 1 >= len(words):
                raise UserError(f"{flag} takes a value")
            own[flag] = words[at + 1]
            del words[at : at + 2]
    run = words.pop(0) if words and not words[0].startswith("-") else None
    plan = load_config(
        PlanConfig, words, prog="jepa-wm plan RUN",
        description=f"{__doc__} Besides: --checkpoint STEP (the newest), --label NAME of the results, --device cpu.",
    )  # fmt: skip
    if run is None:
        raise UserError("name the run to plan with: jepa-wm plan runs/<name>")
    step = own.get("--checkpoint", "")
    if step and not step.isdigit():
        raise UserError(f"--checkpoint takes the number of a step, got {step!r}")
    loaded = load(run, device=own.get("--device", "cpu"), step=int(step) if step else None)
    planning = open_planning(plan, loaded.cfg)
    label = own.get("--label") or "-".join((planning.world.name, plan.planner, plan.cost, f"s{plan.seed}"))
    if not re.fullmatch(r"[\w.+-]+", label):
        raise UserError(f"--label {label!r} is no folder name; use letters, digits, . _ + and -")
    arms, episodes = evaluate_plans(planning, loaded.model, lambda: untrained_model(loaded.cfg), print)
    folder = Path(run) / "planning" / label
    write_results(folder, planning, manifest(planning, loaded.model, loaded.step), arms, episodes)
    if plan.pictures:
        atomic_write(folder / "episodes.png", episodes_png(planning.world, episodes, plan.pictures))
        atomic_write(folder / "episodes.gif", episodes_gif(planning.world, episodes, plan.pictures))
    print(table_text(arms))
    model = arms["model"]
    print(
        f"solved at start: {model['solved_at_start']:.1%}   {model['candidate_steps_per_s']:,} candidate-steps/s, "
        f"{model['ms_a_plan_of_all_episodes']:.0f} ms for the plans of {plan.episodes} episodes"
    )
    print(f"results: {folder / 'results.json'}")
