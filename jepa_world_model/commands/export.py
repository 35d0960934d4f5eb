"""`jepa-wm export RUN`: a run's model as a folder for others, with a card and programs, and onto the Hugging Face Hub."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str]) -> None:
    """Write the folder, print its files, and upload it where asked. Errors: UserError for what the user can mend."""
    parser = argparse.ArgumentParser(prog="jepa-wm export", description=__doc__)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--out", type=Path, help="folder to write; default: <run>/release")
    parser.add_argument("--step", type=int, help="of the checkpoint; default: the newest")
    parser.add_argument(
        "--no-programs", action="store_true", help="leave out the torch.export programs (*.pt2)"
    )
    parser.add_argument(
        "--push", metavar="OWNER/NAME", help="upload to the Hugging Face Hub; needs `hf auth login`"
    )
    parser.add_argument("--private", action="store_true", help="with --push: only you can see it")
    given = parser.parse_args(argv)
    from jepa_world_model.experiment.load import load
    from jepa_world_model.experiment.release import release
    from jepa_world_model.models.pretrained import require_login, upload

    if given.push:
        require_login()  # before any work is done
    run = load(given.run, device="cpu", step=given.step)
    folder = given.out or given.run / "release"
    for path in release(run, folder, programs=not given.no_programs):
        print(f"{path}  {path.stat().st_size / 1e6:.2f} MB")
    print(f'open it with: jepa_world_model.load("{folder}")')
    if given.push:
        print(upload(folder, given.push, private=given.private))
