"""Trackers: the same names everywhere, files that others can read, and no failure that hurts a training."""

from __future__ import annotations

import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.track import TensorBoardTracker, WandbTracker, markdown

PIXELS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
ROWS = [["jepa", 0.5, None], ["h2z", 2.0, 1e-5]]
COLUMNS = ["loss", "encoder", "predictor"]


def send_everything(tracker, place: Path) -> None:
    """One thing of every kind."""
    Image.fromarray(PIXELS).save(place / "a.png")
    Image.fromarray(PIXELS).save(
        place / "a.gif", save_all=True, append_images=[Image.fromarray(255 - PIXELS)]
    )
    (place / "step-00000003").mkdir()
    (place / "step-00000003" / "model.safetensors").write_bytes(b"weights")
    tracker.write(3, {"loss/jepa": 0.25, "eval/probe_z_r2": 0.75})
    tracker.picture(3, "figures/projection", place / "a.png")
    tracker.video(3, "videos/open_loop", place / "a.gif")
    tracker.table(3, "tables/reach", COLUMNS, ROWS)
    tracker.files(3, "files/checkpoint", place / "step-00000003")


# Weights & Biases


class FakeRun:
    def __init__(self, fail_at: int | None = None) -> None:
        self.fail_at, self.records, self.axes, self.finished = fail_at, [], [], 0

    def define_metric(self, name: str, step_metric: str = "") -> None:
        self.axes.append((name, step_metric))

    def log(self, values: dict) -> None:
        if values["step"] == self.fail_at:
            raise RuntimeError("broken pipe")
        self.records.append(values)

    def log_artifact(self, artifact: object, aliases: list[str]) -> None:
        self.records.append((artifact, aliases))

    def finish(self) -> None:
        self.finished += 1


def fake_wandb(monkeypatch: pytest.MonkeyPatch, run: FakeRun, *, offline_only: bool) -> list[dict]:
    calls = []

    def init(**options: object) -> FakeRun:
        calls.append(options)
        if offline_only and options["mode"] == "online":
            raise TimeoutError("no answer\nlong trace")
        return run

    module = types.SimpleNamespace(init=init, Settings=lambda **options: options)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return calls


def test_wandb_without_a_connection_goes_offline_with_one_line(tmp_path, monkeypatch, capsys):
    run = FakeRun()
    calls = fake_wandb(monkeypatch, run, offline_only=True)
    sink = WandbTracker(tmp_path / "r", mode="online", timeout_s=3)
    assert [call["mode"] for call in calls] == ["online", "offline"]
    assert calls[0]["settings"]["init_timeout"] == 3
    assert calls[0]["id"] != calls[1]["id"]  # wandb refuses the id of an attempt that timed out
    assert capsys.readouterr().err == "warning: wandb online failed (no answer); logging offline\n"
    sink.write(1, {"a": 1.0})
    sink.close()
    sink.close()
    assert run.records == [{"a": 1.0, "step": 1}]
    assert run.axes == [("step", ""), ("*", "step")]
    assert run.finished == 1


def test_wandb_that_breaks_costs_one_line_and_no_training(tmp_path, monkeypatch, capsys):
    run = FakeRun(fail_at=2)
    fake_wandb(monkeypatch, run, offline_only=False)
    sink = WandbTracker(tmp_path, mode="online")
    for step in (1, 2, 3):
        sink.write(step, {"a": 1.0})
    assert capsys.readouterr().err.count("\n") == 1
    assert run.records == [{"a": 1.0, "step": 1}]


def test_a_resumed_run_keeps_its_wandb_id(tmp_path, monkeypatch):
    calls = fake_wandb(monkeypatch, FakeRun(), offline_only=False)
    WandbTracker(tmp_path, mode="online")
    WandbTracker(tmp_path, mode="online")
    assert calls[0]["id"] == calls[1]["id"]


def test_the_account_that_was_asked_for_is_passed_on(tmp_path, monkeypatch):
    calls = fake_wandb(monkeypatch, FakeRun(), offline_only=False)
    WandbTracker(tmp_path, entity="team")
    WandbTracker(tmp_path)
    assert calls[0]["entity"] == "team"
    assert "entity" not in calls[1]


