"""Floor 6: the subcommands of `jepa-wm`, one file each with `main(argv) -> None`.

Where the flags alone do not need the package's upper floors, these are imported once the flags are read: so `--help` and
a mistyped flag do not wait two seconds for torch.
"""

from __future__ import annotations

COMMANDS = {  # name -> (module, or module:function, that takes the flags; what it does)
    "train": ("jepa_world_model.commands.train", "train a world model"),
    "collect": ("jepa_world_model.commands.collect", "record episodes of any Gymnasium environment"),
    "convert": ("jepa_world_model.commands.convert", "write a data set in another format"),
    "inspect": ("jepa_world_model.commands.inspect", "look at a data set: statistics, pictures, warnings"),
    "gradients": ("jepa_world_model.commands.gradients", "show and prove which loss moves which module"),
    "plan": ("jepa_world_model.commands.plan", "plan with a run in closed loop, beside chance and an oracle"),
    "plan-page": (
        "jepa_world_model.commands.plan_page",
        "write a page to pick start and goal on and watch plans",
    ),
    "report": ("jepa_world_model.commands.report", "write the report page of a run again"),
    "diagnose": ("jepa_world_model.commands.diagnose", "question a run's model and name its fault"),
    "export": ("jepa_world_model.commands.export", "write a run's model for others: weights, card, programs"),
    "runs": ("jepa_world_model.commands.runs", "write or serve one page over many runs, to compare them"),
    "diff": ("jepa_world_model.commands.diff", "tell what two runs or configurations differ in"),
    "replay": ("jepa_world_model.commands.replay", "compute a step that went wrong once more"),
    "ablate": (
        "jepa_world_model.commands.ablate",
        "compare runs with losses left out or added, or gates turned",
    ),
    "ki-train": (
        "jepa_world_model.vla_ki.train:train_command",
        "train a vision-language-action model, insulated",
    ),
    "ki-eval": (
        "jepa_world_model.vla_ki.evaluate:eval_main",
        "measure such a run: answers, actions, simulator",
    ),
    "ki-check": (
        "jepa_world_model.vla_ki.check:check_main",
        "prove the barrier of a configuration, ten ways",
    ),
    "completion": ("jepa_world_model.commands.completion", "print a script that completes flags in a shell"),
    "docs": ("jepa_world_model.commands.docs", "write the generated pages of docs/"),
}
