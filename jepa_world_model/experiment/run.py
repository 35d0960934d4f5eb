"""One run: prove the routing, train, evaluate, write everything down."""

from __future__ import annotations

import json
import signal
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch

from jepa_world_model import __version__
from jepa_world_model.core.average import Average
from jepa_world_model.core.compiled import Compiled
from jepa_world_model.core.config import diff_from_defaults
from jepa_world_model.core.engine import Hook, Outcome, fit
from jepa_world_model.core.errors import UserError
from jepa_world_model.core.log import JsonlSink, TerminalSink, closing, rewind_metrics
from jepa_world_model.core.optim import set_lr
from jepa_world_model.core.proof import ReachTable, prove
from jepa_world_model.core.run import Run, atomic_write
from jepa_world_model.core.step import train_step
from jepa_world_model.core.task import Task
from jepa_world_model.core.together import joined
from jepa_world_model.data.episodes import describe
from jepa_world_model.diagnostics.dashboard import write_dashboard
from jepa_world_model.diagnostics.records import save_snapshot
from jepa_world_model.diagnostics.report import write_report
from jepa_world_model.diagnostics.snapshot import take_snapshot
from jepa_world_model.experiment.begin import BY_C, Beginning, begin, surroundings
from jepa_world_model.experiment.build import Experiment, build, spread
from jepa_world_model.experiment.compare import APART
from jepa_world_model.experiment.config import TrainConfig
from jepa_world_model.experiment.diagnose import examine
from jepa_world_model.experiment.faults import watch_faults
from jepa_world_model.experiment.keep import Keeper, check_best
from jepa_world_model.experiment.load import ACTIONS
from jepa_world_model.experiment.plan import check_planning, plan_hook
from jepa_world_model.experiment.tracking import Tracking, check_trackers, open_trackers
from jepa_world_model.experiment.watch import Watch
from jepa_world_model.losses.image_distance import MultiBoxConfig
from jepa_world_model.models.encoder import SpatialSoftArgmax
from jepa_world_model.models.world_model import WorldModel

PROOF_WINDOWS = 8  # the proof looks at structure; a few windows show it


def train(cfg: TrainConfig) -> Path:
    """Build, prove, train and report; returns the run folder.

    Errors: UserError for what the user can mend, ContractError when the routing is not what was declared; in both cases
    before a run folder exists, unless it is a fault of the training itself. KeyboardInterrupt after SIGINT, once the
    checkpoint is written. Started by torchrun, every process runs this on its share of each batch; the first of them writes.
    """
    with joined(cfg.device) as world:
        check_trackers(cfg)
        check_planning(cfg)
        experiment = build(cfg, world)
        table = prove(experiment.task, experiment.first_windows(PROOF_WINDOWS), experiment.optimizer)
        if world.leads:
            check_best(experiment)
        average = Average(experiment.task.model, cfg.ema) if cfg.ema else None
        start = begin(experiment, average)
        with start.run.locked() if world.leads else nullcontext():
            if world.leads:
                _announce(start, experiment, table)
            outcome = _fit(start, experiment, average, table)
            if world.leads:
                _conclude(start.run, experiment, average, outcome)
    if outcome.interrupted and outcome.signal == signal.SIGINT:
        raise KeyboardInterrupt
    return start.run.folder


def _conclude(run: Run, experiment: Experiment, average: Average | None, outcome: Outcome) -> None:
    """What a run ends with: how to go on, the diagnostics, the report, the folder."""
    say = print
    if outcome.interrupted:
        say(
            f"stopped after step {outcome.step}; continue with --config {run.config} --name {run.name} --resume"
        )
    elif experiment.cfg.diagnostics:
        say(f"diagnostics: {_question(run, experiment, average, outcome.step)}")
    if experiment.cfg.report and not outcome.interrupted:
        say(f"report: {write_report(run.folder)}")
    say(f"run:    {run.folder}")


def _question(run: Run, experiment: Experiment, average: Average | None, step: int) -> str:
    """Write the dashboard; its summary and its page."""
    task = experiment.task.alone()
    try:
        with average.applied(task.model) if average else nullcontext():
            found = examine(task, experiment.cfg, experiment.episodes, experiment.held_out, step=step)
    except UserError as error:  # a model of few parts is no reason to fail a run that is done
        return f"none: {error}"
    return f"{found.summary}\n             {write_dashboard(run.folder, found)}"


def _announce(start: Beginning, experiment: Experiment, table: ReachTable) -> None:
    """Write down and print what is about to run: data, model, and the reach table."""
    cfg, task, run = experiment.cfg, experiment.task, start.run
    graph = {
        "latents": [
            {"name": x.name, "reads": list(x.reads), "trains": list(x.trains)}
            for x in task.graph.closure(task.wanted)
        ],
        "gates": table.gates,
    }
    changes = {key: value for key, value in diff_from_defaults(cfg).items() if key not in APART}
    space = experiment.episodes.space.to_json()
    for name, content in (
        ("reach.json", table.to_json()), ("graph.json", graph), ("changes.json", changes), (ACTIONS, space),
    ):  # fmt: skip
        atomic_write(run.folder / name, json.dumps(content, indent=1, default=str) + "\n")
    atomic_write(run.folder / "reach.md", table.to_markdown())
    about = surroundings(sys.argv) | {"dataset": experiment.episodes.name}
    if cfg.fork:
        about["fork"] = cfg.fork
    parameters = {group: sum(p.numel() for p in members.values()) for group, members in task.groups.items()}
    atomic_write(
        run.environment, json.dumps(about | {"parameters": parameters}, indent=2, default=str) + "\n"
    )
    git = about["git"] or {}
    print(
        f"jepa-world-model {__version__}, commit {git.get('commit', 'unknown')}{' (changed)' if git.get('dirty') else ''}"
    )
    print(
        f"config: {run.config}   device: {experiment.device}, {torch.get_num_threads()} threads, {cfg.precision}"
    )
    print(describe(experiment.episodes))
    print(f"parameters: {sum(parameters.values()):,}   windows: {len(experiment.loader.windows):,} to train, "
          f"{len(experiment.held_out):,} held out\n")  # fmt: skip
    print(table.to_text() + "\n")
    for note in (*table.warnings(), *start.notes, *_slower(task)):
        print(f"note: {note}")


