"""The loop: hooks change nothing, stopping is orderly, what is not finite is named, one copy a record."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from jepa_world_model.core import engine
from jepa_world_model.core.engine import Faults, Hook, Outcome, evaluating, fit
from jepa_world_model.core.errors import UserError
from jepa_world_model.core.rng import Streams, seed_everything
from jepa_world_model.core.spikes import Spikes


class Memory:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.records: list[tuple[int, dict[str, float]]] = []

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.records.append((step, dict(values)))

    def close(self) -> None:
        pass


class Training:
    """A small network with dropout and batch statistics, trained on global random numbers."""

    def __init__(self, device: str = "cpu") -> None:
        seed_everything(0)
        layers = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1)
        self.model = nn.Sequential(*layers).to(device)
        self.model[1].eval()  # a mode that must survive hooks
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1, fused=True)
        self.device, self.broken_at, self.seen = device, None, []

    def step(self, index: int) -> dict[str, Tensor | float]:
        self.seen.append(index)
        loss = self.model(torch.randn(16, 4, device=self.device)).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        broken = index in self.broken_at if isinstance(self.broken_at, set) else index == self.broken_at
        total = loss.detach() * (float("nan") if broken else 1.0)
        return {"loss/total": total, "optim/lr": 0.1, "finite": torch.isfinite(total)}

    def fit(self, steps: int = 20, **options: object) -> tuple[Outcome, list[tuple[int, dict[str, float]]]]:
        sink = Memory()
        outcome = fit(self.step, model=self.model, steps=steps, streams=Streams(0), sinks=[sink], **options)
        return outcome, sink.records


def losses(records: list[tuple[int, dict[str, float]]]) -> dict[int, float]:
    return {step: values["loss/total"] for step, values in records if "loss/total" in values}


def test_adding_hooks_changes_no_training_number():
    plain = Training()
    _, expected = plain.fit(log_every=1)

    hooked = Training()

    def noisy(_: int) -> dict[str, float]:
        x = torch.randn(7, 4)
        first, second = hooked.model(x), hooked.model(x)
        assert torch.equal(first, second)  # dropout is off
        assert not first.requires_grad
        hooked.model.train()
        return {"eval/noise": float(torch.rand(()))}

    hooks = [Hook(name="noisy", every=3, call=noisy), Hook(name="silent", every=1, call=lambda _: None)]
    _, records = hooked.fit(log_every=1, hooks=hooks)
    assert losses(records) == losses(expected)
    for name, tensor in plain.model.state_dict().items():
        assert torch.equal(tensor, hooked.model.state_dict()[name]), name
    assert [module.training for module in hooked.model.modules()] == [True, True, False, True, True]


def test_a_hooks_draws_depend_on_its_name_and_step_alone():
    def draws(*names: str) -> dict[tuple[str, int], float]:
        seen = {}

        def hook(name: str) -> Hook:
            call = lambda step: seen.update({(name, step): float(torch.rand(()))})
            return Hook(name=name, every=2, call=call)

        Training().fit(steps=4, hooks=[hook(name) for name in names])
        return seen

    alone, both = draws("a"), draws("b", "a")
    assert len(set(both.values())) == 4
    assert alone == {key: value for key, value in both.items() if key[0] == "a"}


def test_hooks_run_when_due_and_their_numbers_join_the_record_of_their_step():
    calls = {"often": [], "end": [], "never": []}

    def hook(name: str, every: int, at_end: bool) -> Hook:
        def call(step: int) -> dict[str, Tensor | float]:
            calls[name].append(step)
            return {f"eval/{name}": torch.tensor(0.5)}

        return Hook(name=name, every=every, call=call, at_end=at_end)

    hooks = [hook("often", 4, False), hook("end", 7, True), hook("never", 0, False)]
    outcome, records = Training().fit(steps=10, log_every=5, hooks=hooks)
    assert outcome == Outcome(step=10, interrupted=False)
    assert calls == {"often": [4, 8], "end": [7, 10], "never": []}
    assert [step for step, _ in records] == [1, 4, 5, 7, 8, 10]
    assert dict(records)[4] == {"eval/often": 0.5}
    assert {"loss/total", "eval/end", "time/step_ms"} <= dict(records)[10].keys()
    with pytest.raises(ValueError, match="every must be 0 or more"):
        Hook(name="x", every=-1, call=lambda _: None)


def test_late_hooks_run_when_the_record_of_their_step_is_written():
    seen, sink = [], Memory()
    late = Hook(name="save", every=2, call=lambda step: seen.append((step, len(sink.records))), late=True)
    early = Hook(name="measure", every=2, call=lambda _: {"eval/a": 1.0})
    training = Training()
    fit(
        training.step, model=training.model, steps=4, streams=Streams(0), sinks=[sink], hooks=[late, early],
        log_every=100,
    )  # fmt: skip
    assert [step for step, _ in sink.records] == [1, 2, 4]
    assert seen == [(2, 2), (4, 3)]


def test_what_a_module_draws_in_a_step_depends_on_the_step_alone():
    whole, part = Training(), Training()  # dropout, and inputs from the global generator
    _, expected = whole.fit(steps=6, log_every=1)
    part.fit(steps=3, log_every=1)
    torch.manual_seed(123)  # another process has other global state
    _, records = part.fit(start=3, steps=6, log_every=1)
    assert losses(records) == {step: loss for step, loss in losses(expected).items() if step > 3}


def test_a_resumed_training_counts_on():
    training = Training()
    outcome, records = training.fit(start=7, steps=10, log_every=5)
    assert training.seen == [7, 8, 9]
    assert [step for step, _ in records] == [10]  # those that a training from 0 has after step 7
    assert outcome.step == 10
    with pytest.raises(UserError, match="10 steps are done already and 10 were asked for"):
        training.fit(start=10, steps=10)
    with pytest.raises(ValueError, match="log_every must be at least 1"):
        training.fit(log_every=0)


def test_values_leave_the_device_only_for_a_record_and_then_in_one_copy(monkeypatch: pytest.MonkeyPatch):
    copies = []
    real = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: copies.append(1) or real(self))
    Training().fit(steps=20, log_every=10)
    assert len(copies) == 3  # after steps 1, 10, 20


def test_step_time_is_a_median_without_hooks():
    training = Training()

    def step(index: int) -> dict[str, float]:
        time.sleep(0.2 if index == 5 else 0.01)  # one slow step does not move a median
        return {"loss/total": 0.0}

    slow = Hook(name="slow", every=1, call=lambda _: time.sleep(0.03))
    sink = Memory()
    fit(
        step, model=training.model, steps=9, streams=Streams(0), sinks=[sink], hooks=[slow], log_every=9,
        examples_per_step=32,
    )  # fmt: skip
    values = sink.records[-1][1]
    assert 10 <= values["time/step_ms"] < 30
    assert values["time/frames_per_s"] == pytest.approx(32e3 / values["time/step_ms"])


def test_a_step_that_is_not_finite_is_named_with_its_terms_at_once():
    training, told = Training(), []
    training.broken_at = 6
    with pytest.raises(
        UserError, match=r"step 7 was not finite \(loss/total = nan\).*check the data; see there"
    ):
        training.fit(
            log_every=100,
            faults=Faults(on_non_finite=lambda step, values: told.append(step) or "; see there"),
        )
    assert told == [7]
    assert training.seen[-1] == 6


def test_away_from_the_host_a_step_that_was_not_finite_is_found_at_the_next_record(monkeypatch):
    monkeypatch.setattr(engine, "_failed_on_host", lambda values: False)  # as on CUDA
    training, told = Training(), []
    training.broken_at = 6
    with pytest.raises(UserError, match=r"step 7 was not finite \(loss/total = nan\)"):
        training.fit(log_every=10, faults=Faults(on_non_finite=lambda step, values: told.append(step) or ""))
    assert told == [7]
    assert training.seen[-1] == 9


def test_steps_that_are_not_finite_are_skipped_up_to_a_limit_and_counted():
    training, told = Training(), []
    training.broken_at = {3, 8, 9, 15}
    faults = Faults(skip=3, on_non_finite=lambda step, values: told.append(step) or "")
    with pytest.raises(UserError, match=r"step 16 was not finite .* after 3 others that were skipped"):
        training.fit(log_every=5, faults=faults)
    assert told == [4, 9, 10, 16]
    training, faults = Training(), Faults(skip=3)
    training.broken_at = {3, 8, 9}
    _, records = training.fit(log_every=5, faults=faults)
    assert {step: values["fault/skipped"] for step, values in records} == {1: 0, 5: 1, 10: 3, 15: 3, 20: 3}


def test_spikes_are_counted_whichever_step_they_fall_on_and_told_with_their_values():
    told = []

    def step(index: int) -> dict[str, float]:
        return {"loss/total": 50.0 if index in (33, 57) else 1.0 + index % 3}

    sink = Memory()
    fit(
        step, model=nn.Linear(1, 1), steps=80, streams=Streams(0), sinks=[sink], log_every=20,
        faults=Faults(spikes=Spikes(10), on_spike=lambda step, values: told.append((step, values["loss/total"]))),
    )  # fmt: skip
    assert told == [(34, 50.0), (58, 50.0)]
    assert [values["fault/spikes"] for _, values in sink.records] == [0, 0, 1, 2, 2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_training_after_the_step_and_saves(number: signal.Signals, capsys):
    training, saved, ended = Training(), [], []
    before = signal.getsignal(number)

    def step(index: int) -> Mapping[str, Tensor | float]:
        if index == 4:
            os.kill(os.getpid(), number)
        return training.step(index)

    sink = Memory()
    at_end = Hook(name="end", every=0, call=ended.append, at_end=True)
    outcome = fit(
        step,
        model=training.model,
        steps=20,
        streams=Streams(0),
        sinks=[sink],
        finish=saved.append,
        hooks=[at_end],
    )
    assert outcome == Outcome(step=5, interrupted=True, signal=number)
    assert (saved, ended) == ([5], [])
    assert sink.records[-1][0] == 1  # no record that a training without the signal would not have
    assert signal.getsignal(number) is before
    assert capsys.readouterr().err == "stopping after this step; Ctrl-C again stops at once\n"


def test_a_second_ctrl_c_stops_at_once():
    training, before = Training(), signal.getsignal(signal.SIGINT)

    def step(index: int) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the second signal did not stop the step")

    with pytest.raises(KeyboardInterrupt):
        fit(step, model=training.model, steps=20, streams=Streams(0))
    assert signal.getsignal(signal.SIGINT) is before


def test_should_stop_decides_and_finish_follows_a_full_training_too():
    training, saved, asked = Training(), [], []

    def agree(signalled: bool) -> bool:
        asked.append(signalled)
        return len(asked) == 3

    outcome, _ = training.fit(should_stop=agree, finish=saved.append)
    assert outcome == Outcome(step=3, interrupted=True)
    assert asked == [False] * 3
    training.fit(finish=saved.append)
    assert saved == [3, 20]


def test_training_works_outside_the_main_thread():
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(Training().fit(steps=2)[0]))
    thread.start()
    thread.join()
    assert outcomes == [Outcome(step=2, interrupted=False)]


def test_modes_come_back_after_an_error():
    training = Training()
    with pytest.raises(KeyError), evaluating(training.model):
        raise KeyError
    assert [module.training for module in training.model.modules()] == [True, True, False, True, True]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_hooks_change_nothing_time_is_measured_and_a_broken_step_is_found():
    _, expected = Training("cuda").fit(log_every=10)
    hook = Hook(name="noisy", every=3, call=lambda _: {"eval/noise": torch.rand((), device="cuda")})
    _, records = Training("cuda").fit(log_every=10, hooks=[hook], examples_per_step=16)
    assert losses(records) == losses(expected)
    assert all(values["time/step_ms"] > 0 for _, values in records if "time/step_ms" in values)
    broken = Training("cuda")
    broken.broken_at = 6
    with pytest.raises(UserError, match=r"step 7 was not finite \(loss/total = nan\)"):
        broken.fit(log_every=10)
    assert broken.seen[-1] == 9
