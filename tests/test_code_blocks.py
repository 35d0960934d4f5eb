"""Every fenced block of every page is held: Python runs, commands are read by their own parsers, the rest has a name."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed.run import get_args_parser

from jepa_world_model.cli import COMMANDS, main
from jepa_world_model.commands.docs import BEGIN
from jepa_world_model.commands.gradients import synthetic_batch, with_actions
from jepa_world_model.core.config import from_toml, to_toml
from jepa_world_model.core.proof import measure
from jepa_world_model.experiment import TrainConfig, ablation, build_task
from jepa_world_model.vla_ki.config import KITrainConfig
from jepa_world_model.vla_ki.table import GRAPH
from tests.experiment.test_run import run

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
FENCED = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ELSEWHERE = {  # pages whose Python needs more than a run: the tests that run it
    "adding.md": "tests/test_adding.py",
    "vla.md": "tests/vla_ki/test_serve.py",
}
PROGRAMS = ("jepa-wm", "python", "torchrun", "make", "git", "cd", "pip")


@dataclass(frozen=True)
class Block:
    """One fenced block, and where it stands."""

    page: str
    line: int
    language: str
    body: str
    before: str  # what stands between it and the block before, or the page's beginning
    earlier: Block | None = None  # the block before it

    @property
    def kind(self) -> str:
        """Which check holds it; empty: none."""
        if self.language in ("python", "toml", "json"):
            return self.language
        if self.language == "mermaid" and BEGIN in self.before:
            return "generated"  # tests/commands/test_docs.py: the page is up to date
        if self.language not in ("", "bash"):
            return ""
        if not self.before.strip() and self.earlier and self.earlier.language == "python":
            return "printed"
        if all(words and words[0] in PROGRAMS for words in self.commands()):
            return "shell"
        return next((name for name in CLAIMED if self.body.startswith(name)), "")

    def commands(self) -> list[list[str]]:
        """The words of each command: comments and what a shell does with the output left out."""
        found = []
        for line in filter(None, self.body.replace("\\\n", " ").split("\n")):
            with contextlib.suppress(ValueError):  # a text with an apostrophe is no command
                bare = re.split(r"\s#|\s>\s", line)[0]
                found += [shlex.split(part) for part in bare.split(" && ")]
        return found or [[]]


def blocks_of(path: Path) -> list[Block]:
    """Every fenced block of a page, in order."""
    text, found, end = path.read_text(encoding="utf-8"), [], 0
    for match in FENCED.finditer(text):
        where, between = text[: match.start()].count("\n") + 1, text[end : match.start()]
        found.append(Block(path.name, where, match[1], match[2], between, found[-1] if found else None))
        end = match.end()
    assert len(re.findall(r"```", text)) == 2 * len(found), f"{path.name}: a fence that is not one of a block"
    return found


BLOCKS = [block for path in PAGES for block in blocks_of(path)]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda b: f"{b.page}:{b.line}")
def test_a_block_is_held(block, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    if block.kind == "shell":
        for words in block.commands():
            read(words, monkeypatch, tmp_path)
    elif block.kind == "toml":
        (tmp_path / "page.toml").write_text(block.body)
        assert from_toml(TrainConfig, tmp_path / "page.toml") != TrainConfig()
    elif block.kind == "json":
        json.loads(block.body)
    elif block.kind in CLAIMED:
        CLAIMED[block.kind](block.body)
    else:
        assert block.kind, "no check holds this block: give it one"


@pytest.mark.parametrize("page", sorted({b.page for b in BLOCKS if b.language == "python"}))
def test_the_python_of_a_page_runs_in_order_and_prints_what_stands_below(
    page, trained, tmp_path, monkeypatch
):
    if page in ELSEWHERE:
        assert page in (ROOT / ELSEWHERE[page]).read_text(encoding="utf-8")
        return
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "NAME").symlink_to(trained)
    frames = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    scope: dict[str, Any] = {"frames": frames, "actions": np.zeros(5, int)}
    out, everything = "", []
    for block in (b for b in BLOCKS if b.page == page):
        if block.language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as said:
                exec(compile(block.body, page, "exec"), scope)
            out = said.getvalue()
            everything.append(out)
        elif block.kind == "printed":
            assert out == block.body
    AFTERWARDS.get(page, lambda said, scope: None)(everything, scope)


def gates_were_shown(said: list[str], scope: dict[str, Any]) -> None:
    """Every block tells of the edge."""
    assert said
    assert all("z->h" in out for out in said)


def planning_was_shown(said: list[str], scope: dict[str, Any]) -> None:
    """The first block prints actions, the second what perfect dynamics reach."""
    assert len(said) == 2
    assert "tensor" in said[0]
    assert "perfect dynamics" in said[1]


def a_run_was_used(said: list[str], scope: dict[str, Any]) -> None:
    """Shapes are those of the page's table, and what was exported equals the run."""
    assert scope["future"].frames.shape == (5, 3, 16, 16)
    assert scope["plan"].actions.shape == (20,)
    torch.testing.assert_close(scope["z"], scope["run"].encode(scope["frames"]), atol=1e-5, rtol=1e-5)
    again, model = scope["again"].model, scope["model"]
    assert torch.equal(again.predictor.inner.weight, model.predictor.inner.weight)


