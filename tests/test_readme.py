"""What the README and the pages tell users to type works: Python blocks run, commands parse."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from jepa_world_model.cli import COMMANDS
from jepa_world_model.core.config import from_toml, load_config
from jepa_world_model.experiment import TrainConfig

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *(ROOT / "docs" / f"{x}.md" for x in ("index", "gradients", "concepts", "recipes", "tracking")),
]
OWN_TESTS = {  # pages whose blocks are run elsewhere
    "adding.md": "tests/test_adding.py",
    "vla.md": "tests/vla_ki/test_docs.py",
    "python.md": "tests/test_python_page.py",
    "data.md": "tests/test_data_pages.py",
    "environments.md": "tests/test_data_pages.py",
    "planning.md": "tests/planning/test_page.py",
    "pose.md": "tests/test_pose_page.py",
    "scaling.md": "tests/distributed/test_page.py",
}
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
OWN_FLAGS = {"gradients": {"--all-gates": 0, "--format": 1}}  # besides those of training


def blocks(path: Path, language: str) -> list[str]:
    return [body for lang, body in BLOCK.findall(path.read_text(encoding="utf-8")) if lang == language]


def commands() -> list[str]:
    lines = [line for path in PAGES for body in blocks(path, "") for line in body.split("\n")]
    return [
        line.partition("  #")[0].strip()
        for line in lines
        if line.startswith(("jepa-wm ", "python jepa_world"))
    ]


@pytest.mark.parametrize("body", [body for path in PAGES for body in blocks(path, "python")])
def test_a_python_block_runs(body, capsys):
    exec(compile(body, "page", "exec"), {})
    assert "z->h" in capsys.readouterr().out


@pytest.mark.parametrize("line", commands())
def test_a_command_exists_and_its_training_flags_parse(line, tmp_path):
    config = tmp_path / "config.toml"
    config.write_text("steps = 7\n")
    words = [str(config) if word.endswith(".toml") else word for word in shlex.split(line)]
    if words[0] == "jepa-wm":
        assert words[1] in COMMANDS
        if words[1] not in ("train", "gradients"):
            return
        for flag, values in OWN_FLAGS.get(words[1], {}).items():
            if flag in words:
                del words[words.index(flag) : words.index(flag) + values + 1]
    cfg = load_config(TrainConfig, words[2:], prog=words[0])
    assert cfg.steps == 7 or str(config) not in words


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.md")), ids=lambda p: p.name)
def test_every_page_with_a_command_or_code_is_held_by_a_test(path):
    has_code = any("jepa" in body for _, body in BLOCK.findall(path.read_text(encoding="utf-8")))
    if (
        has_code and path not in PAGES and path.name != "log.md"
    ):  # the log tells what was run, not what to run
        assert path.name in OWN_TESTS, (
            f"add docs/{path.name} to PAGES, or to OWN_TESTS with the test that runs it"
        )
        assert path.name in (ROOT / OWN_TESTS[path.name]).read_text(encoding="utf-8")


def test_the_readme_is_short_and_names_its_two_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("\n") < 150
    assert "make train" in text
    assert "make test" in text


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.toml")), ids=lambda p: p.name)
def test_a_shipped_configuration_is_valid_and_says_why(path):
    same = from_toml(TrainConfig, path) == TrainConfig()
    assert same == (path.stem == "source_document")  # which writes the defaults out
    assert path.read_text(encoding="utf-8").startswith("# ")
