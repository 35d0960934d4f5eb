"""What a run tracks: every tracker gets every kind under one name, and the folder has the same."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jepa_world_model_trainer as trainer
from jepa_world_model.core.log import read_metrics
from jepa_world_model.experiment import tracking
from jepa_world_model.experiment.tracking import gradient_cells, save_film
from tests.experiment.test_run import TINY, numbers


class Recorder:
    """A tracker that remembers."""

    def __init__(self) -> None:
        self.numbers, self.tables, self.seen, self.closed = {}, {}, [], False

    def write(self, step, values):
        self.numbers.setdefault(step, {}).update(values)

    def picture(self, step, name, path):
        self.seen.append((step, name, path.read_bytes()[:4]))

    def video(self, step, name, path):
        self.seen.append((step, name, path.read_bytes()[:4]))

    def table(self, step, name, columns, rows):
        self.tables.setdefault(name, []).append((step, columns, rows))

    def files(self, step, name, folder):
        assert (folder / "manifest.json").is_file()
        self.seen.append((step, name, folder.name))

    def close(self):
        self.closed = True


FLAGS = ["--steps", "4", "--eval-every", "2", "--grad-report-every", "2", "--checkpoint-every", "2"]


def drawn(folder: Path, arrays: dict) -> list[Path]:
    """In the place of matplotlib, which would be most of the test."""
    assert {"z_plane", "open_loop", "pose"} <= set(arrays)
    Image.new("RGB", (4, 4)).save(folder / "projection.png")
    return [folder / "projection.png"]


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """The folder of a run and what its tracker got."""
    place, recorder = tmp_path_factory.mktemp("tracked"), Recorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(tracking, "TensorBoardTracker", lambda folder, start: recorder)
        patch.setattr(tracking, "save_figures", drawn)  # the real ones: tests/diagnostics/test_report.py
        assert trainer.main([*TINY, *FLAGS, "--name", "a", "--tensorboard", "--no-report"]) == 0
    return place / "runs" / "a", recorder


def test_a_tracker_gets_the_numbers_of_the_metrics_file(tracked):
    folder, recorder = tracked
    rows = list(read_metrics(folder / "metrics.jsonl"))
    assert {row["step"] for row in rows} == set(recorder.numbers)
    for row in rows:
        assert {
            name: value for name, value in row.items() if name not in ("step", "time")
        } == recorder.numbers[row["step"]]
    assert recorder.closed


def test_pictures_and_films_come_with_every_evaluation_and_stay_in_the_folder(tracked):
    folder, recorder = tracked
    names = {name for _, name, _ in recorder.seen if name.startswith("figures/")}
    assert names == {f"figures/{path.stem}" for path in (folder / "figures").glob("*.png")}
    pictures = [(step, name) for step, name, _ in recorder.seen if name.startswith("figures/")]
    assert pictures == [(2, "figures/projection"), (4, "figures/projection")]
    films = [(step, start) for step, name, start in recorder.seen if name == "videos/open_loop"]
    assert films == [(2, b"GIF8"), (4, b"GIF8")]
    assert all(start == b"\x89PNG" for _, name, start in recorder.seen if name.startswith("figures/"))


def test_tables_are_the_proof_and_the_gradient_reports(tracked):
    folder, recorder = tracked
    ((step, columns, rows),) = recorder.tables["tables/reach"]
    reach = json.loads((folder / "reach.json").read_text())
    assert step == 0
    assert columns == ["loss", "weight", *reach["groups"]]
    for name, _, *norms in rows:
        moved = {group for group, norm in zip(reach["groups"], norms, strict=True) if norm}
        assert moved == set(reach["losses"][name]["derived"])
    reports = [json.loads(line) for line in (folder / "gradients.jsonl").read_text().splitlines()]
    assert (
        [step for step, _, _ in recorder.tables["tables/gradients"]]
        == [row["step"] for row in reports]
        == [2, 4]
    )
    _, columns, rows = recorder.tables["tables/gradients"][-1]
    cell = next(row for row in rows if row[0] == "jepa")[columns.index("predictor")]
    assert cell == reports[-1]["norms"]["predictor"]["jepa"]


def test_checkpoints_are_handed_over_when_they_are_whole(tracked):
    _, recorder = tracked
    kept = [(step, name) for step, kind, name in recorder.seen if kind == "files/checkpoint"]
    assert kept[0] == (2, "step-00000002")
    assert kept[-1] == (4, "step-00000004")


def test_trackers_leave_no_trace_in_training(tracked, tmp_path, monkeypatch):
    folder, _ = tracked
    monkeypatch.chdir(tmp_path)
    assert trainer.main([*TINY, *FLAGS, "--name", "b", "--no-report"]) == 0
    assert numbers(tmp_path / "runs" / "b") == numbers(folder)


def test_a_tracker_that_is_not_installed_is_one_sentence_and_leaves_no_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "tensorboard", None)
    assert trainer.main([*TINY, "--steps", "2", "--name", "a", "--tensorboard"]) == 2
    assert "jepa-world-model[tensorboard]" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_film_shows_truth_beside_imagination_one_row_a_window(tmp_path):
    true = np.zeros((2, 5, 3, 16, 16), np.uint8)
    true[:, :, 0, 4, 4] = 255
    imagined = np.full_like(true, 80)
    imagined[1] = np.arange(50, 300, 50, dtype=np.uint8)[:, None, None, None]  # equal frames would become one
    with Image.open(save_film(tmp_path / "a.gif", true, imagined)) as film:
        assert film.n_frames == 5
        film.seek(3)
        frame = np.asarray(film.convert("RGB")).astype(int)
    assert frame.shape == (2 * 96, 2 * 96, 3)
    assert abs(frame[:96, 96:] - 80).max() <= 8  # a palette of 256 colours rounds
    assert abs(frame[96:, 96:] - 200).max() <= 8
    assert frame[4 * 6 + 3, 4 * 6 + 3, 0] > 240


def test_gradient_cells_leave_empty_what_has_no_way():
    columns, rows = gradient_cells({"encoder": {"recon": 0.5}, "predictor": {"jepa": 2.0, "recon": 0.1}})
    assert columns == ["loss", "encoder", "predictor"]
    assert rows == [["recon", 0.5, 0.1], ["jepa", None, 2.0]]


def test_the_page_of_names_lists_what_is_sent(tracked):
    _, recorder = tracked
    page = (Path(__file__).parents[2] / "docs" / "tracking.md").read_text(encoding="utf-8")
    patterns = [re.sub(r"<\w+>", r"[\\w-]+", name) for name in re.findall(r"`([a-z_/<>]+)`", page)]
    sent = {
        *recorder.tables,
        *(name for _, name, _ in recorder.seen),
        *(n for v in recorder.numbers.values() for n in v),
    }
    for name in sent:
        assert any(re.fullmatch(pattern, name) for pattern in patterns), name
