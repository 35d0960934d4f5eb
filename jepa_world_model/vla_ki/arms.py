"""The comparison that insulation is judged by: stages, arms, seeds.

`python -m jepa_world_model.vla_ki.arms` trains stage 0 (questions) and stage 0b (questions and FAST tokens), then from
each of the two every arm, with equal steps and batches, and writes `arms.json`, `arms.md` and `arms.html`. It is one
process, and can be stopped and called again at any time: finished runs are not trained again, a stopped one goes on.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from jepa_world_model.core.checkpoint import latest_checkpoint
from jepa_world_model.core.config import cli_main, load_config
from jepa_world_model.core.errors import UserError
from jepa_world_model.core.log import read_metrics
from jepa_world_model.core.optim import OptimConfig
from jepa_world_model.core.run import atomic_write
from jepa_world_model.vla_ki.config import KITrainConfig
from jepa_world_model.vla_ki.train import train
from jepa_world_model.vla_ki.verdicts import Results, Row, key, to_markdown, to_page

OPEN = {"knowledge_insulation": False}
STAGES = ("stage0", "stage0b")


@dataclass(frozen=True)
class Arm:
    """One way to train on from a stage."""

    model: Mapping[str, object] = field(default_factory=dict)
    train: Mapping[str, object] = field(default_factory=dict)
    asks: bool = False  # questions are mixed in
    times: int = 1  # steps, as a multiple of the other arms'
    starts: tuple[str, ...] = STAGES


LATE = ("stage0b",)
ARMS: Mapping[str, Arm] = {
    "insulated": Arm(),
    "joint": Arm(OPEN),
    "insulated_vqa": Arm(asks=True),
    "open_flow": Arm(OPEN, {"ki_fast_loss_weight": 0.0}),
    "frozen": Arm(OPEN, {"freeze_vlm": True}),
    "insulated_vqa_long": Arm(asks=True, times=3),
    "joint_10": Arm(OPEN, {"flow_weight": 10.0}, starts=LATE),
    "joint_vqa": Arm(OPEN, asks=True, starts=LATE),
    "fast_only": Arm(train={"flow_weight": 0.0}, starts=LATE),
}


@dataclass(frozen=True, kw_only=True)
class ArmsConfig:
    """How long, how often, and on what."""

    base: KITrainConfig = field(
        default_factory=lambda: KITrainConfig(
            eval_every=200,
            eval_rows=128,
            eval_episodes=50,
            checkpoint_every=500,
            keep_checkpoints=1,
            optim=OptimConfig(lr=2.5e-3, warmup_steps=50, lr_scale={"expert": 2.0}),
        )
    )
    seeds: tuple[int, ...] = (0, 1, 2)
    arms: tuple[str, ...] = tuple(ARMS)
    starts: tuple[str, ...] = STAGES[::-1]
    stage0_steps: int = 800
    stage0b_steps: int = 600
    arm_steps: int = 600
    minutes: float = 0.0  # no further run is begun after this many; 0: no limit
    output_dir: str = "runs/ki-arms"

    def __post_init__(self) -> None:
        for what, given, known in (("arms", self.arms, ARMS), ("starts", self.starts, STAGES)):
            strangers = [name for name in given if name not in known]
            if strangers or not given:
                raise UserError(f"unknown {what} {strangers}, or none (known: {', '.join(known)})")
        if not self.seeds or min(self.stage0_steps, self.stage0b_steps, self.arm_steps) < 1:
            raise UserError("the comparison needs at least one seed, and one step of each stage and arm")
        if self.minutes < 0:
            raise UserError(f"minutes must be 0 (no limit) or more, got {self.minutes}")


@dataclass(frozen=True)
class Job:
    """One training of the comparison."""

    arm: str  # or the name of a stage
    start: str  # the stage it begins from; "" for fresh weights
    seed: int
    config: KITrainConfig  # its name is the folder's


def jobs(cfg: ArmsConfig) -> Iterator[Job]:
    """Every training in order: seeds within arms within starts, so that a comparison cut short is still one."""
    for seed in cfg.seeds:
        asking = replace(cfg.base.data, vqa_share=1.0)
        base = replace(cfg.base, output_dir=cfg.output_dir, seed=seed)
        stage0 = replace(base, data=asking, flow_weight=0.0, steps=cfg.stage0_steps, name=f"stage0-s{seed}")
        stage0b = replace(
            base,
            flow_weight=0.0,
            steps=cfg.stage0b_steps,
            name=f"stage0b-s{seed}",
            init=folder_of(cfg, stage0.name),
        )
        yield Job("stage0", "", seed, stage0)
        yield Job("stage0b", "stage0", seed, stage0b)
    for start in cfg.starts:
        for name in cfg.arms:
            if start in ARMS[name].starts:
                yield from (Job(name, start, seed, arm_config(cfg, name, start, seed)) for seed in cfg.seeds)


def folder_of(cfg: ArmsConfig, name: str) -> str:
    """The folder of a run of the comparison."""
    return str(Path(cfg.output_dir) / name)


def arm_config(cfg: ArmsConfig, name: str, start: str, seed: int) -> KITrainConfig:
    """The training of an arm: the base with its changes, and nothing else."""
    arm = ARMS[name]
    share = cfg.base.data.vqa_share if arm.asks else 0.0
    return replace(
        cfg.base,
        model=replace(cfg.base.model, **arm.model),
        # Equal robot rows in every arm: what questions are mixed in comes on top.
        batch_size=cfg.base.batch_size
        if arm.asks
        else round(cfg.base.batch_size * (1 - cfg.base.data.vqa_share)),
        data=replace(cfg.base.data, vqa_share=share),
        seed=seed,
        steps=cfg.arm_steps * arm.times,
        init=folder_of(cfg, f"{start}-s{seed}"),
        output_dir=cfg.output_dir,
        name=f"{name}-from-{start}-s{seed}",
        **arm.train,
    )


def run_arms(cfg: ArmsConfig) -> Results:
    """Train what is missing, and what every run measured. Errors: UserError when a run was stopped by a signal."""
    begin, results = time.monotonic(), Results(cfg.arm_steps, {}, {})
    for job in jobs(cfg):
        over = cfg.minutes and time.monotonic() - begin > 60 * cfg.minutes
        folder = Path(cfg.output_dir) / job.config.name
        if not over or steps_done(folder) >= job.config.steps:
            run_job(job, folder)
            _take(results, job, folder)
            write(cfg, results)
    return results


def run_job(job: Job, folder: Path) -> None:
    """Train a job to its end: from its start, or from where it stopped. Errors: UserError when stopped again."""
    if steps_done(folder) >= job.config.steps:
        return
    config = job.config
    if latest_checkpoint(folder / "checkpoints") is not None:
        config = replace(config, resume=str(folder))
    elif folder.exists():
        shutil.rmtree(folder)  # stopped before its first checkpoint: there is nothing to go on from
    _, outcome = train(config)
    if outcome.interrupted:
        raise UserError(f"stopped in {folder} after {outcome.step} steps; call again to go on from there")


def steps_done(folder: Path) -> int:
    """The steps of the newest checkpoint of a run; 0 where there is none."""
    newest = latest_checkpoint(folder / "checkpoints") if folder.is_dir() else None
    return int(newest.name.rpartition("-")[2]) if newest is not None else 0


def _take(results: Results, job: Job, folder: Path) -> None:
    name = key(job.arm, job.start if job.arm in ARMS else "")
    rows = list(read_metrics(folder / "metrics.jsonl"))
    results.ends.setdefault(name, {})[job.seed] = summary(rows)
    results.curves.setdefault(name, {})[job.seed] = [
        {k.removeprefix("eval/"): v for k, v in row.items() if k == "step" or k.startswith("eval/")}
        for row in rows
        if "eval/fast_ce" in row
    ]


def summary(rows: Sequence[Mapping[str, float]]) -> Row:
    """The last evaluation, the step time, and the steps to a success of 0.5 and 0.8 (infinite: never)."""
    last = next(row for row in reversed(rows) if "eval/fast_ce" in row)
    found = {name.removeprefix("eval/"): value for name, value in last.items() if name.startswith("eval/")}
    found["step_ms"] = statistics.median(row["time/step_ms"] for row in rows if "time/step_ms" in row)
    for goal in (0.5, 0.8):
        reached = [row["step"] for row in rows if row.get("eval/success_seen", 0.0) >= goal]
        found[f"steps_to_{goal}"] = min(reached, default=float("inf"))
    return found


def write(cfg: ArmsConfig, results: Results) -> None:
    """`arms.json`, `arms.md` and `arms.html` of what is there so far."""
    folder = Path(cfg.output_dir)
    costs = folder / "costs.json"
    if costs.is_file():
        results.costs.update(json.loads(costs.read_text()))
    atomic_write(
        folder / "arms.json", json.dumps({"ends": results.ends, "costs": results.costs}, indent=1) + "\n"
    )
    atomic_write(folder / "arms.md", to_markdown(results))
    atomic_write(folder / "arms.html", to_page(results))


def arms_main(argv: Sequence[str]) -> int:
    """Train what is missing, then print the table and the verdicts."""
    cfg = load_config(
        ArmsConfig, argv, prog="python -m jepa_world_model.vla_ki.arms", description=__doc__ or ""
    )
    print(to_markdown(run_arms(cfg)))
    return 0


if __name__ == "__main__":
    sys.exit(cli_main(lambda: arms_main(sys.argv[1:])))
