"""`jepa-wm ki-train`: prove the barrier, then train with the engine, logs and checkpoints all share."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from jepa_world_model.core.average import Average
from jepa_world_model.core.barrier import joint_norm
from jepa_world_model.core.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from jepa_world_model.core.compiled import Compiled
from jepa_world_model.core.distributed import World
from jepa_world_model.core.engine import Hook, Outcome, fit
from jepa_world_model.core.errors import UserError
from jepa_world_model.core.graph import graph_json
from jepa_world_model.core.log import JsonlSink, Sink, TerminalSink, closing, rewind_metrics
from jepa_world_model.core.optim import set_lr
from jepa_world_model.core.proof import prove
from jepa_world_model.core.run import Run
from jepa_world_model.core.sharding import part_of, whole, whole_tensors
from jepa_world_model.core.step import train_step
from jepa_world_model.core.together import joined
from jepa_world_model.core.track import WandbTracker
from jepa_world_model.vla_ki import pictures
from jepa_world_model.vla_ki.batch import KIBatch, check_batch
from jepa_world_model.vla_ki.build import Experiment, build, proof_rows, sharded
from jepa_world_model.vla_ki.config import KITrainConfig, read_config
from jepa_world_model.vla_ki.evaluate import judge_of
from jepa_world_model.vla_ki.prompt import PromptBuilder
from jepa_world_model.vla_ki.table import BARRIER, GRAPH

DRIFT_LIMIT = 50_000_000  # parameters; above it, a second copy of the VLM just to measure drift is too dear


class Guard:
    """A sink that stops a training which only seems to go well."""

    def __init__(self, builder: PromptBuilder, since: int = 0, first: int = 0) -> None:
        """since: the step at which this process began; first: the one before the first robot rows."""
        self.builder, self.since, self.first = builder, since, first

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Errors: UserError for a copy task, or for answers that are cut too often."""
        ce = values.get("loss/fast_ce", math.inf)
        if self.since <= self.first < step <= self.first + 50 and ce < 0.05:
            raise UserError(
                f"the FAST cross entropy is {ce:.3f} after {step - self.first} steps: that is a copy task, not a "
                "prediction; check that the answer tokens are causal (ar_mask)"
            )
        rows, sizes = self.builder.rows, self.builder.config
        for part, cut, length in (
            ("answer", self.builder.cut_answers, sizes.answer_length),
            ("prompt", self.builder.cut_prompts, sizes.prompt_length),
        ):
            if rows >= 200 and cut > 0.01 * rows:
                raise UserError(
                    f"{cut} of {rows} {part}s were cut at {length} tokens, more than 1 %; raise "
                    f"--model.{part}-length, or use a larger vocabulary"
                )

    def close(self) -> None:
        """Nothing to close."""


def train_main(argv: Sequence[str]) -> int:
    """`jepa-wm ki-train [--preset NAME] [--config FILE] [flags]`: train; 0 when it ended as asked."""
    train_command(argv)
    return 0


def train_command(argv: Sequence[str]) -> Path:
    """The same, and the run's folder, of which a report can be written."""
    cfg = read_config(argv, prog="jepa-wm ki-train", description="Train with knowledge insulation.")
    run, _ = train(cfg, argv)
    return run.folder


def train(cfg: KITrainConfig, argv: Sequence[str] = ()) -> tuple[Run, Outcome]:
    """Run a training to its end; results are in the run's folder.

    Started by torchrun, every process holds a part of the model and trains it on its rows of each batch; the first
    of them writes.
    """
    with joined(cfg.device) as world:
        return _train(cfg, argv, world)


