"""The training loop: steps, records, hooks, stopping. It knows neither the model's parts nor the losses.

`step` means the number of steps done wherever a number is written, a hook is called or a checkpoint is named.
"""

from __future__ import annotations

import contextlib
import math
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.log import Sink, to_host
from jepa_world_model.core.memory import keep_freed_memory
from jepa_world_model.core.rng import Streams, isolated
from jepa_world_model.core.spikes import Spikes

Values = Mapping[str, Tensor | float]


@dataclass(frozen=True, kw_only=True)
class Hook:
    """Something periodic: run in eval mode, without gradient, on a random stream of its own."""

    name: str  # also the name of its random stream
    every: int  # steps between two calls; 0: only at the end
    call: Callable[[int], Values | None]  # steps done -> numbers to log under their own names
    at_end: bool = False  # also after the last step of a run that was not interrupted
    late: bool = False  # after the record of its step is written, and without numbers of its own: checkpoints

    def __post_init__(self) -> None:
        if self.every < 0:
            raise ValueError(f"hook {self.name}: every must be 0 or more, got {self.every}")

    def is_due(self, step: int, last: bool) -> bool:
        """Whether to call it after `step` steps."""
        return (self.every > 0 and step % self.every == 0) or (last and self.at_end)


@dataclass(kw_only=True)
class Faults:
    """What a training does about steps that go wrong, and how many there were.

    skip: so many steps that are not finite are left out; the next one ends the training. A skipped step updates nothing.
    on_non_finite(step, values): called for each of them, `step` counted from 1; what it returns ends the error's sentence.
    spikes: watches the total loss of every step; on_spike(step, values): called for each spike.
    """

    skip: int = 0
    skipped: int = 0  # so far
    on_non_finite: Callable[[int, dict[str, float]], str] = lambda step, values: ""
    spikes: Spikes | None = None
    on_spike: Callable[[int, dict[str, float]], None] = lambda step, values: None

    def columns(self) -> dict[str, float]:
        """The counts that are logged, as far as they are kept."""
        found = {"fault/skipped": float(self.skipped)} if self.skip else {}
        return found | ({"fault/spikes": float(self.spikes.count)} if self.spikes else {})


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a training ended."""

    step: int  # steps done
    interrupted: bool  # a signal, or should_stop, ended it before the last step
    signal: int = 0  # SIGINT or SIGTERM where one came


def fit(
    step_fn: Callable[[int], Values],
    *,
    model: nn.Module,
    steps: int,
    start: int = 0,
    streams: Streams,
    hooks: Sequence[Hook] = (),
    sinks: Sequence[Sink] = (),
    log_every: int = 10,
    examples_per_step: int = 0,
    should_stop: Callable[[bool], bool] = bool,
    finish: Callable[[int], None] | None = None,
    faults: Faults | None = None,
) -> Outcome:
    """Run steps `start` .. `steps` - 1 and write records to the sinks.

    A record stands after step 1, every `log_every` steps and the last, wherever the training was begun or interrupted:
    a training that goes on from a checkpoint writes the records it would have written without the interruption. The
    global torch generator of a step is a function of (seed, step), for modules that draw from it, such as dropout.

    step_fn(index) trains one step and returns scalars that stay on the device until a record is written, one
    of them `finite` (bool: False when the step was skipped because something in it was not finite).
    examples_per_step: frames (or samples) a step, for time/frames_per_s.
    should_stop(asked): asked is whether SIGINT or SIGTERM came; the place for several processes to agree.
    finish(step): called once after the last step, interrupted or not; saves the checkpoint.
    Errors: UserError for a step that is not finite (found at once on the CPU, at the next record elsewhere), unless
    `faults` has it skipped.
    """
    if start >= steps:
        raise UserError(f"{start} steps are done already and {steps} were asked for; ask for more steps")
    if log_every < 1:
        raise ValueError(f"log_every must be at least 1, got {log_every}")
    keep_freed_memory()
    clock, pending, done, faults = Clock(model), [], start, faults or Faults()
    with _signals() as asked:
        while True:
            torch.manual_seed(streams.number("step", done))
            with clock.timing():
                values = step_fn(done)
            done += 1
            pending.append((done, values))
            stop = should_stop(asked.number != 0)
            record, last = {}, done == steps
            due = last or done % log_every == 0 or done == 1
            calls = [hook for hook in hooks if hook.is_due(done, last)]
            # What is counted has to be counted before a checkpoint, although no record may be due.
            if due or stop or any(hook.late for hook in calls) or _failed_on_host(values):
                record = _record(pending, faults) | clock.read(examples_per_step)
                pending.clear()
            _write(done, record if due else {}, calls, sinks, partial(_run_hook, model, streams, done))
            if stop or last:
                break
        if finish is not None:
            finish(done)
    return Outcome(step=done, interrupted=done < steps, signal=asked.number)


def _write(
    done: int,
    record: dict[str, float],
    hooks: Sequence[Hook],
    sinks: Sequence[Sink],
    run: Callable[[Hook], dict[str, float]],
) -> None:
    """The hooks of a step and its record, which the late hooks find written."""
    for hook in (hook for hook in hooks if not hook.late):
        record |= run(hook)
    if record:
        for sink in sinks:
            sink.write(done, record)
    for hook in (hook for hook in hooks if hook.late):
        run(hook)


def _failed_on_host(values: Values) -> bool:
    """Whether a step on the CPU was not finite; on another device the answer would make the host wait."""
    finite = values.get("finite", True)
    return (not isinstance(finite, Tensor) or finite.device.type == "cpu") and not bool(finite)


def _record(pending: list[tuple[int, Values]], faults: Faults) -> dict[str, float]:
    """The values of the newest step on the host, in one copy with what is watched of every step since the last."""
    newest = pending[-1][1]
    watched = {
        f"{name}|{step}": values[name]
        for step, values in pending
        for name in ("finite", "loss/total")
        if name in values
    }
    host = to_host({**newest, **watched})
    seen = {name: host.pop(name) for name in watched}
    host.pop("finite", None)
    for step, values in pending:
        if not seen.get(f"finite|{step}", True):
            _non_finite(step, values, faults)
        elif faults.spikes and faults.spikes.is_spike(seen.get(f"loss/total|{step}", 0.0)):
            faults.on_spike(step, to_host(values))
    return host | faults.columns()


def _non_finite(step: int, values: Values, faults: Faults) -> None:
    """Count a step that was not finite. Errors: UserError that names it and what was not finite, beyond the limit."""
    host = to_host(values)
    odd = {name: value for name, value in host.items() if not math.isfinite(value)}
    named = ", ".join(f"{name} = {value}" for name, value in list(odd.items())[:8]) or "a gradient"
    saved = faults.on_non_finite(step, host)
    faults.skipped += 1
    if faults.skipped > faults.skip:
        others = f", after {faults.skipped - 1} others that were skipped" if faults.skipped > 1 else ""
        raise UserError(
            f"step {step} was not finite ({named}) and was not applied{others}; "
            f"lower the learning rate or the weight of that loss, or check the data{saved}"
        )


def _run_hook(model: nn.Module, streams: Streams, step: int, hook: Hook) -> dict[str, float]:
    """The numbers of a hook; the model's modes and every random generator are as before."""
    with evaluating(model), torch.no_grad(), isolated(streams, f"hook/{hook.name}", step):
        return to_host(hook.call(step) or {})


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside, every module is in eval mode; after, each is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@dataclass
class _Asked:
    """Which signal has asked the training to end."""

    number: int = 0


