"""jepa-wm export: from a run to a folder that others open."""

from __future__ import annotations

import sys
import types

import torch

import jepa_world_model as jwm
from jepa_world_model.cli import main


def test_export_writes_model_card_and_programs_and_says_how_to_open_them(trained, tmp_path, capsys):
    assert main(["export", str(trained), "--out", str(tmp_path / "out"), "--step", "2"]) == 0
    out = capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").glob("*.pt2")} == {
        "encoder.pt2", "start.pt2", "step.pt2", "pose.pt2", "decoder.pt2",
    }  # fmt: skip
    assert f'jepa_world_model.load("{tmp_path / "out"}")' in out
    assert "model.safetensors  0." in out
    run = jwm.load(tmp_path / "out", device="cpu")
    assert run.step == 2
    frames = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    z = torch.export.load(tmp_path / "out" / "encoder.pt2").module()(frames)
    torch.testing.assert_close(z, run.encode(frames), atol=1e-5, rtol=1e-5)


def test_what_cannot_be_exported_is_one_sentence_and_code_2(trained, tmp_path, capsys, monkeypatch):
    assert main(["export", str(tmp_path)]) == 2
    assert "is no run" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(get_token=lambda: None))
    assert main(["export", str(trained), "--out", str(tmp_path / "out"), "--push", "me/model"]) == 2
    assert "hf auth login" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
