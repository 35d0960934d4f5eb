"""docs/python.md: its table names the programs there are. Its blocks: tests/test_code_blocks.py."""

from __future__ import annotations

import re
from pathlib import Path

import jepa_world_model as jwm
from jepa_world_model.models.programs import programs

PAGE = (Path(__file__).parents[1] / "docs" / "python.md").read_text(encoding="utf-8")


def test_every_program_of_the_table_is_exported(trained):
    listed = re.findall(r"^\| `(\w+)\.pt2` \|", PAGE, re.MULTILINE)
    model = jwm.load(trained, device="cpu").model
    assert listed == list(programs(model, model.cfg))
