"""`jepa-wm ablate`: arms, runs in processes of their own, paired differences, and the page."""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path

import pytest

from jepa_world_model.cli import main
from jepa_world_model.core.config import to_toml
from jepa_world_model.core.errors import UserError
from jepa_world_model.core.log import JsonlSink, read_metrics
from jepa_world_model.experiment import ablation_runs, ablation_table
from jepa_world_model.experiment.ablation import (
    Arm,
    Trial,
    check_trials,
    make_arms,
    make_trials,
    toggle_flags,
)
from jepa_world_model.experiment.ablation_page import ablation_page
from jepa_world_model.experiment.ablation_table import interval, results
from jepa_world_model.experiment.config import TrainConfig

TINY = [
    "--model.image-size", "32", "--model.encoder-schedule", "8", "8", "--model.decoder-schedule", "8", "8",
    "--model.z-dim", "8", "--model.state-dim", "8", "--model.hidden-dim", "16", "--model.pose-dim", "2",
    "--seq-len", "5", "--rollout-horizon", "4", "--steps", "3", "--batch-size", "2", "--eval-windows", "4",
    "--no-report", "--no-diagnostics", "--checkpoint-every", "1", "--data.episodes", "6", "--data.length", "12",
    "--data.options", "size", "32", "cells", "4", "layout", "open",
]  # fmt: skip


def names(arms: list[Arm]) -> list[str]:
    return [arm.name for arm in arms]


def test_a_toggle_is_a_loss_an_edge_or_a_setting():
    arms = make_arms([], toggles=["z2h=0", "z->h=0.5", "pose_delta_detach_h=false", "jepa=2,optim.lr=0.001"])
    assert names(arms) == [
        "base",
        "z2h-0",
        "z-to-h-0.5",
        "pose_delta_detach_h-false",
        "jepa-2+optim.lr-0.001",
    ]
    cfgs = [arm.cfg for arm in arms]
    assert cfgs[1].loss_weights.z2h == 0
    assert cfgs[2].gates == {"z->h": 0.5}
    assert cfgs[3].model.pose_delta_detach_h is False
    assert (cfgs[4].loss_weights.jepa, cfgs[4].optim.lr) == (2, 0.001)
    assert all(cfg.threads == 1 for cfg in cfgs)


def test_leave_one_out_takes_each_active_loss_and_add_each_named_one():
    arms = make_arms(["--loss-weights.z2h", "0"], leave_one_out=True, add=["sigreg", "pose_measure_p=0.5"])
    without = [arm for arm in arms if arm.name.startswith("without-")]
    assert len(without) == 13  # 14 are on by default
    assert all(getattr(arm.cfg.loss_weights, arm.name.removeprefix("without-")) == 0 for arm in without)
    added = {arm.name: arm.cfg.loss_weights for arm in arms if arm.name.startswith("with-")}
    assert added["with-sigreg"].sigreg == 1
    assert added["with-pose_measure_p-0.5"].pose_measure_p == 0.5


def test_an_arm_that_is_there_already_is_not_run_twice():
    assert names(make_arms([], toggles=["z2h=0", "loss_weights.z2h=0", "jepa=1"])) == ["base", "z2h-0"]


