"""The page on knowledge insulation: its commands are read, its figures are those of the code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from jepa_world_model.core.config import load_config, to_toml
from jepa_world_model.vla_ki.config import KITrainConfig, read_config
from jepa_world_model.vla_ki.evaluate import EvalConfig
from jepa_world_model.vla_ki.proofs import PROOFS

PAGE = (Path(__file__).parents[2] / "docs/vla.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^jepa-wm (ki-\w+)([^#\n]*)", PAGE, re.MULTILINE)
FLAGS = re.findall(r"^\| [^|]+ \| `(--[^`]+)`", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("command", "words"), COMMANDS)
def test_every_command_of_the_page_is_read(command, words, tmp_path):
    (tmp_path / "config.toml").write_text(to_toml(KITrainConfig()))
    argv = shlex.split(words.replace("runs/NAME", str(tmp_path)))
    if command == "ki-eval":
        assert load_config(EvalConfig, argv, prog=command).run
    else:
        assert isinstance(read_config(argv, prog=command, description=""), KITrainConfig)


@pytest.mark.parametrize("flags", FLAGS)
def test_every_row_of_flags_is_read(flags):
    assert isinstance(read_config(shlex.split(flags), prog="ki-train", description=""), KITrainConfig)


def test_the_page_lists_the_proofs_there_are():
    section = PAGE.split("## The ten proofs")[1].split("##")[0]
    assert len(re.findall(r"^\d+\. ", section, re.MULTILINE)) == len(PROOFS) == 10
    assert len(COMMANDS) >= 5
    assert len(FLAGS) >= 9
