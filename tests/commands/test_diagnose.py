"""`jepa-wm diagnose`."""

from __future__ import annotations

import json
import shutil

from jepa_world_model.cli import main


def test_the_command_prints_what_it_found_and_where(trained, tmp_path, capsys):
    folder = tmp_path / "a"
    shutil.copytree(trained, folder)
    assert main(["diagnose", str(folder), "--device", "cpu", "--windows", "6"]) == 0
    summary = json.loads((folder / "diagnostics.json").read_text())["summary"]
    assert capsys.readouterr().out == f"a: {summary}\n{folder / 'diagnostics.html'}\n"
    assert main(["report", str(folder)]) == 0
    assert summary in (folder / "report.html").read_text()


def test_a_folder_without_a_run_is_one_sentence(tmp_path, capsys):
    assert main(["diagnose", str(tmp_path)]) == 2
    assert "is no run" in capsys.readouterr().err


def test_no_windows_is_one_sentence(trained, capsys):
    assert main(["diagnose", str(trained), "--windows", "0"]) == 2
    assert "--windows must be 1 or above, got 0" in capsys.readouterr().err
