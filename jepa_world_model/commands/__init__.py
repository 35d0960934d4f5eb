"""Floor 6: the subcommands of `jepa-wm`, one file each with `main(argv) -> None`."""

from __future__ import annotations
