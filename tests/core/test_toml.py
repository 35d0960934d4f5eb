"""TOML: any configuration there and back, one sentence for each mistake."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jepa_world_model.core.toml import (
    ConfigError,
    find_config,
    parse_toml,
    to_toml,
)
from tests.core.sample import Clip, Config, Model, Weights


def toml_refusal(text: str) -> str:
    with pytest.raises(ConfigError) as problem:
        parse_toml(Config, text, source="a.toml")
    assert "\n" not in str(problem.value)
    return str(problem.value)


numbers = st.floats(allow_nan=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
dicts = st.dictionaries(texts, numbers, max_size=3)
configs = st.builds(
    Config,
    model=st.builds(
        Model,
        pose_dim=st.integers(1),
        schedule=st.lists(st.integers(), max_size=3).map(tuple),
        image=st.tuples(st.integers(), st.integers()),
        start=st.sampled_from(["z_to_h", "zero"]),
        detach_pose=st.booleans(),
    ),
    loss_weights=st.builds(Weights, h2z=numbers, jepa=numbers),
    detach_decoder=st.booleans(),
    gates=dicts,
    name=texts,
    folder=st.sampled_from([Path("a b"), Path('x/"y"'), Path("..")]),
    seed=st.integers(),
    lr=numbers,
    tags=st.lists(texts, max_size=3).map(tuple),
    pairs=st.lists(st.tuples(st.integers(), numbers), max_size=2).map(tuple),
    limit=st.none() | numbers,
    label=st.integers() | texts,
    clip=st.none() | st.builds(Clip, limit=numbers, scale=dicts),
)


@settings(max_examples=200, deadline=None)
@given(cfg=configs)
def test_toml_of_any_configuration_reads_back_equal(cfg: Config):
    again = parse_toml(Config, to_toml(cfg))
    assert again == cfg
    assert to_toml(again) == to_toml(cfg)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sede = 1", ["a.toml", "sede", "did you mean seed"]),
        ("[model]\npose_dims = 1", ["unknown key model.pose_dims", "did you mean model.pose_dim"]),
        ("h2z = 1", ["unknown key h2z", "did you mean loss_weights.h2z"]),
        ("[model]\nqqqq = 1", ["model.qqqq", "known here: model.pose_dim"]),
        ("seed = true", ["seed must be a whole number, got True"]),
        ("seed = 1.0", ["seed must be a whole number, got 1.0"]),
        ("seed = '1'", ["seed must be a whole number, got '1'"]),
        ("lr = false", ["lr must be a number, got False"]),
        ("lr = 'x'", ["lr must be a number"]),
        ("lr = nan", ["lr is nan"]),
        ("detach_decoder = 1", ["detach_decoder must be true or false, got 1"]),
        ("name = 3", ["name must be text, got 3"]),
        ("model = 3", ["model is a table", "[model]"]),
        ("loss_weights = []", ["loss_weights is a table"]),
        ("gates = 0.5", ["gates must be names, each with a number"]),
        ("gates = {a = 'x'}", ["gates.a must be a number, got 'x'"]),
        ("[model]\nschedule = [1, 'x']", ["model.schedule[1] must be a whole number"]),
        ("[model]\nschedule = 3", ["model.schedule must be a list, each entry a whole number"]),
        ("[model]\nimage = [1]", ["model.image must be a list of 2"]),
        ("[model]\nstart = 'zeros'", ["model.start must be one of z_to_h, zero", "did you mean zero"]),
        ("[model]\npose_dim = 0", ["a.toml: [model] pose_dim must be at least 1, got 0"]),
        ("label = 1.5", ["label must be a whole number or text"]),
        ("limit = 'x'", ["limit must be a number, got 'x'"]),
        ("seed = 1979-05-27", ["seed must be a whole number"]),
        ("seed = 1\nlr ==", ["a.toml is not valid TOML", "line 2"]),
        ("seed = 1\nseed = 2", ["a.toml is not valid TOML"]),
    ],
)
def test_a_mistake_in_toml_is_one_sentence_with_file_path_and_what_was_allowed(text: str, words: list[str]):
    message = toml_refusal(text)
    assert all(word in message for word in words), message
    assert "a.toml" in message


@pytest.mark.parametrize(
    ("cfg", "words"),
    [
        (Config(lr=math.nan), "lr = nan cannot be written"),
        (Config(gates={"a": math.nan}), "gates.a = nan cannot be written"),
        (Config(name="\ud800"), "name holds text that is not UTF-8"),
        (Config(lr=object()), "lr = "),
        (Config(name=None), "name is None but defaults to ''"),
    ],
)
def test_a_value_toml_cannot_hold_is_refused_rather_than_changed(cfg: Config, words: str):
    with pytest.raises(ConfigError, match=words):
        to_toml(cfg)


def test_a_shipped_configuration_is_found_by_name_from_any_folder_and_an_own_file_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = find_config("atari_freeway")
    assert found.read_text().startswith("# Freeway")
    assert find_config("configs/atari_freeway.toml") == find_config("atari_freeway.toml") == found
    assert find_config("lewm") == find_config("recipes/lewm") == find_config("configs/recipes/lewm.toml")
    (tmp_path / "atari_freeway").write_text("steps = 1\n")
    assert find_config("atari_freeway").read_text() == "steps = 1\n"


def test_a_configuration_that_is_nowhere_names_the_shipped_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ConfigError, match=r"no configuration file at nothing\.toml; shipped ones are .*atari_freeway"
    ):
        find_config("nothing.toml")
    with pytest.raises(ConfigError, match="did you mean atari_freeway"):
        find_config("atari_freway")
    with pytest.raises(ConfigError, match=r"no configuration file at runs/atari_freeway\.toml"):
        find_config("runs/atari_freeway.toml")  # a path that is wrong is not answered with another file
