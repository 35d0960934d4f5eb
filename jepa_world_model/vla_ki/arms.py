"""The comparison that insulation is judged by: stages, arms, seeds, claims stated before the run.

`python -m jepa_world_model.vla_ki.arms` trains stage 0 (questions), stage 0b (questions and FAST tokens),
then every arm from 0b with equal steps and batches, and writes `arms.json` and `arms.md`. Finished runs are
not trained again.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from jepa_world_model.core.config import cli_main, load_config
from jepa_world_model.core.errors import UserError
from jepa_world_model.core.log import read_metrics
from jepa_world_model.vla_ki.config import KITrainConfig
from jepa_world_model.vla_ki.train import train

OPEN = {"knowledge_insulation": False}
COLUMNS = ("vqa_closed", "vqa_open", "fast_ce", "fast_accuracy", "flow", "chunk_mse", "success_seen",
           "success_held_out", "language_following_seen", "vlm_drift")  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """One way to train on from stage 0b."""

    model: Mapping[str, object] = field(default_factory=dict)
    train: Mapping[str, object] = field(default_factory=dict)
    asks: bool = False  # questions are mixed in
    start: str = "stage0b"  # the run it starts from; "": fresh weights
    times: int = 1  # steps, as a multiple of the other arms'


ARMS: Mapping[str, Arm] = {
    "frozen": Arm(OPEN, {"freeze_vlm": True}),
    "open_flow": Arm(OPEN, {"ki_fast_loss_weight": 0.0}),
    "fast_only": Arm(train={"flow_weight": 0.0}),
    "open": Arm(OPEN),
    "open_10": Arm(OPEN, {"flow_weight": 10.0}),
    "insulated": Arm(),
    "open_vqa": Arm(OPEN, asks=True),
    "insulated_vqa": Arm(asks=True),
    "insulated_vqa_long": Arm(asks=True, times=3),
    "insulated_vqa_from_0": Arm(asks=True, start="", times=3),
}


@dataclass(frozen=True, kw_only=True)
class ArmsConfig:
    """How long, how often, and on what."""

    base: KITrainConfig = field(default_factory=KITrainConfig)
    seeds: tuple[int, ...] = (0, 1, 2)
    arms: tuple[str, ...] = tuple(ARMS)
    stage0_steps: int = 3000
    stage0b_steps: int = 2000
    arm_steps: int = 2000
    output_dir: str = "runs/ki-arms"

    def __post_init__(self) -> None:
        strangers = [name for name in self.arms if name not in ARMS]
        if strangers or not self.seeds:
            raise UserError(f"unknown arms {strangers} (known: {', '.join(ARMS)}), or no seeds")


Row = dict[str, float]


def run_arms(cfg: ArmsConfig) -> dict[str, dict[int, Row]]:
    """Every stage and arm of every seed: what each measured at its end, and when it reached its goals."""
    results: dict[str, dict[int, Row]] = {}
    for seed in cfg.seeds:
        asking = replace(cfg.base.data, vqa_share=1.0)
        stage0 = replace(cfg.base, data=asking, flow_weight=0.0, steps=cfg.stage0_steps, seed=seed)
        first = _run(cfg, stage0, f"stage0-s{seed}")
        stage0b = replace(cfg.base, flow_weight=0.0, steps=cfg.stage0b_steps, seed=seed, init=str(first))
        second = _run(cfg, stage0b, f"stage0b-s{seed}")
        results.setdefault("stage0b", {})[seed] = summary(second)
        for name in cfg.arms:
            folder = _run(cfg, arm_config(cfg, ARMS[name], seed, str(second)), f"{name}-s{seed}")
            results.setdefault(name, {})[seed] = summary(folder)
    return results


def arm_config(cfg: ArmsConfig, arm: Arm, seed: int, start: str) -> KITrainConfig:
    """The training of an arm: the base with its changes, and nothing else."""
    share = cfg.base.data.vqa_share if arm.asks else 0.0
    return replace(
        cfg.base,
        model=replace(cfg.base.model, **arm.model),
        data=replace(cfg.base.data, vqa_share=share),
        seed=seed,
        steps=cfg.arm_steps * arm.times,
        init=start if arm.start else "",
        **arm.train,
    )


def _run(cfg: ArmsConfig, job: KITrainConfig, name: str) -> Path:
    folder = Path(cfg.output_dir) / name
    last = (
        max((int(row["step"]) for row in read_metrics(folder / "metrics.jsonl")), default=0)
        if folder.is_dir()
        else 0
    )
    if last < job.steps:
        if folder.is_dir():
            raise UserError(
                f"{folder} stopped after {last} of {job.steps} steps; delete it to train it again"
            )
        train(replace(job, output_dir=cfg.output_dir, name=name))
    return folder


def summary(folder: Path) -> Row:
    """The last evaluation of a run, its step time, and the steps to a success of 0.5 and 0.8 (infinite:
    never).
    """
    rows = list(read_metrics(folder / "metrics.jsonl"))
    last = next(row for row in reversed(rows) if "eval/fast_ce" in row)
    found = {name.removeprefix("eval/"): value for name, value in last.items() if name.startswith("eval/")}
    found["step_ms"] = statistics.median(row["time/step_ms"] for row in rows if "time/step_ms" in row)
    for goal in (0.5, 0.8):
        reached = [row["step"] for row in rows if row.get("eval/success_seen", 0.0) >= goal]
        found[f"steps_to_{goal}"] = min(reached, default=float("inf"))
    return found


Middle = Callable[[str, str], float]  # (arm, column) -> the median over seeds
CLAIMS: Mapping[str, tuple[str, tuple[str, ...], Callable[[Middle], bool]]] = {
    "E1": (
        "insulated + VQA loses at most 2 points of closed-set accuracy",
        ("insulated_vqa",),
        lambda m: m("stage0b", "vqa_closed") - m("insulated_vqa", "vqa_closed") <= 0.02,
    ),
    "E2": (
        "FAST CE after open flow only is at least 3 times its start, insulated at most 1.1 times",
        ("open_flow", "insulated"),
        lambda m: (
            m("open_flow", "fast_ce") >= 3 * m("stage0b", "fast_ce")
            and m("insulated", "fast_ce") <= 1.1 * m("stage0b", "fast_ce")
        ),
    ),
    "E3": (
        "without co-training, insulated beats open (flow weight 10) by 5 points of closed-set accuracy",
        ("insulated", "open_10"),
        lambda m: m("insulated", "vqa_closed") - m("open_10", "vqa_closed") >= 0.05,
    ),
    "E4": (
        "insulated + VQA, at three times the steps, succeeds in 0.85, and in 0.9 of the best open arm",
        ("insulated_vqa_long", "open", "open_10", "open_vqa"),
        lambda m: (
            m("insulated_vqa_long", "success_seen")
            >= max(0.85, 0.9 * max(m(a, "success_seen") for a in ("open", "open_10", "open_vqa")))
        ),
    ),
    "E5": (
        "from 0b, 0.5 success comes in at most 0.35 of the steps that it takes from 0",
        ("insulated_vqa_long", "insulated_vqa_from_0"),
        lambda m: (
            m("insulated_vqa_long", "steps_to_0.5") <= 0.35 * m("insulated_vqa_from_0", "steps_to_0.5")
            and m("insulated_vqa_long", "steps_to_0.5") < float("inf")
        ),
    ),
    "E6": (
        "an insulated step takes at most 1.05 times a joint one",
        ("insulated_vqa", "open_vqa"),
        lambda m: m("insulated_vqa", "step_ms") <= 1.05 * m("open_vqa", "step_ms"),
    ),
}


def to_markdown(results: Mapping[str, Mapping[int, Row]]) -> str:
    """The table of medians over seeds, and each claim as held, failed, or not run."""

    def middle(arm: str, column: str) -> float:
        return statistics.median(row.get(column, float("nan")) for row in results[arm].values())

    lines = ["| arm | " + " | ".join(COLUMNS) + " |", "|---|" + "---|" * len(COLUMNS)]
    lines += [f"| {arm} | " + " | ".join(f"{middle(arm, c):.3f}" for c in COLUMNS) + " |" for arm in results]
    lines += ["", f"Medians over {max(map(len, results.values()))} seeds.", ""]
    for name, (claim, needs, holds) in CLAIMS.items():
        if any(arm not in results for arm in needs):
            verdict = "not run"
        else:
            verdict = "held" if holds(middle) else "failed"
        lines.append(f"{name} {verdict}: {claim}.")
    return "\n".join(lines) + "\n"


def arms_main(argv: Sequence[str]) -> int:
    """Train what is missing, then write `arms.json` and `arms.md`."""
    cfg = load_config(
        ArmsConfig, argv, prog="python -m jepa_world_model.vla_ki.arms", description=__doc__ or ""
    )
    results = run_arms(cfg)
    folder = Path(cfg.output_dir)
    (folder / "arms.json").write_text(json.dumps(results, indent=2))
    (folder / "arms.md").write_text(to_markdown(results))
    print(to_markdown(results))
    return 0


if __name__ == "__main__":
    sys.exit(cli_main(lambda: arms_main(sys.argv[1:])))