def test_wandb_disabled_imports_nothing_and_a_wrong_mode_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it now fails
    sink = WandbTracker(tmp_path, mode="disabled")
    sink.write(1, {"a": 1.0})
    sink.close()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="pip install wandb"):
        WandbTracker(tmp_path, mode="offline")
    with pytest.raises(UserError, match="must be online, offline or disabled"):
        WandbTracker(tmp_path, mode="on")


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_wandb_offline_leaves_a_folder_to_sync_with_everything_in_it(tmp_path):
    (tmp_path / "my run").mkdir()
    tracker = WandbTracker(tmp_path / "my run", settings={"seed": 7})
    send_everything(tracker, tmp_path)
    tracker.close()
    (folder,) = (tmp_path / "my run" / "wandb").glob("offline-run-*")
    (log,) = folder.glob("*.wandb")
    deadline = time.monotonic() + 30  # a process of wandb's own writes the last of it
    while b"step-3" not in (written := log.read_bytes()) and time.monotonic() < deadline:
        time.sleep(0.05)
    # Protocol buffers, one after another: names stand in plain text.
    for name in (
        "loss/jepa",
        "eval/probe_z_r2",
        "figures/projection",
        "videos/open_loop",
        "tables/reach",
        "seed",
    ):
        assert name.encode() in written, name
    assert b"my-run-checkpoint" in written
    assert b"step-3" in written
    media = {path.suffix for path in (folder / "files" / "media").rglob("*") if path.is_file()}
    assert media == {".png", ".gif", ".json"}


def test_wandb_without_checkpoints_sends_none(tmp_path, monkeypatch):
    run = FakeRun()
    fake_wandb(monkeypatch, run, offline_only=False)
    WandbTracker(tmp_path, checkpoints=False).files(3, "files/checkpoint", tmp_path)
    assert run.records == []


# TensorBoard


def read_events(folder: Path):
    """What TensorBoard itself reads from event files."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return events


@pytest.mark.extra
def test_tensorboard_reads_every_kind_under_its_name(tmp_path):
    pytest.importorskip("tensorboard")
    tracker = TensorBoardTracker(tmp_path / "tb")
    send_everything(tracker, tmp_path)
    tracker.close()
    tracker.write(4, {"late": 1.0})  # closed: nothing happens
    events = read_events(tmp_path / "tb")
    assert sorted(events.Tags()["scalars"]) == ["eval/probe_z_r2", "loss/jepa"]
    (scalar,) = events.Scalars("loss/jepa")
    assert (scalar.step, scalar.value) == (3, 0.25)
    (image,) = events.Images("figures/projection")
    assert (image.width, image.height, image.encoded_image_string[:4]) == (6, 4, b"\x89PNG")
    (film,) = events.Images("videos/open_loop")
    assert film.encoded_image_string == (tmp_path / "a.gif").read_bytes()
    (table,) = events.Tensors("tables/reach")
    assert "| jepa | 0.5 |  |" in table.tensor_proto.string_val[0].decode()
    (files,) = events.Tensors("files/checkpoint")
    assert "step-00000003" in files.tensor_proto.string_val[0].decode()


@pytest.mark.extra
def test_a_resumed_run_hides_what_was_written_after_its_start(tmp_path):
    pytest.importorskip("tensorboard")
    for start, steps in ((0, (1, 2, 3)), (1, (2,))):
        tracker = TensorBoardTracker(tmp_path, start=start)
        for step in steps:
            tracker.write(step, {"a": float(10 * start + step)})
        tracker.close()
    assert [(event.step, event.value) for event in read_events(tmp_path).Scalars("a")] == [
        (1, 1.0),
        (2, 12.0),
    ]


@pytest.mark.extra
def test_tensorboard_that_breaks_costs_one_line(tmp_path, capsys, monkeypatch):
    pytest.importorskip("tensorboard")
    tracker = TensorBoardTracker(tmp_path)

    def fail(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(tracker._writer, "add_scalar", fail)
    for step in (1, 2):
        tracker.write(step, {"a": 1.0})
    assert capsys.readouterr().err == (
        "warning: TensorBoard stopped at step 1 (No space left on device); the run folder goes on\n"
    )


def test_without_tensorboard_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UserError, match=r"jepa-world-model\[tensorboard\]"):
        TensorBoardTracker(tmp_path)


def test_a_table_as_markdown_has_three_digits_and_empty_cells():
    assert markdown(COLUMNS, [["a|b", 0.12345, None]]).split("\n") == [
        "| loss | encoder | predictor |", "| --- | --- | --- |", "| a\\|b | 0.123 |  |",
    ]  # fmt: skip