def _train(cfg: KITrainConfig, argv: Sequence[str], world: World) -> tuple[Run, Outcome]:
    exp = build(cfg, world)
    check_batch(cfg.model, exp.mixer.batch(cfg.questions_alone))
    start, run = 0, None
    average = Average(exp.task.model, cfg.ema) if cfg.ema else None
    if cfg.resume:
        run = Run.open(cfg.resume)
        found = latest_checkpoint(run.checkpoints) if world.leads else None
        newest = world.told(str(found or ""))
        if not newest:
            raise UserError(f"{cfg.resume} has no checkpoint to continue from")
        start = int(load_checkpoint(newest, exp.task.model, exp.optimizer, average)["step"])
        if world.leads:
            rewind_metrics(run.metrics, start)
    table = prove(exp.task, proof_rows(exp), exp.optimizer)
    if world.leads:
        if run is None:
            slug = f"ki-{cfg.setting}-{exp.data.robot.name}"
            run = Run.create(cfg.output_dir, cfg.name, cfg, slug=slug, argv=argv)
            exp.tools.save(run.folder)
        (run.folder / "reach.json").write_text(json.dumps(table.to_json(), indent=2))
        (run.folder / "reach.md").write_text(table.to_markdown())
        graph = graph_json(GRAPH, exp.task.gates, exp.task.wanted)
        (run.folder / "graph.json").write_text(json.dumps(graph, indent=2))
        announce(exp, table.to_text(), run)
    run = Run(folder=Path(world.told(str(run.folder) if run else "")))
    return run, _fit(sharded(exp), average, run, start)


def announce(exp: Experiment, reach: str, run: Run) -> None:
    """Say what will be trained, where the barrier is, and what to expect of the losses."""
    cfg, size = exp.cfg, sum(p.numel() for p in exp.task.model.parameters())
    keep, fast = cfg.gates()[BARRIER], exp.tools.fast
    still = np.flatnonzero(~exp.tools.norm.action.moving).tolist()
    lines = [
        f"run {run.folder}  device {exp.device}  {size / 1e6:.2f}M trained parameters",
        f"data {exp.data.robot.name}: {len(exp.data.robot.bounds)} episodes, {len(exp.data.train)} training "
        f"frames, {len(exp.data.train_questions or ())} questions",
        f"FAST: {fast.vocab_size} ids, validation chunks come back with an error of {exp.fast_rmse:.3f} "
        f"(1 is half the range), {fast.clipped} of {fast.encoded} coefficients were clipped",
        *(
            [f"action dimensions {still} never change: they are learned as 0, FAST leaves them out"]
            if still
            else []
        ),
        f"knowledge insulation {'on' if cfg.setting == 'insulated' else 'OFF'} in the training graph: "
        f"{BARRIER} passes {keep:g} of the action gradient, in every layer",
        "",
        reach,
        "",
        *([_questions_first(cfg)] if cfg.questions_alone else []),
        f"expect: fast_ce starts a little above ln({cfg.model.vocab_size}) = {math.log(cfg.model.vocab_size):.1f}, "
        "flow near 1 to 2; their sum is large at first and says little, so read the two curves apart",
    ]
    print("\n".join(lines), file=sys.stderr, flush=True)


def _questions_first(cfg: KITrainConfig) -> str:
    words = f"the first {cfg.questions_alone} steps are questions alone"
    if cfg.steps > cfg.questions_alone:
        return words
    return f"{words}, so these {cfg.steps} train no action: take more --steps, or --data.questions-first 0"