AFTERWARDS = {
    "README.md": gates_were_shown, "planning.md": planning_was_shown, "python.md": a_run_was_used,
}  # fmt: skip


# ---- commands ----


class Read(Exception):
    """The words of a command were read; its work does not begin."""


def ending(function: Any) -> Any:
    """`function`, after which the command ends."""

    def call(*given: Any, **named: Any) -> None:
        raise Read(function(*given, **named))

    return call


def read(words: list[str], monkeypatch: pytest.MonkeyPatch, place: Path) -> Any:
    """Have a command read its words with the parser it has, and stop it there: its settings."""
    if words[:2] in (["git", "clone"], ["cd", "jepa-world-model"]) or words[0] == "pip":
        return None  # test_an_extra_that_is_named_exists
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), words
        return None
    if words[0] == "torchrun":
        launch = get_args_parser().parse_args(words[1:])
        named = {"jepa_world_model.cli": "jepa-wm", "jepa_world_model_trainer.py": "python x"}
        program = [*named[launch.training_script].split(), *launch.training_script_args]
        words = ["python", launch.training_script, *program[2:]] if program[0] == "python" else program
    words = [stand_in(word, before, place) for before, word in zip(["", *words], words, strict=False)]
    with monkeypatch.context() as patch, pytest.raises(Read) as ended:
        begin(words, patch)
    return ended.value.args[0]


def begin(words: list[str], patch: pytest.MonkeyPatch) -> None:
    """Call what a command calls, set up to end once it has read its words."""
    if words[0] == "jepa-wm":
        module, _, function = COMMANDS[words[1]][0].partition(":")
        room = importlib.import_module(module)
        stop_after_reading(patch, room)
        getattr(room, function or "main")(words[2:])
    else:
        patch.syspath_prepend(ROOT / "benchmarks")
        room = importlib.import_module(Path(words[1]).stem)
        assert Path(room.__file__).samefile(words[1])
        stop_after_reading(patch, room)
        patch.setattr(sys, "argv", words[1:])
        room.main()


def stop_after_reading(patch: pytest.MonkeyPatch, room: Any) -> None:
    """The command of a module ends where it has its settings."""
    for reader in ("read_config", "load_config"):
        if hasattr(room, reader):
            patch.setattr(room, reader, ending(getattr(room, reader)))
    if room.__name__.endswith(".ablate"):  # what follows a lone -- is read after the command's own flags
        patch.setattr(ablation, "check_trials", ending(lambda trials: trials))
    else:
        patch.setattr(argparse.ArgumentParser, "parse_args", ending(argparse.ArgumentParser.parse_args))


def stand_in(word: str, before: str, place: Path) -> str:
    """A file or folder that the reader of a page is to have."""
    if before == "--config" and not Path(word).exists():
        (place / "given.toml").write_text("steps = 7\n")
        return str(place / "given.toml")
    if before == "--resume":
        (place / "config.toml").write_text(to_toml(KITrainConfig()))
        return str(place)
    return word


MEANT = {  # page -> a beginning of a command on it, and what its settings are to be
    "planning.md": ("jepa-wm train", lambda cfg: cfg.plan_every == 400),
    "python.md": ("jepa-wm train", lambda cfg: cfg.steps == 900),
    "pose.md": (
        "python jepa_world_model_trainer.py",
        lambda cfg: cfg == from_toml(TrainConfig, ROOT / "configs" / "pose_planning.toml"),
    ),
    "vla.md": ("jepa-wm ki-eval", lambda cfg: bool(cfg.run)),
}


