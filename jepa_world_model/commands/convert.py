"""`jepa-wm convert SRC DST --to FORMAT`: a data set in another format; without loss unless asked otherwise."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from jepa_world_model.commands.reading import add_read_flags, read_options
from jepa_world_model.data.sources import FORMATS, WriteOptions
from jepa_world_model.data.sources.convert import convert


def main(argv: Sequence[str]) -> None:
    """Convert, read back, and say whether anything was lost. Errors: UserError for what the user can mend."""
    parser = argparse.ArgumentParser(prog="jepa-wm convert", description=__doc__)
    parser.add_argument("src", type=Path, help="folder or file of a data set, in any known format")
    parser.add_argument("dst", type=Path, help="what to write; must not exist")
    parser.add_argument("--to", required=True, choices=tuple(FORMATS), help="format to write")
    parser.add_argument(
        "--crf",
        type=int,
        default=0,
        help="of videos: 0 keeps every pixel (default); 12 to 28 is smaller and lossy",
    )
    add_read_flags(parser)
    given = parser.parse_args(argv)
    made = convert(given.src, given.dst, given.to, read_options(given), WriteOptions(crf=given.crf))
    print(made.summary)
    size = sum(p.stat().st_size for p in [given.dst, *given.dst.rglob("*")] if p.is_file())
    print(f"\n{made.source} -> {made.target}: {given.dst}, {size / 1e6:.1f} MB")
    if made.lossless:
        print("lossless: the first episode was read back equal")
    else:
        print(
            f"LOSSY (crf {given.crf}): pixels of the first episode are off by {made.mean_error:.1f} of 255 on average, "
            f"by {made.max_error} at most; actions and states are exact"
        )
