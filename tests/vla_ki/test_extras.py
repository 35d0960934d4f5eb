"""A package that is not installed is named, with the extra that brings it."""

from __future__ import annotations

import sys

import pytest

from jepa_world_model.core.errors import UserError
from jepa_world_model.vla_ki.extras import require
from jepa_world_model.vla_ki.lerobot import read_lerobot
from jepa_world_model.vla_ki.text import PromptBpe


def test_what_is_there_is_imported():
    assert require("json", "tests").loads("1") == 1


@pytest.mark.parametrize("package", ["tokenizers", "pyarrow"])
def test_a_missing_package_is_named_with_its_extra(package, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/info.json").write_text('{"codebase_version": "v3.0", "fps": 10, "features": {}}')
    with pytest.raises(
        UserError, match=rf"need the package `{package}`: pip install 'jepa-world-model\[vla\]'"
    ):
        PromptBpe.fit(["x"]) if package == "tokenizers" else read_lerobot(tmp_path, image_size=64)