@pytest.mark.parametrize("page", MEANT)
def test_a_command_sets_what_its_page_is_about(page, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    beginning, holds = MEANT[page]
    every = [words for b in BLOCKS if b.page == page and b.kind == "shell" for words in b.commands()]
    mine = [words for words in every if " ".join(words).startswith(beginning)]
    assert mine
    assert all(holds(read(words, monkeypatch, tmp_path)) for words in mine)


@pytest.mark.parametrize(
    ("page", "least"), [("planning.md", 4), ("python.md", 6), ("vla.md", 5), ("pose.md", 3)]
)
def test_the_commands_of_a_page_are_found(page, least):
    found = [words for b in BLOCKS if b.page == page and b.kind == "shell" for words in b.commands()]
    assert len(found) >= least


def test_each_sum_of_the_page_on_scaling_has_its_result_below_it():
    assert [b.kind for b in BLOCKS if b.page == "scaling.md"].count("printed") == 2


@pytest.mark.parametrize("page", sorted({b.page for b in BLOCKS} | {"log.md"}))
def test_a_command_inside_a_sentence_is_read_too(page, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    (path,) = (path for path in PAGES if path.name == page)
    for line in re.findall(r"`((?:jepa-wm|python|make|torchrun) [^`]+)`", path.read_text(encoding="utf-8")):
        words = shlex.split(line)
        if words[0] == "jepa-wm":
            assert words[1] in COMMANDS
        if words[1] == "-m":
            assert importlib.util.find_spec(words[2])
        elif (
            len(words) > 2 and page != "log.md"
        ):  # which tells what was run at its time; two words are a name
            read(words, monkeypatch, tmp_path)


def test_a_command_that_cannot_be_read_is_seen(monkeypatch, tmp_path):
    for line in (
        "jepa-wm runs --serve",
        "jepa-wm gradients --every-gate",
        "jepa-wm ablate --add nothing --seeds 0",
        "jepa-wm collect --out",
        "python jepa_world_model_trainer.py --steps many",
        "python benchmarks/loops.py --pages 3",
        "make nothing",
    ):
        with pytest.raises((AssertionError, ValueError, SystemExit, pytest.fail.Exception)):
            read(shlex.split(line), monkeypatch, tmp_path)


def test_the_first_commands_of_the_start_page_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (block,) = (b for b in BLOCKS if b.page == "index.md" and "jepa-wm diff" in b.body)
    for words in block.commands():
        if words[0] == "python":
            assert run(*words[2:], "--steps", "2", "--no-report") == 0
        else:
            assert main(words[1:]) == 0
    said = capsys.readouterr().out
    assert "B adds h2z (weight 1)" in said
    assert re.search(r"z->h\b.* 0\.1", said)


def test_an_extra_that_is_named_exists():
    listed = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]\n")[2]
    extras = re.findall(r"^(\w+) = ", listed.partition("\n\n")[0], re.MULTILINE)
    places = [
        ROOT / "Makefile",
        *PAGES,
        *(ROOT / ".github").rglob("*.yml"),
        *(ROOT / "configs").rglob("*.toml"),
    ]
    places += [path for folder in ("jepa_world_model", "tests") for path in (ROOT / folder).rglob("*.py")]
    named = {
        extra
        for path in places
        for listed in re.findall(
            r'(?:jepa-world-model|-e "?\.)\[([\w,]+)\]', path.read_text(encoding="utf-8")
        )
        for extra in listed.split(",")
    }
    assert {"dev", "docs", "atari", "hub"} <= named <= set(extras)


# ---- what is neither code nor command ----


def told_table(body: str) -> None:
    """The README's table is the start of what a run of the defaults prints, lines left out."""
    cfg = with_actions(TrainConfig())
    printed = measure(build_task(cfg), synthetic_batch(cfg)).to_text().split("\n")
    legend, _, table = body.partition("\n\n")  # of which several stand in a line, to be short
    shown = [legend.split("\n")[0], *table.partition("\n...")[0].split("\n")]
    assert [line for line in printed if line in shown] == shown
    numbered = re.compile(r"(\d) (\w+)")
    assert numbered.findall(legend) == numbered.findall("\n".join(printed).partition("\n\n")[0])


def told_map(body: str) -> None:
    """Every file and folder of the map is there."""
    for line in body.strip().split("\n"):
        inside = ROOT / "jepa_world_model" if line.startswith("  ") else ROOT
        for words in map(str.split, re.split(r"  +", line.strip())):
            if all(word.endswith(("/", ".py")) for word in words):
                assert all((inside / word).exists() for word in words), words


def told_insulation(body: str) -> None:
    """The picture's edge and losses are those of the table."""
    assert "kv->velocity" in body
    assert "kv->velocity" in GRAPH.edge_names
    assert set(re.findall(r"(\w+)(?:, \w+)?: (?:VLM|expert)", body)) <= {"fast_ce", "text_ce", "flow"}


CLAIMED = {
    "Which loss moves which module": told_table,
    "jepa_world_model_trainer.py   argv": told_map,
    "images (SigLIP)": told_insulation,
}
