"""Shell completion: what a shell offers is what the commands take."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from jepa_world_model.cli import COMMANDS, main
from jepa_world_model.commands.completion import FLAGS, script


@pytest.fixture(scope="module")
def offers(tmp_path_factory):
    """What bash offers after some words."""
    if not shutil.which("bash") or not shutil.which("python3"):
        pytest.skip("needs bash and python3")
    file = tmp_path_factory.mktemp("completion") / "jepa-wm"
    file.write_text(script("bash"))

    def ask(*words: str) -> set[str]:
        quoted = " ".join(f"'{word}'" for word in ("jepa-wm", *words))
        code = f"COMP_WORDS=({quoted}); COMP_CWORD={len(words)}; _jepa_wm_or_files; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        done = subprocess.run(
            ["bash", "-c", f"source {file}; {code}"],
            capture_output=True,
            text=True,
            check=True,
            cwd=file.parent,
        )
        assert done.stderr == ""
        return set(done.stdout.split())

    return ask


def test_every_command_is_offered(offers):
    assert offers("") - {"-h", "--help"} == set(COMMANDS)
    assert offers("tr") == {"train"}


def test_flags_and_their_values_are_offered(offers):
    assert offers("train", "--model.pose") == {"--model.pose-dim", "--model.pose-delta-detach-h"}
    assert "--loss-weights.jepa" in offers("gradients", "--loss-weights.j")
    assert offers("train", "--best-is", "") == {"lowest", "highest"}
    assert "--collect.frames" in offers("collect", "--collect.f")


def test_files_are_offered_where_a_file_is_meant(offers):
    assert offers("report", "je") == {"jepa-wm"}
    assert offers("train", "--config", "je") == {"jepa-wm"}


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_a_script_of_their_own(shell, capsys):
    assert main(["completion", shell]) == 0
    assert "jepa-wm" in capsys.readouterr().out


def test_every_command_with_flags_exists():
    assert set(FLAGS) <= set(COMMANDS)
