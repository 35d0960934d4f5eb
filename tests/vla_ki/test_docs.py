"""The page on knowledge insulation: its commands are read, its figures are those of the code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from jepa_world_model.vla_ki.config import KITrainConfig, read_config
from jepa_world_model.vla_ki.proofs import PROOFS

PAGE = (Path(__file__).parents[2] / "docs/vla.md").read_text(encoding="utf-8")
FLAGS = re.findall(r"^\| [^|]+ \| `(--[^`]+)`", PAGE, re.MULTILINE)


@pytest.mark.parametrize("flags", FLAGS)
def test_every_row_of_flags_is_read(flags):
    assert isinstance(read_config(shlex.split(flags), prog="ki-train", description=""), KITrainConfig)


def test_the_page_lists_the_proofs_there_are():
    section = PAGE.split("## The ten proofs")[1].split("##")[0]
    assert len(re.findall(r"^\d+\. ", section, re.MULTILINE)) == len(PROOFS) == 10
    assert len(FLAGS) >= 9
