"""Gradient reports and the collapse guard in a real run: its numbers stay, and files say what to do."""

from __future__ import annotations

import json

import pytest

from jepa_world_model.core.config import load_config
from jepa_world_model.core.gradient_report import GradientLog
from jepa_world_model.core.log import read_metrics
from jepa_world_model.experiment import TrainConfig, train
from jepa_world_model.experiment import watch as watching
from tests.commands.test_ablate import TINY


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("watch")

    def make(name: str, *flags: str):
        words = [*TINY, "--data.cache-dir", str(place / "data"), "--output-dir", str(place), "--name", name]
        return train(
            load_config(TrainConfig, [*words, "--log-every", "1", "--steps", "6", *flags], prog="test")
        )

    return make


def numbers(folder):
    return [
        {name: value for name, value in row.items() if name.startswith(("loss/", "grad_norm/", "eval/"))}
        for row in read_metrics(folder / "metrics.jsonl")
    ]


def test_reports_change_no_number_of_a_run_and_leave_their_files(run, capsys):
    plain, watched = run("plain"), run("watched", "--grad-report-every", "2")
    assert numbers(plain) == numbers(watched)
    rows = [json.loads(line) for line in (watched / "gradients.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6]
    reach = json.loads((watched / "reach.json").read_text())["losses"]
    for row in rows:
        for group, norms in row["norms"].items():
            assert set(norms) == {loss for loss in reach if group in reach[loss]["structural"]}
    logged = list(read_metrics(watched / "metrics.jsonl"))[-1]
    assert logged["grad/predictor/jepa"] == rows[-1]["norms"]["predictor"]["jepa"]
    told = json.loads((watched / "advice.json").read_text())["advice"]
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("advice: ")]
    assert printed == [f"advice: {one['text']}" for one in told]
    assert not (plain / "gradients.jsonl").exists()
    assert json.loads((plain / "advice.json").read_text()) == {"advice": []}


def test_a_report_measures_the_gradient_of_the_step_that_follows(run):
    """On a module that one loss alone moves, the norm in the report is the norm in the step."""
    folder = run("alone", "--grad-report-every", "1")
    rows = {row["step"]: row for row in GradientLog(folder / "gradients.jsonl", start=6).rows}
    steps = {row["step"]: row for row in read_metrics(folder / "metrics.jsonl")}
    for done in (1, 2, 3, 4, 5):  # the report after `done` steps is on the batch of the step that follows
        (norm,) = rows[done]["norms"]["z_to_h"].values()
        assert norm == pytest.approx(steps[done + 1]["grad_norm/z_to_h"], rel=1e-5)


def test_a_collapse_is_told_while_the_run_goes_on(run, capsys, monkeypatch):
    real = watching.evaluate
    monkeypatch.setattr(watching, "evaluate", lambda *args: real(*args) | {"eval/std_z": 0.0})
    folder = run("still", "--eval-every", "2")
    err = capsys.readouterr().err
    assert err.count("warning: step 2: z collapses: its standard deviation is 0") == 1
    assert err.count("collapses") == 1
    (told,) = json.loads((folder / "advice.json").read_text())["advice"]
    assert told["kind"] == "collapse"
