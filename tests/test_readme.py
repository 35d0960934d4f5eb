"""The README is short, and the configurations it speaks of are valid. Its blocks: tests/test_code_blocks.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from jepa_world_model.core.config import from_toml
from jepa_world_model.experiment import TrainConfig

ROOT = Path(__file__).parents[1]


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