@contextlib.contextmanager
def _signals() -> Iterator[_Asked]:
    """Takes note of SIGINT and SIGTERM; a second SIGINT raises. Handlers are put back."""
    asked = _Asked()
    if threading.current_thread() is not threading.main_thread():
        yield asked  # only the main thread may set handlers
        return

    def ask(number: int, _: object) -> None:
        if asked.number and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.number = asked.number or number
        print("stopping after this step; Ctrl-C again stops at once", file=sys.stderr, flush=True)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Clock:
    """Durations of steps, hooks and logging left out: by the host's clock on the CPU, by events on CUDA."""

    def __init__(self, model: nn.Module) -> None:
        parameter = next(iter(model.parameters()), None)
        self.on_cuda = parameter is not None and parameter.device.type == "cuda"
        self._spans: list[tuple] = []

    def _now(self) -> float | torch.cuda.Event:
        if not self.on_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    @contextlib.contextmanager
    def timing(self) -> Iterator[None]:
        """Take the duration of the block."""
        begin = self._now()
        yield
        self._spans.append((begin, self._now()))

    def read(self, examples_per_step: int) -> dict[str, float]:
        """time/step_ms, the median since the last reading, and time/frames_per_s at that pace."""
        if self.on_cuda:
            self._spans[-1][1].synchronize()
            times_ms = [begin.elapsed_time(end) for begin, end in self._spans]
        else:
            times_ms = [1e3 * (end - begin) for begin, end in self._spans]
        self._spans.clear()
        step_ms = statistics.median(times_ms)
        return {"time/step_ms": step_ms, "time/frames_per_s": 1e3 * examples_per_step / max(step_ms, 1e-6)}
