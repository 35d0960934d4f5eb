"""The command `jepa-wm`: one subcommand a task, each imported only when it is called."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from jepa_world_model import __version__
from jepa_world_model.commands import COMMANDS

__all__ = ["COMMANDS", "main", "usage"]


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

    def run() -> int | None:
        if argv[0] not in COMMANDS:
            from jepa_world_model.core.graph import unknown

            raise UserError(unknown("command", argv[0], COMMANDS))
        module, _, function = COMMANDS[argv[0]][0].partition(":")
        done = getattr(importlib.import_module(module), function or "main")(argv[1:])
        return report(done) if isinstance(done, Path) else done

    return cli_main(run)


if __name__ == "__main__":
    sys.exit(main())
