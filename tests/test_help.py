"""`--help` of every command: quick where flags alone are asked for, and each flag is told with its own words."""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys

import pytest

from jepa_world_model.cli import COMMANDS, main
from jepa_world_model.commands.completion import FLAGS
from jepa_world_model.core.config import field_comments
from jepa_world_model.core.toml import hints, section

LIGHT = ("runs", "report", "diagnose", "export", "diff", "replay", "plan-page", "ablate", "completion")


def test_the_help_of_what_takes_a_few_flags_waits_for_no_torch():
    code = "import sys; from jepa_world_model.cli import main\n" + "".join(
        f"try: main([{name!r}, '--help'])\nexcept SystemExit: pass\n" for name in LIGHT
    )
    code += "print('\\nMODULES', *{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    said, _, loaded = done.stdout.rpartition("MODULES")
    assert said.count("usage: jepa-wm ") == len(LIGHT)
    assert not {"torch", "numpy", "matplotlib"} & set(loaded.split())


def words_of(cls: type) -> list[str]:
    """The comment of every field, those of its tables too."""
    inside = [words for hint in hints(cls).values() if section(hint) for words in words_of(section(hint))]
    plain = [name for name, hint in hints(cls).items() if not section(hint)]
    told = field_comments(cls) if plain else {}
    return [told[name] for name in plain] + inside


@pytest.mark.parametrize("command", [name for name in FLAGS if name != "gradients"])
def test_every_setting_is_told_with_the_words_beside_it(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")  # one column
    with pytest.raises(SystemExit):
        main([command, "--help"])
    shown = "".join(capsys.readouterr().out.replace("│", "").split())
    module, _, name = FLAGS[command].partition(":")
    told = words_of(getattr(importlib.import_module(module), name))
    assert all(told), "a setting without a comment"
    assert [words for words in told if "".join(words.split()) not in shown] == []


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in FLAGS or name == "gradients"])
def test_every_flag_of_the_other_commands_has_words(command, monkeypatch):
    seen = []

    def keep(self: argparse.ArgumentParser, *_: object) -> None:
        seen.append(self)
        raise SystemExit

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", keep)
    with pytest.raises(SystemExit):
        main([command])
    (parser,) = seen
    assert parser.description
    assert [action.dest for action in parser._actions if not action.help] == []
