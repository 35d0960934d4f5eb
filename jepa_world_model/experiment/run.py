"""One run: prove the routing, train, evaluate, write everything down."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import torch

from jepa_world_model import __version__
from jepa_world_model.core.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from jepa_world_model.core.config import diff_from_defaults
from jepa_world_model.core.engine import Hook, Outcome, fit
from jepa_world_model.core.errors import UserError
from jepa_world_model.core.log import JsonlSink, Sink, TerminalSink, closing, rewind_metrics
from jepa_world_model.core.optim import set_lr
from jepa_world_model.core.proof import ReachTable, prove
from jepa_world_model.core.run import Run, atomic_write, environment
from jepa_world_model.core.step import train_step
from jepa_world_model.core.together import joined
from jepa_world_model.data.episodes import describe
from jepa_world_model.diagnostics.records import save_snapshot
from jepa_world_model.diagnostics.report import write_report
from jepa_world_model.diagnostics.snapshot import take_snapshot
from jepa_world_model.experiment.build import Experiment, build, spread
from jepa_world_model.experiment.config import TrainConfig
from jepa_world_model.experiment.load import ACTIONS
from jepa_world_model.experiment.tracking import Tracking, check_trackers, open_trackers
from jepa_world_model.experiment.watch import Watch

PROOF_WINDOWS = 8  # the proof looks at structure; a few windows show it


def train(cfg: TrainConfig) -> Path:
    """Build, prove, train and report; returns the run folder.

    Errors: UserError for what the user can mend, ContractError when the routing is not what was declared; in both cases
    before a run folder exists, unless it is a fault of the training itself. Started by torchrun, every process runs this
    on its share of each batch; the first of them writes.
    """
    with joined(cfg.device) as world:
        check_trackers(cfg)
        experiment = build(cfg, world)
        table = prove(experiment.task, experiment.first_windows(PROOF_WINDOWS), experiment.optimizer)
        run, start = _open_run(experiment)
        if world.leads:
            _announce(run, experiment, table)
        outcome = _fit(run, experiment, start, table)
        if world.leads:
            _conclude(run, experiment, outcome)
        return run.folder


def _conclude(run: Run, experiment: Experiment, outcome: Outcome) -> None:
    """What a run ends with: how to go on, the report, the folder."""
    say = print
    if outcome.interrupted:
        say(f"stopped after step {outcome.step}; continue with --resume --name {run.name}")
    if experiment.cfg.report:
        say(f"report: {write_report(run.folder)}")
    say(f"run:    {run.folder}")


def _open_run(experiment: Experiment) -> tuple[Run, int]:
    """A new run folder and step 0, or with `resume` the named one and the step of its newest checkpoint."""
    cfg = experiment.cfg
    world = experiment.task.world
    if not cfg.resume:
        slug = Path(cfg.data.source).name
        made = Run.create(cfg.output_dir, cfg.name, cfg, slug=slug, argv=sys.argv) if world.leads else None
        return Run(folder=Path(world.told(str(made.folder) if made else ""))), 0
    if not cfg.name:
        raise UserError("--resume needs the --name of the run to continue")
    run = Run.open(Path(cfg.output_dir) / cfg.name)
    found = latest_checkpoint(run.checkpoints) if world.leads else None
    newest = world.told(str(found or ""))
    if not newest:
        raise UserError(f"{run.folder} has no checkpoint to resume from; start it again under another --name")
    extra = load_checkpoint(newest, experiment.task.model, experiment.optimizer)
    if experiment.task.sizes is not None:
        sizes = {name: torch.tensor(value) for name, value in extra["loss_sizes"].items()}
        experiment.task.sizes.load_state_dict(sizes)
    if world.leads:
        rewind_metrics(run.metrics, extra["step"])
    return run, extra["step"]


def _announce(run: Run, experiment: Experiment, table: ReachTable) -> None:
    """Write down and print what is about to run: data, model, and the reach table."""
    cfg, task = experiment.cfg, experiment.task
    graph = {
        "latents": [
            {"name": x.name, "reads": list(x.reads), "trains": list(x.trains)}
            for x in task.graph.closure(task.wanted)
        ],
        "gates": table.gates,
    }
    changes = {
        key: value
        for key, value in diff_from_defaults(cfg).items()
        if key not in ("name", "output_dir", "resume")
    }
    space = experiment.episodes.space.to_json()
    for name, content in (
        ("reach.json", table.to_json()), ("graph.json", graph), ("changes.json", changes), (ACTIONS, space),
    ):  # fmt: skip
        atomic_write(run.folder / name, json.dumps(content, indent=1, default=str) + "\n")
    atomic_write(run.folder / "reach.md", table.to_markdown())
    about = environment(sys.argv) | {"dataset": experiment.episodes.name}
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
    for warning in table.warnings():
        print(f"note: {warning}")


def _fit(run: Run, experiment: Experiment, start: int, table: ReachTable) -> Outcome:
    """The training loop; the first process has the hooks and sinks."""
    cfg, task, optimizer = experiment.cfg, experiment.task, experiment.optimizer

    def step(index: int) -> dict[str, torch.Tensor | float]:
        lr = set_lr(optimizer, cfg.optim, index, cfg.steps)
        values = train_step(
            task, optimizer, experiment.batch(index), index, max_grad_norm=cfg.optim.max_grad_norm
        )
        return values | {"lr": lr}

    def save(done: int) -> None:
        sizes = {} if task.sizes is None else {k: v.tolist() for k, v in task.sizes.state_dict().items()}
        path = save_checkpoint(
            run.checkpoints, done, task.model, optimizer, {"loss_sizes": sizes}, keep=cfg.keep_checkpoints
        )
        tracking.checkpoint(done, path)

    loop = partial(
        fit, step, model=task.model, steps=cfg.steps, start=start, streams=task.streams, log_every=cfg.log_every,
        examples_per_step=cfg.batch_size * cfg.seq_len, should_stop=task.world.any,
    )  # fmt: skip
    if not task.world.leads:
        return loop()
    tracking = Tracking(run.folder, open_trackers(run.folder, cfg, start))
    own: list[Sink] = [JsonlSink(run.metrics), TerminalSink(cfg.steps, start=start)]
    with closing([*own, *tracking.trackers]) as sinks:
        tracking.reach(table, start)
        watch, hooks = _watching(run, experiment, start, tracking)
        hooks.append(Hook(name="checkpoint", every=cfg.checkpoint_every, call=save))
        outcome = loop(hooks=hooks, sinks=sinks, finish=save)
    watch.conclude()
    return outcome


def _watching(run: Run, experiment: Experiment, start: int, tracking: Tracking) -> tuple[Watch, list[Hook]]:
    """What measures the model now and then, on one process by itself."""
    cfg, task = experiment.cfg, experiment.task.alone()
    held_out = spread(experiment.held_out, cfg.eval_windows).to(experiment.device)
    seen = spread(experiment.loader.windows, 2 * cfg.eval_windows).to(experiment.device)

    def picture(done: int) -> None:
        arrays = take_snapshot(task, held_out)
        save_snapshot(run.folder, arrays)
        tracking.snapshot(done, arrays)

    watch = Watch(
        run.folder, task, held_out, experiment.batch, seen=seen, every=cfg.grad_report_every, start=start
    )
    pictures_every = cfg.eval_every if tracking.trackers else 0  # a report needs the last ones alone
    return watch, [
        Hook(name="evaluate", every=cfg.eval_every, call=watch.evaluate, at_end=True),
        *watch.hooks,
        Hook(
            name="tables", every=cfg.grad_report_every, call=lambda _: tracking.gradients(watch.log.rows[-1])
        ),
        Hook(name="snapshot", every=pictures_every, call=picture, at_end=cfg.report),
    ]
