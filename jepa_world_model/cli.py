"""The command `jepa-wm`: one subcommand a task, each imported only when it is called."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from jepa_world_model import __version__

COMMANDS = {  # name -> (module, or module:function, that takes the flags; what it does)
    "train": ("jepa_world_model.commands.train", "train a world model"),
    "collect": ("jepa_world_model.commands.collect", "record episodes of any Gymnasium environment"),
    "convert": ("jepa_world_model.commands.convert", "write a data set in another format"),
    "inspect": ("jepa_world_model.commands.inspect", "look at a data set: statistics, pictures, warnings"),
    "gradients": ("jepa_world_model.commands.gradients", "show and prove which loss moves which module"),
    "plan": ("jepa_world_model.commands.plan", "plan with a run in closed loop, beside chance and an oracle"),
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


def usage() -> str:
    """The list of subcommands."""
    width = max(map(len, COMMANDS))
    rows = [f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        ["usage: jepa-wm COMMAND [options]", "", *rows, "", "`jepa-wm COMMAND --help` tells the options."]
    )


def report(folder: Path) -> int:
    """Write the page of a finished run; of several processes the first does."""
    if os.environ.get("RANK", "0") == "0":
        from jepa_world_model.diagnostics.report import write_report

        print(f"report: {write_report(folder)}", file=sys.stderr)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; 0 when it went well, 1 when a check failed, 2 for what the user can mend."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if argv[0] == "--version":
        print(__version__)
        return 0
    from jepa_world_model.core.config import cli_main
    from jepa_world_model.core.errors import UserError
    from jepa_world_model.core.graph import unknown

    def run() -> int | None:
        if argv[0] not in COMMANDS:
            raise UserError(unknown("command", argv[0], COMMANDS))
        module, _, function = COMMANDS[argv[0]][0].partition(":")
        done = getattr(importlib.import_module(module), function or "main")(argv[1:])
        return report(done) if isinstance(done, Path) else done

    return cli_main(run)


if __name__ == "__main__":
    sys.exit(main())
