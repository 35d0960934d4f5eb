"""What docs/scaling.md tells users to type: its commands are understood and share their rows out evenly."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from jepa_world_model.core.config import load_config
from jepa_world_model.experiment import TrainConfig
from jepa_world_model.losses import LOSSES
from jepa_world_model.vla_ki.config import read_config
from tests.distributed.processes import CONTROL

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"
TEXT = PAGE.read_text(encoding="utf-8")
COMMANDS = [line.partition("  #")[0].strip() for line in TEXT.splitlines() if line.startswith("torchrun ")]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_page_is_understood_by_torchrun_and_by_us(line):
    launch = get_args_parser().parse_args(shlex.split(line)[1:])
    if launch.module:
        assert launch.training_script == "jepa_world_model.cli"
        assert launch.training_script_args[0] == "ki-train"
        cfg = read_config(launch.training_script_args[1:], prog="x", description="")
    else:
        assert launch.training_script == "jepa_world_model_trainer.py"
        cfg = load_config(TrainConfig, launch.training_script_args, prog="x")
    processes = int(launch.nproc_per_node) * int(launch.nnodes.split(":")[-1])
    assert cfg.batch_size % processes == 0


def test_the_page_has_commands_and_names_the_losses_that_gather():
    assert len(COMMANDS) == 4
    listed = TEXT.partition("The 15 others look at the whole batch:")[2].partition("gather what they need")[0]
    assert set(re.findall(r"`(\w+)`", listed)) == CONTROL <= set(LOSSES)