def _fit(exp: Experiment, average: Average | None, run: Run, start: int) -> Outcome:
    cfg, task, world = exp.cfg, exp.task, exp.task.world
    if average is not None:  # cut as the weights are, where several processes share them
        own = dict(task.model.named_parameters())
        average.values = {name: part_of(value, own[name]) for name, value in average.values.items()}
    differentiate = _compiled(exp, start) if cfg.compile and start < cfg.steps else None

    def step_fn(step: int) -> dict[str, Tensor | float]:
        rate = set_lr(exp.optimizer, cfg.optim, step, cfg.steps)
        if cfg.flow_weight > 0 and exp.mixer.num_robots(step):
            slow_down(exp.optimizer, cfg.vlm_rate)
        batch = _batch(exp, step)
        values = train_step(
            task,
            exp.optimizer,
            batch,
            step,
            max_grad_norm=cfg.optim.max_grad_norm,
            differentiate=differentiate,
        )
        if average is not None:
            average.update(task.model)
        if not exp.mixer.num_robots(step):  # a curve at 0 would look like a loss that is learned
            values = {k: v for k, v in values.items() if not k.endswith(("/fast_ce", "/flow"))}
        return values | {"optim/lr": rate}

    def save(step: int) -> None:
        extra = {"setting": cfg.setting}
        model, optimizer = (whole(part, world) for part in (task.model, exp.optimizer))
        averaged = None if average is None else whole_tensors(average.state_dict(), world)
        if world.leads:
            keep = cfg.keep_checkpoints
            save_checkpoint(run.checkpoints, step, model, optimizer, extra, keep, average=averaged)

    with closing(_sinks(exp, run, start) if world.leads else ()) as sinks:
        return fit(
            step_fn,
            model=task.model,
            steps=cfg.steps,
            start=start,
            streams=task.streams,
            hooks=[_evaluation(exp, average, run), _saving(cfg, save)],
            sinks=sinks,
            log_every=cfg.log_every,
            examples_per_step=cfg.batch_size,
            should_stop=world.any,
            finish=save,
        )


def _batch(exp: Experiment, step: int) -> KIBatch:
    """The batch of a step, on the device; for a compiled step with as many targets as there could be."""
    cfg, batch = exp.cfg, exp.mixer.batch(step)
    if cfg.compile:
        batch = batch.padded(cfg.batch_size * cfg.model.answer_length)
    return batch.to(exp.device)


def _compiled(exp: Experiment, start: int) -> Compiled:
    """The step as one program, made for batches of questions alone, if they come, and for those with robot rows."""
    program = Compiled(exp.task, say=lambda text: print(text, file=sys.stderr, flush=True))
    for step in {start, min(max(start, exp.cfg.questions_alone), exp.cfg.steps - 1)}:
        program.program(_batch(exp, step), step)
    return program


def slow_down(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Lower the rate of vision and VLM for this step."""
    for part in optimizer.param_groups:
        if part["name"].partition("/")[0] in ("vision", "vlm"):
            part["lr"] *= factor


def _sinks(exp: Experiment, run: Run, start: int) -> list[Sink]:
    sinks: list[Sink] = [
        JsonlSink(run.metrics),
        TerminalSink(exp.cfg.steps, start=start),
        Guard(exp.mixer.builder, start, exp.cfg.questions_alone),
    ]
    if exp.cfg.wandb != "disabled":
        sinks.append(WandbTracker(run.folder, mode=exp.cfg.wandb, settings=dataclasses.asdict(exp.cfg)))
    return sinks


def _saving(cfg: KITrainConfig, save) -> Hook:
    return Hook(name="checkpoint", every=cfg.checkpoint_every, call=lambda step: save(step))


def _evaluation(exp: Experiment, average: Average | None, run: Run) -> Hook:
    judge, model = judge_of(exp), exp.task.model
    backbone = [(n, p) for n, p in model.named_parameters() if n.startswith(("vlm.", "vision."))]
    small = sum(p.numel() for _, p in backbone) <= DRIFT_LIMIT
    begin = [p.detach().clone() for _, p in backbone] if small and backbone else []

    def look(step: int) -> dict[str, float]:
        if step == exp.cfg.steps:
            made = exp.task.inside(lambda: pictures.draw(judge))
            if exp.task.world.leads:
                pictures.save(run.figures, made)
        return exp.task.inside(judge.measure)

    def call(step: int) -> dict[str, float]:
        drift = {}
        if begin:
            moved = joint_norm(p - b for (_, p), b in zip(backbone, begin, strict=True))
            drift["eval/vlm_drift"] = float(moved / joint_norm(begin))
        with nullcontext() if average is None else average.applied(model):
            return look(step) | drift

    return Hook(name="evaluate", every=exp.cfg.eval_every, call=call, at_end=True)
