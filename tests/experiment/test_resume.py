"""The same command carries a run on after whatever ended it, to the same weights and the same records."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

import jepa_world_model_trainer as trainer
from jepa_world_model.core import checkpoint
from jepa_world_model.core.checkpoint import latest_checkpoint, read_extra
from jepa_world_model.core.config import from_toml
from jepa_world_model.experiment import TrainConfig, keep, run
from tests.experiment.test_run import TINY, numbers

EVERYTHING = [
    *TINY, "--steps", "6", "--log-every", "2", "--eval-every", "2", "--checkpoint-every", "2", "--grad-report-every", "3",
    "--loss-normalization", "--ema", "0.9", "--best-metric", "eval/recon_mse", "--best-is", "highest",
    "--loss-weights.sigreg", "0.1", "--loss-schedules", "jepa", "ramp:1:5", "--no-report", "--resume",
]  # fmt: skip


class Killed(BaseException):
    """Ends a training where it stands, as SIGKILL would; nothing catches it."""


def start(name: str, *flags: str) -> int:
    return trainer.main([*EVERYTHING, "--name", name, *flags])


def weights(folder: Path) -> dict[str, object]:
    newest = latest_checkpoint(folder / "checkpoints")
    files = ("model.safetensors", "optimizer.safetensors", "average.safetensors")
    return {
        f"{file}/{name}": tensor.numpy().tobytes()
        for file in files
        for name, tensor in load_file(newest / file).items()
    }


def assert_same_end(whole: Path, parts: Path) -> None:
    assert weights(whole) == weights(parts)
    assert numbers(whole) == numbers(parts)
    assert (whole / "gradients.jsonl").read_text() == (parts / "gradients.jsonl").read_text()
    assert json.loads((whole / "advice.json").read_text()) == json.loads((parts / "advice.json").read_text())
    ends = [read_extra(latest_checkpoint(folder / "checkpoints")) for folder in (whole, parts)]
    assert ends[0] == ends[1]
    names = [sorted(path.name for path in (folder / "checkpoints").iterdir()) for folder in (whole, parts)]
    assert names[0] == names[1]


def die_at(monkeypatch: pytest.MonkeyPatch, place: object, name: str, call: int) -> None:
    """Killed at the call-th call of a function."""
    real, calls = getattr(place, name), []

    def dying(*args: object, **kwargs: object) -> object:
        calls.append(1)
        if len(calls) == call:
            raise Killed
        return real(*args, **kwargs)

    monkeypatch.setattr(place, name, dying)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert start("a") == 0
    return place


@pytest.mark.parametrize(("place", "name", "call"), [
    (run, "_announce", 1),  # the folder is made, nothing is trained
    (run, "train_step", 2),  # before the first checkpoint
    (run, "train_step", 4),
    (checkpoint, "_put_in_place", 2),  # mid-checkpoint: the draft is whole, not yet in its place
    (checkpoint, "prune", 3),
    (run.Watch, "evaluate", 2),
    (keep, "atomic_write", 1),  # the best checkpoint is written, its marker is not
    (run.Watch, "conclude", 1),  # all steps done, the advice not yet written
], ids=["made", "first steps", "later step", "checkpoint", "pruning", "evaluation", "best", "end"])  # fmt: skip
def test_killed_anywhere_the_same_command_ends_the_same(here, whole, monkeypatch, place, name, call):
    shutil.copytree(whole / "datasets", here / "datasets")
    with monkeypatch.context() as patch:
        die_at(patch, place, name, call)
        with pytest.raises(Killed):
            start("a")
    assert start("a") == 0
    assert_same_end(whole / "runs/a", here / "runs/a")


def test_a_damaged_newest_checkpoint_costs_a_warning_and_the_steps_since_the_one_before(here, whole):
    shutil.copytree(whole, here, dirs_exist_ok=True)
    newest = latest_checkpoint(here / "runs/a/checkpoints")
    (newest / "model.safetensors").write_bytes(b"half")
    with pytest.warns(UserWarning, match="passing over a damaged checkpoint"):
        assert start("a") == 0
    newest.with_name(f"damaged-{newest.name}").rename(
        here / "damaged"
    )  # set aside, beside those that are kept
    assert_same_end(whole / "runs/a", here / "runs/a")


def test_a_finished_run_started_again_trains_nothing_and_says_so(here, whole, capsys):
    shutil.copytree(whole, here, dirs_exist_ok=True)
    assert start("a") == 0
    assert "all 6 steps of runs/a are done" in capsys.readouterr().out
    assert_same_end(whole / "runs/a", here / "runs/a")
    assert start("a", "--steps", "4") == 2
    assert "has done 6 steps and 4 were asked for" in capsys.readouterr().err


def test_a_run_resumed_with_other_settings_says_which_and_its_configuration_follows(here, whole, capsys):
    shutil.copytree(whole, here, dirs_exist_ok=True)
    assert start("a", "--steps", "8", "--optim.lr", "0.001") == 0
    out = capsys.readouterr().out
    assert "note: setting steps: 6 until step 6, 8 from there on" in out
    settings = from_toml(TrainConfig, here / "runs/a/config.toml")
    assert (settings.steps, settings.optim.lr, settings.resume) == (8, 0.001, False)
    (row,) = map(json.loads, (here / "runs/a/resumes.jsonl").read_text().splitlines())
    assert (row["step"], row["changed"]["optim.lr"]) == (6, [0.002, 0.001])


def test_a_run_that_another_process_trains_is_refused(here, whole, capsys):
    shutil.copytree(whole, here, dirs_exist_ok=True)
    with run.Run.open("runs/a").locked():
        assert start("a", "--steps", "8") == 2
    assert f"process {os.getpid()} is training runs/a" in capsys.readouterr().err


def test_the_averaged_weights_are_those_that_are_evaluated_and_loaded(here, whole):
    from jepa_world_model.experiment.load import load

    (here / "datasets").symlink_to(whole / "datasets")
    model = load(whole / "runs/a", device="cpu").model
    newest = latest_checkpoint(whole / "runs/a/checkpoints")
    averaged, own = load_file(newest / "average.safetensors"), load_file(newest / "model.safetensors")
    name = "predictor.inner.weight"
    assert (model.predictor.inner.weight == averaged[name]).all()
    assert not (averaged[name] == own[name]).all()
    assert start("plain", "--ema", "0") == 0
    of = lambda rows, key: [row[key] for row in rows if key in row]
    plain, with_average = numbers(here / "runs/plain"), numbers(whole / "runs/a")
    assert of(plain, "loss/total") == of(with_average, "loss/total")  # the average changes no training number
    assert of(plain, "eval/recon_mse") != of(with_average, "eval/recon_mse")


def test_the_best_checkpoint_stays_beside_the_newest(here):
    assert start("a", "--keep-checkpoints", "1", "--best-is", "highest") == 0
    values = {
        row["step"]: row["eval/recon_mse"] for row in numbers(here / "runs/a") if "eval/recon_mse" in row
    }
    best = max(values, key=values.get)
    marked = json.loads((here / "runs/a/checkpoints/best.json").read_text())
    assert marked == {"step": best, "metric": "eval/recon_mse", "value": values[best]}
    kept = sorted(int(path.name[5:]) for path in (here / "runs/a/checkpoints").glob("step-*"))
    assert kept == sorted({best, 6})


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_in_order_and_the_same_command_goes_on(here, whole, monkeypatch, number, code, capsys):
    shutil.copytree(whole / "datasets", here / "datasets")
    real = run.train_step

    def step(*args: object, **kwargs: object) -> object:
        if args[3] == 2:
            os.kill(os.getpid(), number)
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(run, "train_step", step)
        assert start("a") == code
    assert (
        "stopped after step 3; continue with --config runs/a/config.toml --name a --resume"
        in capsys.readouterr().out
    )
    assert start("a") == 0
    assert_same_end(whole / "runs/a", here / "runs/a")


def test_sigkill_at_random_moments_changes_no_bit():
    script = Path(trainer.__file__).parent / "benchmarks" / "kill.py"
    done = subprocess.run(
        [sys.executable, script, "--kills", "2", "--steps", "8", "--no-faults"],
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "identical" in done.stdout
