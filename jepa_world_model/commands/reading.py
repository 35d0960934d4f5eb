"""The flags of commands that read a data set: those of `--data.*`, with or without the prefix."""

from __future__ import annotations

import argparse

from jepa_world_model.core.config import field_comments
from jepa_world_model.data.sources import FORMATS, ReadOptions


def add_read_flags(parser: argparse.ArgumentParser) -> None:
    """Flags for every field of ReadOptions."""
    usual, group = ReadOptions(), parser.add_argument_group("how SRC is read (as --data.* in training)")
    for name, said in field_comments(ReadOptions).items():
        flag, value = name.replace("_", "-"), getattr(usual, name)
        names = (f"--{flag}", f"--data.{flag}") if name != "format" else ("--from", "--data.format")
        choices = ("auto", *FORMATS) if name == "format" else None
        group.add_argument(*names, dest=name, type=type(value), default=value, help=said, choices=choices)


def read_options(given: argparse.Namespace) -> ReadOptions:
    """The options of parsed flags. Errors: UserError for values that cannot be."""
    return ReadOptions(**{name: getattr(given, name) for name in field_comments(ReadOptions)})
