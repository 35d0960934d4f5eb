"""`jepa-wm inspect SRC`: what a data set holds, in numbers and pictures, and what about it would spoil a training."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from jepa_world_model.commands.reading import add_read_flags, read_options
from jepa_world_model.core.errors import UserError
from jepa_world_model.data.episodes import describe
from jepa_world_model.data.inspection import Inspection, contact_sheet, inspect
from jepa_world_model.data.sources import detect, open_episodes
from jepa_world_model.diagnostics.data_page import sheet_picture, write_page
from jepa_world_model.diagnostics.page import number

BLOCKS = " ▁▂▃▄▅▆▇█"


def main(argv: Sequence[str]) -> None:
    """Print the numbers and warnings; write the page and the contact sheet where asked."""
    parser = argparse.ArgumentParser(prog="jepa-wm inspect", description=__doc__)
    parser.add_argument("src", type=Path, help="folder or file of a data set, in any known format")
    parser.add_argument("--page", type=Path, help="write one HTML page with everything, such as inspect.html")
    parser.add_argument("--sheet", type=Path, help="write the contact sheet, such as sheet.png")
    parser.add_argument("--rows", type=int, default=6, help="of the contact sheet: episodes")
    parser.add_argument("--columns", type=int, default=12, help="of the contact sheet: frames of an episode")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON instead of text")
    parser.add_argument(
        "--window", type=int, default=12, help="frames a window of training will have (seq_len)"
    )
    parser.add_argument(
        "--cache-dir", default="datasets", help="where data sets are decoded to, as in training"
    )
    add_read_flags(parser)
    given = parser.parse_args(argv)
    for target, suffix in ((given.page, ".html"), (given.sheet, ".png")):
        if target is not None and (target.suffix != suffix or not target.parent.is_dir()):
            raise UserError(f"{target} must end in {suffix} and lie in a folder that exists")
    if min(given.rows, given.columns) < 1:
        raise UserError(f"a contact sheet of {given.rows} x {given.columns} frames is empty; use 1 and above")
    options = read_options(given)
    format = detect(given.src, options.format)
    episodes = open_episodes(given.src, options, cache_dir=given.cache_dir)
    found = inspect(episodes, window=given.window)
    sheet = {"rows": given.rows, "columns": given.columns}
    pictures = contact_sheet(episodes, **sheet) if given.page or given.sheet else None
    if given.page:
        write_page(given.page, found, pictures, source=str(given.src))
    if given.sheet:
        from PIL import Image

        Image.fromarray(sheet_picture(pictures)).save(given.sheet)
    if given.json:
        print(json.dumps({"source": str(given.src), "format": format.name, **found.to_json()}, indent=1))
        return
    print(f"{given.src}: {format.name}\n\n{describe(episodes)}\n{_text(found)}")
    for target in filter(None, (given.page, given.sheet)):
        print(f"written  {target}")


def _text(found: Inspection) -> str:
    """The numbers that `describe` does not tell, and the warnings."""
    mean, std = (", ".join(map(number, values)) for values in (found.pixel_mean, found.pixel_std))
    lines = [
        f"pixels   mean {mean}; spread {std} (of 255, by channel)",
        f"change   {found.still_share:.1%} of moves leave the frame as it was",
    ]
    if found.action_kind == "continuous":
        width = max(len(h.name) for h in found.actions)
        for h in found.actions:
            most = max([*h.counts, 1])
            bars = "".join(BLOCKS[-(-8 * n // most)] for n in h.counts)
            lines.append(f"  {h.name:<{width}}  {number(h.edges[0]):>8} |{bars}| {number(h.edges[-1])}")
    lines += (
        ["", *(f"warning: {words}" for words in found.warnings)] if found.warnings else ["", "no warnings"]
    )
    return "\n".join(lines)
