"""The command line that every benchmark has: its docstring as the help, line by line as it stands there."""

from __future__ import annotations

import argparse


def flags_of(doc: str | None) -> argparse.ArgumentParser:
    """A parser that shows `doc`, a module's docstring, unfolded."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
