"""Damaged inputs end in one sentence: a short run of benchmarks/fuzz.py, and what its long runs have found."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from jepa_world_model.core.config import cli_main
from jepa_world_model.core.errors import UserError
from jepa_world_model.diagnostics.records import read_run
from jepa_world_model.diagnostics.report import write_report

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "fuzz.py"
TARGETS = ("config", "flags", "store", "trajectories", "checkpoint_with_checksums", "run_folder")


def test_damaged_inputs_are_read_or_refused_in_one_sentence():
    done = subprocess.run(
        [sys.executable, SCRIPT, "--count", "8", "--targets", *TARGETS],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\| all \| 48 \| \d+ \| \d+ \| 0 \| 0 \| 0 \|", done.stdout)


def test_signs_of_a_damaged_file_do_not_reach_the_terminal(capsys):
    def refuse() -> None:
        raise UserError("columns are a\x1b[2Jb\x1c")

    assert cli_main(refuse) == 2
    assert capsys.readouterr().err == "error: columns are a?[2Jb?\n"


@pytest.mark.parametrize(
    "problem", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 9 GB")]
)
def test_memory_that_is_not_there_is_a_sentence(problem, capsys):
    def ask() -> None:
        raise problem

    assert cli_main(ask) == 2
    assert re.match(r"error: not enough memory \(.+\); use fewer rows", capsys.readouterr().err)


def test_another_fault_of_the_program_keeps_its_traceback():
    def fail() -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        cli_main(fail)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("gradients.jsonl", b"\xff\xfe\n{}\n"),
        ("reach.json", b'{"losses": 3, "groups": []}'),
        ("graph.json", b'{"latents": [{"reads": ["x"]}]}'),
        ("advice.json", b'{"advice": [1]}'),
        ("environment.json", b"\x80"),
    ],
)
def test_a_report_names_the_file_that_is_not_what_a_run_writes(tmp_path, file, content):
    (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError, match=file):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_torn_last_line_of_gradients_is_still_left_out(tmp_path):
    (tmp_path / "gradients.jsonl").write_text('{"step": 1}\n{"st')
    assert read_run(tmp_path).gradients == [{"step": 1}]
