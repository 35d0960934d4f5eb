"""Configuration: flags over files over defaults, one sentence for each mistake."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import pytest

from jepa_world_model.core.config import (
    ConfigError,
    cli_main,
    diff_from_defaults,
    from_toml,
    load_config,
)
from tests.core.sample import Clip, Config, Model, Weights


def load(*argv: str) -> Config:
    return load_config(Config, argv, prog="jepa-wm train")


def refusal(*argv: str) -> str:
    with pytest.raises(ConfigError) as problem:
        load(*argv)
    message = str(problem.value)
    assert "\n" not in message
    assert "─" not in message
    return message


def test_flags_go_over_the_file_and_the_file_over_defaults(tmp_path: Path):
    file = tmp_path / "a.toml"
    file.write_text("seed = 3\nlr = 1\n[model]\npose_dim = 4\n[gates]\n'h->p' = 0.5\n")
    assert from_toml(Config, file) == Config(seed=3, lr=1.0, model=Model(pose_dim=4), gates={"h->p": 0.5})
    cfg = load("--seed", "7", "--config", str(file), "--gates", "z->h", "0.25", "--gates", "x->y", "1")
    assert (cfg.seed, cfg.lr, cfg.model.pose_dim) == (7, 1.0, 4)
    assert cfg.gates == {"h->p": 0.5, "z->h": 0.25, "x->y": 1.0}
    assert load(f"--config={file}").seed == 3


def test_flags_take_kebab_and_snake_case_signs_and_lists():
    cfg = load(
        "--loss-weights.h2z", "0", "--loss_weights.jepa=2.5", "--detach_decoder", "--model.pose-dim", "8"
    )
    assert cfg == Config(
        loss_weights=Weights(h2z=0.0, jepa=2.5), detach_decoder=True, model=Model(pose_dim=8)
    )
    assert load("--detach-decoder", "--no-detach-decoder") == Config()
    assert (
        load("--no-model.detach-pose")
        == load("--model.no-detach_pose")
        == Config(model=Model(detach_pose=False))
    )
    assert load("--lr", "-1e-3", "--name=--x", "--seed", "-4") == Config(lr=-1e-3, name="--x", seed=-4)
    assert load("--model.schedule", "1", "2", "3", "--tags", "a", "b").model.schedule == (1, 2, 3)
    assert load("--model.image", "8", "9").model.image == (8, 9)
    assert load("--limit", "inf", "--folder", "here") == Config(limit=math.inf, folder=Path("here"))
    assert load("--limit", "None") == Config()
    assert load("--model.start", "zero", "--seed", "1", "--seed", "2") == Config(
        model=Model(start="zero"), seed=2
    )
    assert load() == Config()


def test_a_flag_inside_an_optional_table_turns_it_on_and_keeps_what_the_file_said(tmp_path: Path):
    assert load("--clip.limit", "2") == Config(clip=Clip(limit=2.0))
    file = tmp_path / "a.toml"
    file.write_text("[clip]\nlimit = 9\n[clip.scale]\na = 1\n")
    cfg = load("--config", str(file), "--clip.scale", "b", "2")
    assert cfg.clip == Clip(limit=9.0, scale={"a": 1.0, "b": 2.0})
    assert load("--clip.scale", "b", "2").clip == Clip(scale={"b": 2.0})


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--sede", "1"], ["unknown flag --sede", "did you mean --seed"]),
        (["--h2z", "0"], ["unknown flag --h2z", "did you mean --loss-weights.h2z"]),
        (["--model.pose_dims=1"], ["did you mean --model.pose-dim"]),
        (["--qqqqqq"], ["unknown flag --qqqqqq", "jepa-wm train --help"]),
        (["-x"], ["unknown flag -x"]),
        (["--model", "3"], ["--model is a table of settings", "--model.pose-dim"]),
        (["--conifg", "x"], ["did you mean --config"]),
        (["runs"], ["unexpected argument 'runs'"]),
        (["--seed"], ["--seed takes one value, a whole number; got nothing"]),
        (["--seed", "1", "2"], ["--seed takes one value", "got 1 2"]),
        (["--seed", "x"], ["--seed must be a whole number, got 'x'"]),
        (["--seed", "1.0"], ["--seed must be a whole number, got '1.0'"]),
        (["--loss-weights.h2z", "a lot"], ["--loss-weights.h2z must be a number, got 'a lot'"]),
        (["--lr", "nan"], ["--lr is nan"]),
        (["--detach-decoder", "true"], ["--detach-decoder takes no value"]),
        (["--model.start", "zeros"], ["--model.start must be one of z_to_h, zero, got 'zeros'"]),
        (
            ["--model.image", "1"],
            ["--model.image must be a list of 2: a whole number, a whole number, got '1'"],
        ),
        (["--model.schedule", "1", "x"], ["--model.schedule must be a list", "got '1 x'"]),
        (["--gates", "z->h"], ["--gates takes pairs of a name and a number, got z->h"]),
        (["--gates", "z->h", "x"], ["--gates must be names, each with a number, got 'z->h x'"]),
        (["--model.pose-dim", "0"], ["model", "pose_dim must be at least 1, got 0"]),
        (["--config"], ["--config takes one TOML file, once; got nothing"]),
        (["--config", "nowhere.toml"], ["no configuration file at nowhere.toml"]),
        (["--config", "/"], ["/ is a folder"]),
    ],
)
def test_a_mistake_in_a_flag_is_one_sentence_and_what_was_allowed(argv: list[str], words: list[str]):
    message = refusal(*argv)
    assert all(word in message for word in words), message


def test_bytes_that_are_not_text_are_named(tmp_path: Path):
    file = tmp_path / "a.toml"
    file.write_bytes(b"name = '\xff'")
    assert "not UTF-8" in refusal("--config", str(file))


def test_diff_from_defaults_lists_what_was_changed_and_nothing_else():
    assert diff_from_defaults(Config()) == {}
    cfg = Config(seed=1, model=Model(pose_dim=3), gates={}, clip=Clip())
    assert diff_from_defaults(cfg) == {
        "seed": 1, "model.pose_dim": 3, "gates": {}, "clip.limit": 1.5, "clip.scale": {}
    }  # fmt: skip


def test_help_lists_flags_with_present_values_and_exits_with_0(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    file = tmp_path / "a.toml"
    file.write_text("seed = 41\n")
    with pytest.raises(SystemExit) as stop:
        load("--help", "--config", str(file))
    shown = capsys.readouterr().out
    assert stop.value.code == 0
    for words in (
        "--model.pose-dim",
        "width of p",
        "--config",
        "A training",
        "default: 41",
        "--clip.limit",
        "--gates",
    ):
        assert words in shown


def test_cli_main_turns_a_mistake_into_one_line_and_exit_code_2(capsys, monkeypatch):
    def fail() -> None:
        raise ConfigError("no such thing")

    monkeypatch.delenv("JEPA_WM_DEBUG", raising=False)
    assert cli_main(fail) == 2
    assert capsys.readouterr().err == "error: no such thing\n"
    monkeypatch.setenv("JEPA_WM_DEBUG", "1")
    assert cli_main(fail) == 2
    assert "Traceback" in capsys.readouterr().err
    assert cli_main(lambda: None) == 0
    assert cli_main(lambda: 3) == 3


def test_cli_main_lets_a_bug_show_its_traceback_and_answers_ctrl_c_with_130(capsys):
    with pytest.raises(KeyError):
        cli_main(lambda: {}["missing"])

    def stop() -> None:
        raise KeyboardInterrupt

    assert cli_main(stop) == 130


def test_importing_config_imports_neither_torch_nor_tyro():
    code = "import sys, jepa_world_model.core.config; print({'torch', 'tyro', 'numpy'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown == "set()\n"


def test_configuration_is_never_changed_in_place(tmp_path: Path):
    file = tmp_path / "a.toml"
    file.write_text("[gates]\na = 1\n")
    base = Config()
    assert from_toml(Config, file, base).gates == {"a": 1.0}
    assert base == Config()
    assert dataclasses.asdict(load("--gates", "b", "1"))["gates"] == {"z->h": 0.0, "b": 1.0}
    assert Config().gates == {"z->h": 0.0}


def test_a_reader_that_leaves_early_is_no_traceback():
    code = (
        "import sys; from jepa_world_model.core.config import cli_main\n"
        "sys.exit(cli_main(lambda: [print('x' * 99, flush=True) for _ in range(9999)] and 0))"
    )
    program = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    program.stdout.close()
    assert program.stderr.read() == b""
    program.stderr.close()
    assert program.wait() == 141