@pytest.mark.parametrize(
    ("toggle", "words"),
    [
        ("z2x=0", "did you mean 'z2h'"),
        ("z->hh=0", "did you mean 'z->h'"),
        ("z->h=2", "must lie in [0, 1]"),
        ("z2h", "must read name=value"),
        ("detach_decoder=maybe", "must be true or false"),
        ("z2h=-1", "0 (off) or above"),
        ("costs=1", "no loss, edge or setting"),
    ],
)
def test_a_toggle_that_cannot_be_is_one_sentence(toggle, words, capsys):
    assert main(["ablate", "--toggles", toggle]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_flags_that_the_ablation_sets_itself_are_refused():
    with pytest.raises(UserError, match="use --seeds and --out"):
        make_arms(["--output-dir=x"], toggles=["z2h=0"])
    with pytest.raises(UserError, match="nothing differs from the base"):
        make_arms([])


def test_the_flag_of_a_switch_that_is_turned_off():
    assert toggle_flags("model.pose_delta_detach_h=false") == ["--model.no-pose_delta_detach_h"]
    assert toggle_flags("detach_decoder=True") == ["--detach_decoder"]


def test_the_interval_of_three_values_is_students():
    found = interval([1.0, 2.0, 3.0])
    assert found.mean == 2
    assert found.half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert math.isnan(interval([1.0]).half)


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """Runs of a base and two arms with made-up results, all finished but one."""
    return made_up(tmp_path, monkeypatch)


def made_up(place: Path, patch: pytest.MonkeyPatch) -> list[Trial]:
    """The trials of such runs below a folder."""
    patch.setattr(ablation_table, "is_finished", lambda trial: trial.folder.is_dir())
    arms = make_arms([], toggles=["z2h=0", "z->h=1"])
    trials = make_trials(arms, [0, 1, 2], place)
    for trial in trials:
        if trial.name == "z-to-h-1-s2":
            continue
        noise, better = (0.0, 0.1, 0.25)[trial.seed], trial.arm.name == "z2h-0"
        trial.folder.mkdir()
        (trial.folder / "config.toml").write_text(to_toml(trial.cfg))
        sink = JsonlSink(trial.folder / "metrics.jsonl")
        for step in (10, 20):
            ratio = noise + 1 - (0.5 + 0.01 * trial.seed) * better
            sink.write(
                step, {"eval/latent_one_step_ratio": ratio, "eval/probe_z_r2": noise, "loss/jepa": 1.0}
            )
        sink.close()
    return trials


def test_differences_are_paired_by_seed(finished):
    found = results(finished, {"z-to-h-1-s2": "exit code 2: error: not finite"})
    assert found.metrics == ["eval/latent_one_step_ratio", "eval/probe_z_r2"]
    better = found.cells["z2h-0"]["eval/latent_one_step_ratio"]
    assert better.change.mean == pytest.approx(-0.51)
    assert better.change.half < 0.03 < better.over_seeds.half  # seeds differ, but alike in both arms
    assert better.better is True
    same = found.cells["z-to-h-1"]["eval/probe_z_r2"]
    assert set(same.values) == {0, 1}
    assert (same.change.mean, same.better) == (0, None)
    assert found.cells["base"]["eval/probe_z_r2"].change is None


def test_the_table_tells_numbers_routing_and_failures(finished):
    found = results(finished, {"z-to-h-1-s2": "exit code 2: error: not finite"})
    text = found.to_markdown()
    assert "| z2h-0 | 0.607 ± 0.288 (-0.51 ± 0.0248*) |" in text
    assert "- z2h-0: the arm leaves out z2h, which moves z_to_h" in text
    assert "also reach encoder (z->h opened)" in text
    assert "- failed: z-to-h-1-s2: exit code 2" in text
    data = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert data["arms"][1]["metrics"]["eval/probe_z_r2"]["values"] == {"0": 0.0, "1": 0.1, "2": 0.25}


def test_chosen_metrics_and_one_that_is_not_there(finished):
    assert results(finished, {}, ["loss/jepa", "probe_z_r2"]).metrics == ["loss/jepa", "eval/probe_z_r2"]
    with pytest.raises(UserError, match="did you mean 'loss/jepa'"):
        results(finished, {}, ["loss/jepo"])


def test_the_page_stands_alone_and_has_every_arm(finished):
    html = ablation_page(results(finished, {"z-to-h-1-s2": "exit <code> 2"}))
    assert "http" not in html
    assert "<script" not in html
    for words in (
        "z2h-0",
        "z-to-h-1",
        "8</b> of 9 runs",
        "exit &lt;code&gt; 2",
        "leaves out z2h",
        "&minus;0.51",
    ):
        assert words in html
    assert html.count("<svg") >= 6 + 4  # strips, curves


def test_a_page_without_any_finished_run_says_so(tmp_path):
    trials = make_trials(make_arms([], toggles=["z2h=0"]), [0], tmp_path)
    found = results(trials, {trial.name: "failed" for trial in trials})
    assert "No run has finished" in ablation_page(found)
    assert "| base |" in found.to_markdown()


class Stub:
    def __init__(self, command, **_):
        self.command = command


def test_a_run_without_checkpoint_starts_again_and_nothing_is_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr(ablation_runs.subprocess, "Popen", Stub)
    trial = Trial(arm=Arm(name="base", what="", cfg=TrainConfig()), seed=3, out=tmp_path)
    trial.folder.mkdir()
    (trial.folder / "config.toml").write_text("")
    command = ablation_runs.start(trial).command
    assert command[0] == sys.executable
    assert "--resume" not in command
    assert (tmp_path / "unfinished" / "base-s3-1" / "config.toml").exists()
    assert not trial.folder.exists()
    monkeypatch.setattr(ablation_runs, "steps_done", lambda _: 1)
    trial.folder.mkdir()
    assert ablation_runs.start(trial).command[-1] == "--resume"


def test_a_folder_with_other_settings_is_refused_before_anything_runs(tmp_path):
    flags = [*TINY, "--data.cache-dir", str(tmp_path / "data")]
    trials = make_trials(make_arms(flags, toggles=["z2h=0"]), [0], tmp_path)
    trials[0].folder.mkdir()
    (trials[0].folder / "config.toml").write_text("steps = 7\n")
    with pytest.raises(UserError, match=r"other settings \(steps 7 there, 3 now.*choose another --out"):
        check_trials(trials)


def test_runs_fail_alone_finish_once_and_resume(tmp_path, capsys):
    out = tmp_path / "out"
    own = ["ablate", "--seeds", "0", "--out", str(out), "--jobs", "2", "--toggles", "z2h=0"]
    flags = ["--", *TINY, "--data.cache-dir", str(tmp_path / "data")]
    assert main([*own, "optim.lr=1e30", *flags]) == 1
    text = capsys.readouterr().out
    assert "optim.lr-1e30-s0: exit code 2: error: step" in text
    assert "- z2h-0: the arm leaves out z2h" in text
    data = json.loads((out / "ablation.json").read_text())
    assert [arm["finished_seeds"] for arm in data["arms"]] == [[0], [0], []]
    assert list(data["failures"]) == ["optim.lr-1e30-s0"]
    assert (out / "ablation.html").exists()

    before = list(read_metrics(out / "base-s0" / "metrics.jsonl"))[-1]
    newest = sorted((out / "base-s0" / "checkpoints").iterdir())[-1]
    shutil.rmtree(newest)  # as if the run had been killed before its last step
    assert main([*own, *flags]) == 0
    assert "2 runs, 1 of them finished before" in capsys.readouterr().out
    after = list(read_metrics(out / "base-s0" / "metrics.jsonl"))[-1]
    assert after["step"] == before["step"] == 3
    assert after["loss/total"] == before["loss/total"]  # a resumed run is the run
    assert Path(out / "logs" / "base-s0.log").read_text().count("Which loss moves which module") == 2
