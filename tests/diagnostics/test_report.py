"""The page of a run, from a folder made by numpy."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from jepa_world_model.core.errors import UserError
from jepa_world_model.diagnostics import figures
from jepa_world_model.diagnostics.charts import Series, line_chart, shares, thinned
from jepa_world_model.diagnostics.page import number
from jepa_world_model.diagnostics.reach_picture import reach_table
from jepa_world_model.diagnostics.records import curves, read_run
from jepa_world_model.diagnostics.report import write_report
from jepa_world_model.diagnostics.scorecard import find
from tests.diagnostics.synthetic_run import EVAL, LOSSES, reach_json, snapshot_arrays, write_run

VOID = {"meta", "link", "wbr", "img", "br", "path", "circle", "rect", "line", "use"}


class Tags(HTMLParser):
    """Holds that every tag is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open, tag
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "20260101-gridworld-s3", steps=600)


@pytest.fixture(scope="module")
def text(run):
    return write_report(run).read_text()


def test_the_page_needs_nothing_else(text):
    outside = [
        link for link in re.findall(r'(?:src|href)="([^"]*)"', text) if not link.startswith(("data:", "#"))
    ]
    assert outside == []
    assert "url(http" not in text
    assert "@import" not in text
    assert len(text) < 4_000_000


def test_the_page_is_well_formed_and_complete(text):
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert "This picture needs" not in text
    assert "prefers-color-scheme:dark" in text
    for word in (
        "gridworld",
        "600",
        "1.08 million parameters",
        "CPU with 2 threads",
        *(name.replace("_", "_<wbr>") for name in LOSSES),
    ):
        assert word in text, word


def test_sections_say_what_they_need_when_there_is_nothing(tmp_path):
    text = write_report(tmp_path).read_text()
    for needed in ("reach.json", "metrics.jsonl", "snapshot.npz", "config.toml", "gradients.jsonl"):
        assert f"{needed}" in text
    assert text.count('class="missing"') == 15


def test_missing_folders_and_broken_files_are_one_sentence(tmp_path):
    with pytest.raises(UserError, match="no run folder"):
        write_report(tmp_path / "nowhere")
    (tmp_path / "reach.json").write_text("{")
    with pytest.raises(UserError, match=r"reach\.json is not JSON"):
        write_report(tmp_path)


def test_names_from_outside_cannot_become_markup(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        json.dumps({"step": 1, "loss/<script>": 1.0, "eval/<b>": 2.0}) + "\n"
    )
    (tmp_path / "changes.json").write_text(json.dumps({"<i>": "<script>"}))
    text = write_report(tmp_path).read_text()
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_values_that_are_not_finite_are_told_and_left_out(tmp_path):
    lines = [{"step": 1, "loss/jepa": 1.0}, {"step": 2, "loss/jepa": "NaN"}, {"step": 3, "loss/jepa": 3.0}]
    (tmp_path / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 4, "lo'
    )
    record = read_run(tmp_path)
    assert record.broken == {"loss/jepa": 1}
    assert record.metrics["loss/jepa"].values.tolist() == [1.0, 3.0]
    assert "Not finite: loss/jepa (1 records)" in write_report(tmp_path).read_text()


def test_the_last_record_of_a_step_wins():
    made, _ = curves([{"step": 2, "a": 1.0}, {"step": 1, "a": 5.0}, {"step": 2, "a": 3.0}])
    assert made["a"].steps.tolist() == [1, 2]
    assert made["a"].values.tolist() == [5.0, 3.0]


def test_the_reach_table_tells_declared_from_measured():
    picture = reach_table(reach_json())
    assert 'class="cell stray" title="scale_dp &rarr; predictor: NOT declared' in picture
    assert 'class="cell hollow" title="z2h &rarr; z_to_h' in picture
    declared = sum(len(groups) for groups in LOSSES.values())
    assert picture.count('class="cell on" style') == declared - 1


