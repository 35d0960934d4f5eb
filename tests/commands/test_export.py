"""jepa-wm export: from a run to a folder that others open."""

from __future__ import annotations

import sys
import types

import jepa_world_model as jwm
from jepa_world_model.cli import main


def test_export_writes_a_step_for_others_and_says_how_to_open_it(trained, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["export", str(trained), "--out", str(out), "--step", "2", "--no-programs"]) == 0
    said = capsys.readouterr().out
    assert f'jepa_world_model.load("{out}")' in said
    assert "model.safetensors  0." in said
    assert list(out.glob("*.pt2")) == []  # with them: tests/test_python_page.py
    assert jwm.load(out, device="cpu").step == 2


def test_what_cannot_be_exported_is_one_sentence_and_code_2(trained, tmp_path, capsys, monkeypatch):
    assert main(["export", str(tmp_path)]) == 2
    assert "is no run" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(get_token=lambda: None))
    assert main(["export", str(trained), "--out", str(tmp_path / "out"), "--push", "me/model"]) == 2
    assert "hf auth login" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