def _slower(task: Task) -> list[str]:
    """A sentence where losses and latents are found in a slower way than elsewhere."""
    found = {loss.name: "multi_box" for loss in task.losses if loss.options is MultiBoxConfig}
    if any(isinstance(module, SpatialSoftArgmax) for module in task.model.modules()):
        found["key points"] = "soft_argmax"
    why = {name: BY_C[routine].missing() for name, routine in found.items()}
    slower = [name for name, reason in why.items() if reason]
    if not slower or task.device.type != "cpu":
        return []
    return [
        f"{', '.join(slower)} by torch's operations, some milliseconds a step more than by C: {why[slower[0]]}"
    ]


def _fit(start: Beginning, experiment: Experiment, average: Average | None, table: ReachTable) -> Outcome:
    """The training loop; the first process has the hooks and sinks."""
    cfg, task, optimizer = experiment.cfg, experiment.task, experiment.optimizer
    sound = None if cfg.skip_non_finite else torch.ones((), dtype=torch.bool, device=experiment.device)
    faults = watch_faults(start.run, experiment, start.extra)
    differentiate = None
    if cfg.compile and start.step < cfg.steps:
        differentiate = Compiled(task, say=print)
        differentiate.program(experiment.batches(start.step)[0], start.step, cfg.accumulate)

    def step(index: int) -> dict[str, torch.Tensor | float]:
        lr = set_lr(optimizer, cfg.optim, index, cfg.steps)
        batch, *more = experiment.batches(index)
        values = train_step(
            task, optimizer, batch, index, max_grad_norm=cfg.optim.max_grad_norm, more=more, sound=sound,
            differentiate=differentiate,
        )  # fmt: skip
        if average is not None:
            average.update(task.model)
        return values | {"lr": lr}

    loop = partial(
        fit, step, model=task.model, steps=cfg.steps, start=start.step, streams=task.streams, log_every=cfg.log_every,
        examples_per_step=cfg.batch_size * cfg.accumulate * cfg.seq_len, should_stop=task.world.any, faults=faults,
    )  # fmt: skip
    if start.step >= cfg.steps:
        loop = partial(_nothing_left, start, cfg)
    if not task.world.leads:
        return loop()
    rewind_metrics(start.run.metrics, start.step)
    metrics = JsonlSink(start.run.metrics)
    tracking = Tracking(start.run.folder, open_trackers(start.run.folder, cfg, start.step))
    with closing([metrics, TerminalSink(cfg.steps, start=start.step), *tracking.trackers]) as sinks:
        tracking.reach(table, start.step)
        watch, hooks = _watching(start, experiment, average, tracking)
        keeper = Keeper(start.run, experiment, watch, metrics, average, faults, tracking.checkpoint)
        keeper.load_state(start.extra)
        outcome = loop(hooks=[*hooks, *keeper.hooks], sinks=sinks, finish=keeper.save)
    if not outcome.interrupted:
        watch.conclude()
    return outcome


def _nothing_left(start: Beginning, cfg: TrainConfig, **_: object) -> Outcome:
    """What is to be done in a run whose last step is done: it may have been killed before its report was written."""
    if start.step > cfg.steps:
        raise UserError(
            f"{start.run.folder} has done {start.step} steps and {cfg.steps} were asked for; "
            "ask for more --steps, or begin another run"
        )
    print(f"all {cfg.steps} steps of {start.run.folder} are done; ask for more --steps to go on")
    return Outcome(step=start.step, interrupted=False)


def _watching(
    start: Beginning, experiment: Experiment, average: Average | None, tracking: Tracking
) -> tuple[Watch, list[Hook]]:
    """What measures the model now and then, on one process by itself."""
    cfg, task, folder = experiment.cfg, experiment.task.alone(), start.run.folder
    held_out = spread(experiment.held_out, cfg.eval_windows).to(experiment.device)
    seen = spread(experiment.loader.windows, 2 * cfg.eval_windows).to(experiment.device)

    def picture(done: int) -> None:
        with average.applied(task.model) if average else nullcontext():
            arrays = take_snapshot(task, held_out)
        save_snapshot(folder, arrays)
        tracking.snapshot(done, arrays)

    watch = Watch(
        folder, task, held_out, lambda step: experiment.batches(step)[0], seen=seen, every=cfg.grad_report_every,
        start=start.step, average=average,
    )  # fmt: skip
    assert isinstance(task.model, WorldModel)
    applied = partial(average.applied, task.model) if average else nullcontext
    plans = [plan_hook(cfg, task.model, experiment.episodes, applied)] if cfg.plan_every else []
    pictures_every = cfg.eval_every if tracking.trackers else 0  # a report needs the last ones alone
    return watch, [
        Hook(name="evaluate", every=cfg.eval_every, call=watch.evaluate, at_end=True),
        *plans,
        *watch.hooks,
        Hook(
            name="tables", every=cfg.grad_report_every, call=lambda _: tracking.gradients(watch.log.rows[-1])
        ),
        Hook(name="snapshot", every=pictures_every, call=picture, at_end=cfg.report),
    ]