def test_thinning_keeps_the_range():
    values = np.sin(np.arange(5000.0))
    steps, middle, low, high = thinned(Series(np.arange(5000.0), values), 50)
    assert len(steps) == 50
    assert low.min() == values.min()
    assert high.max() == values.max()
    assert ((low <= middle) & (middle <= high)).all()


@pytest.mark.parametrize("values", [[1.0], [2.0, 2.0], [0.0, 0.0], [1e-9, 1e9], [-1.0, 5.0]])
def test_charts_hold_whatever_the_values(values):
    series = Series(np.arange(len(values), dtype=float), np.array(values))
    assert "nan" not in line_chart("a", [series], bar=0.5)
    assert "nan" not in shares({"a": 0.0, "b": 0.0})


def test_numbers_read_well():
    assert [number(v) for v in (0, 0.0123456, 1.5e-7, 12.0, 1234567.0, 999.9, float("nan"))] == [
        "0", "0.0123", "1.5e-7", "12", "1,234,567", "1,000", "not finite",
    ]  # fmt: skip


def test_bars_are_met_on_the_right_side():
    assert find("eval/open_loop_ratio_k8").met(0.7)
    assert not find("open_loop_ratio_k8").met(1.2)
    assert find("probe_z_r2").met(0.1)
    assert find("recon_mse").met(0.1) is None
    assert find("something_else") is None
    assert find("open_loop_ratio_k8").title.endswith("8")
    assert all(find(name) for name in EVAL)


def test_two_channels_and_one_become_colours():
    two = figures.as_rgb(np.array([[[[255]], [[0]]], [[[0]], [[255]]]], np.uint8))  # [2,2,1,1]
    assert two.shape == (2, 1, 1, 3)
    assert (two[0] != two[1]).any()
    assert figures.as_rgb(np.zeros((1, 1, 4, 4), np.uint8)).shape == (1, 4, 4, 3)
    assert figures.as_rgb(np.zeros((1, 5, 4, 4), np.uint8)).shape == (1, 4, 4, 3)


def test_grids_keep_every_picture():
    rows = [np.full((3, 64, 64, 3), 9, np.uint8), np.full((2, 64, 64, 3), 5, np.uint8)]
    sheet = figures.grid(rows)
    assert sheet.shape == (2 * 64 + 3, 3 * 64 + 6, 4)
    assert sheet[0, 0].tolist() == [9, 9, 9, 255]
    assert sheet[-1, -1].tolist() == [0, 0, 0, 0]  # the second row is shorter


def test_every_figure_draws_without_global_state(tmp_path):
    made = figures.all_figures(snapshot_arrays())
    assert {"projection", "trajectories", "increments", "reconstruction_0", "open_loop_2"} <= set(made)
    files = figures.save_figures(tmp_path, snapshot_arrays())
    assert {file.stem for file in files} == set(made)
    assert all(file.stat().st_size > 1000 for file in files)
    continuous = snapshot_arrays() | {"action_kind": np.array("continuous")}
    assert "<svg" in figures.svg(figures.increments(continuous), "increments")
    bare = {k: v for k, v in snapshot_arrays().items() if k not in ("place", "path", "h_plane")}
    assert len(figures.projection(bare).axes) == 1
    assert len(figures.trajectories(bare).axes) == 1
    wide = snapshot_arrays() | {
        "pose": np.random.default_rng(0).normal(size=(4, 9, 6)),
        "path": np.zeros((4, 9, 1)),
    }
    assert len(figures.trajectories(wide).axes) == 3


def test_figures_take_the_colour_of_the_page():
    words = figures.svg(figures.projection(snapshot_arrays()), "projection")
    assert "currentColor" in words
    assert figures.INK not in words
    assert words == figures.svg(figures.projection(snapshot_arrays()), "projection")


def test_the_advice_of_a_run_stands_on_its_first_screen(tmp_path):
    run = write_run(tmp_path / "advised", steps=20)
    told = "jepa is 99% of the gradient on predictor; lower --loss-weights.jepa"
    (run / "advice.json").write_text(json.dumps({"advice": [{"kind": "dominates", "text": told}]}))
    assert told in write_report(run).read_text().partition("<h2")[0]
