"""Sinks: exact numbers on disk at once, one copy from the device, no sink that hurts a training."""

from __future__ import annotations

import io
import json
import math
import re
import resource
import signal
import types
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.log import (
    JsonlSink,
    TerminalSink,
    closing,
    read_metrics,
    rewind_metrics,
    to_host,
)


@given(st.lists(st.floats(width=32), max_size=5))
def test_to_host_gives_every_float32_exactly_and_in_order(numbers: list[float]):
    values = {f"v{i}": torch.tensor(number) for i, number in enumerate(numbers)}
    host = to_host(values)
    assert list(host) == list(values)
    assert all(a == b or (a != a and b != b) for a, b in zip(host.values(), numbers, strict=True))


def test_to_host_takes_mixed_kinds_and_refuses_what_is_not_one_number():
    values = {
        "a": torch.tensor([[2]]),
        "b": 0.1,
        "c": torch.tensor(True),
        "d": torch.tensor(1.5, dtype=torch.bfloat16),
    }
    assert to_host(values) == {"a": 2.0, "b": 0.1, "c": 1.0, "d": 1.5}
    assert all(type(value) is float for value in to_host(values).values())
    assert to_host({}) == {}
    with pytest.raises(RuntimeError):
        to_host({"a": torch.zeros(2)})


def test_to_host_makes_one_copy_for_a_whole_record(monkeypatch: pytest.MonkeyPatch):
    copies = []
    real = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: copies.append(self.shape) or real(self))
    to_host({str(i): torch.tensor(float(i)) for i in range(50)})
    assert copies == [(50,)]


def test_records_are_on_disk_at_once_and_read_back_exactly(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    sink = JsonlSink(path)
    first = {"loss/jepa": 0.1 + 0.2, "a": math.inf, "b": -math.inf, "c": 5e-324}
    sink.write(1, first)
    (record,) = read_metrics(path)  # before close
    assert record["step"] == 1
    assert {name: record[name] for name in first} == first
    sink.write(2, {"loss/jepa": math.nan})
    sink.close()
    raw = [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]
    assert raw[1]["loss/jepa"] == "NaN"
    assert math.isnan(list(read_metrics(path))[1]["loss/jepa"])


def test_a_last_line_cut_short_is_left_out_and_any_other_bad_line_is_named(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "a": 2}\n{"step": 2, "a"')
    assert list(read_metrics(path)) == [{"step": 1, "a": 2}]
    path.write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(UserError, match="line 2 is not a metrics record"):
        list(read_metrics(path))
    with pytest.raises(UserError, match="cannot read metrics"):
        list(read_metrics(tmp_path / "none.jsonl"))


def test_rewinding_keeps_the_past_and_sets_the_abandoned_future_aside(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    sink = JsonlSink(path)
    for step in (10, 20, 30):
        sink.write(step, {"a": step / 3})
    sink.close()
    with open(path, "a") as file:
        file.write('{"step": 40, "a"')
    assert rewind_metrics(path, 20) == 1
    assert [record["step"] for record in read_metrics(path)] == [10, 20]
    assert [record["step"] for record in read_metrics(tmp_path / "metrics.abandoned.jsonl")] == [30]
    assert rewind_metrics(path, 20) == 0
    assert rewind_metrics(tmp_path / "none.jsonl", 5) == 0
    JsonlSink(path).close()
    assert [record["step"] for record in read_metrics(path)] == [10, 20]


def test_rewinding_takes_rows_that_hold_tables_and_lists(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    rows = [{"step": 1, "table": {"a": 1}, "list": [1, "NaN"]}, {"step": 9, "table": {}}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert rewind_metrics(path, 5) == 1
    assert list(read_metrics(path)) == rows[:1]


def test_a_full_disk_is_one_sentence_and_leaves_no_half_line(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    sink = JsonlSink(path)
    sink.write(1, {"a": 1.0})
    size, before = path.stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, before[1]))
        with pytest.raises(UserError, match="cannot write"):
            sink.write(2, {"a": 1.0})
        sink.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.stat().st_size == size


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*metrics\.jsonl"):
        JsonlSink(tmp_path / "file" / "metrics.jsonl")


def test_plain_lines_show_step_loss_pace_and_what_hooks_measured():
    stream = io.StringIO()
    sink = TerminalSink(200, stream=stream)
    sink.write(50, {"loss/total": 0.12345, "loss/jepa": 1.0, "eval/loss": 0.5})
    sink.write(60, {"probe/r2": 0.25})
    sink.close()
    first, second = stream.getvalue().splitlines()
    assert re.fullmatch(
        r"step 50/200  loss 0\.1235  \S+ steps/s  \d+:\d\d(:\d\d)? left  eval/loss 0\.5", first
    )
    assert second == "step 60/200  probe/r2 0.25"


def test_a_terminal_gets_a_bar_with_loss():
    stream = io.StringIO()
    stream.isatty = lambda: True
    sink = TerminalSink(200, start=40, stream=stream)
    sink.write(50, {"loss/total": 0.12345})
    sink.write(60, {"loss/total": 0.5, "eval/loss": 0.25})
    sink.close()
    shown = stream.getvalue()
    assert "loss 0.5" in shown
    assert "60/200" in shown
    assert "step 60  eval/loss 0.25" in shown


def test_sinks_are_closed_after_an_error():
    closed = []
    sinks = [types.SimpleNamespace(close=lambda name=name: closed.append(name)) for name in "ab"]
    with pytest.raises(KeyError), closing(sinks):
        raise KeyError
    assert sorted(closed) == ["a", "b"]
