"""The configuration of one experiment."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Literal

from jepa_world_model.core.graph import Graph
from jepa_world_model.core.losses import Schedule
from jepa_world_model.core.optim import OptimConfig
from jepa_world_model.experiment.data import DataConfig
from jepa_world_model.experiment.plan_config import PlanConfig
from jepa_world_model.latents import Settings, named_gates, world_graph
from jepa_world_model.losses import LOSSES, LossWeights
from jepa_world_model.model_config import ModelConfig

LossOptions = LOSSES.options_type("LossOptions")


@dataclass(frozen=True, kw_only=True)
class WandbConfig:
    """Weights & Biases, beside the metrics.jsonl that is always written."""

    mode: str = "disabled"  # "online", "offline" (sync later) or "disabled"
    project: str = "jepa-world-model"  # where runs appear
    entity: str = ""  # empty: the account's default
    checkpoints: bool = True  # each checkpoint as an artifact too

    def __post_init__(self) -> None:
        if self.mode not in ("online", "offline", "disabled"):
            raise ValueError(f"wandb.mode must be online, offline or disabled, got {self.mode!r}")


def world_model_optim() -> OptimConfig:
    """The optimizer of the world model: what learns from a state behind a barrier learns faster than that state moves.

    With one rate for all, the encoder goes on changing z (and z_to_h the start of h) and the predictor never catches up:
    on the gridworld the one-step error after 800 steps is 0.51 of copying the last frame, with a slow encoder 0.23
    (docs/log.md). When a loss on h may move the encoder, give it its rate back: `--optim.lr-scale encoder 1`.
    """
    return OptimConfig(lr=2e-3, warmup_steps=50, lr_scale={"encoder": 0.02, "z_to_h": 0.03})


def planning_while_training() -> PlanConfig:
    """Planning during training: few episodes, so that it stays cheap; `jepa-wm plan` measures."""
    return PlanConfig(episodes=20, graph_frames=5000)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A run of the world-model trainer. A TOML file and flags bear the same names."""

    steps: int = 1400  # optimizer steps
    seed: int = 0  # weights, data order, every draw
    device: str = "auto"  # "auto" (cuda where there is one), "cpu", "cuda", "cuda:1"
    output_dir: str = "runs"  # where run folders are made
    name: str = ""  # folder below output_dir; empty: date, data set, seed
    # continue the run of this name from its newest checkpoint; start it where there is none
    resume: bool = False
    fork: str = ""  # start from a checkpoint of another run, RUN@STEP; settings without a flag are that run's
    batch_size: int = 8  # windows a batch
    accumulate: int = 1  # batches a step; losses over the distribution of a batch see each by itself
    seq_len: int = 12  # frames a window, T; actions are T - 1
    rollout_horizon: int = 8  # self-fed steps, K, at most T - 1
    precision: str = "auto"  # "fp32", "bf16" (autocast of the latents; losses stay in fp32), or what this machine is fast at
    threads: int = 0  # CPU threads; 0: torch's own choice
    # one program for losses and gradients: faster steps after some minutes of compiling (docs/scaling.md)
    compile: bool = False
    log_every: int = 10  # steps between records
    eval_every: int = 400  # steps between evaluations on held-out episodes; 0: at the end only
    eval_windows: int = 64  # held-out windows an evaluation
    # steps between reports of each loss's gradient on each module; 0: off; costs ~2 steps
    grad_report_every: int = 0
    plan_every: int = 0  # steps between evaluations by planning, as `plan` says; 0: off
    checkpoint_every: int = 400  # steps between checkpoints; 0: at the end only
    keep_checkpoints: int = 2  # so many of the newest stay; 0: all
    skip_non_finite: int = 0  # so many steps that are not finite are left out; the next one ends the run
    # a loss that many times the median of 100 steps is kept with its batch; 0: none is
    spike_factor: float = 10.0
    # an eval metric, such as "eval/open_loop_ratio_k8": the checkpoint where it is best stays too
    best_metric: str = ""
    best_is: Literal["lowest", "highest"] = "lowest"  # which value of it is best
    # decay of a moving average of the weights, which is evaluated and kept beside them; 0: none
    ema: float = 0.0
    report: bool = True  # write report.html at the end
    # question the model at the end: diagnostics.html and diagnostics.json, a few seconds
    diagnostics: bool = True
    detach_z_from_h_and_p: bool = True  # cut every edge from z into h, rollouts and whatever feeds h and p
    detach_decoder: bool = False  # cut z -> x_hat: reconstruction trains the decoder alone
    # any edge, "z->h", to the share of gradient that passes
    gates: dict[str, float] = field(default_factory=dict)
    force_h_zero: bool = False  # the predictor gets zeros for h: no memory but the last frame (an ablation)
    # of imagined frames in losses; "anchor_delta": true start frame plus decoded change
    render_mode: str = "direct"
    # loss to "ramp:START:END" or "cosine:START:END"
    loss_schedules: dict[str, str] = field(default_factory=dict)
    loss_normalization: bool = False  # divide each loss by a running mean of its own size
    loss_weights: LossWeights = field(default_factory=LossWeights)
    loss_options: LossOptions = field(default_factory=LossOptions)  # type: ignore[valid-type]
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=world_model_optim)
    plan: PlanConfig = field(default_factory=planning_while_training)
    tensorboard: bool = False  # event files in <run>/tensorboard, beside metrics.jsonl
    wandb: WandbConfig = field(default_factory=WandbConfig)

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch_size", 1), ("accumulate", 1), ("skip_non_finite", 0),
                            ("seq_len", 3), ("rollout_horizon", 1), ("log_every", 1),
                            ("eval_windows", 2), ("keep_checkpoints", 0), ("eval_every", 0), ("checkpoint_every", 0),
                            ("grad_report_every", 0), ("plan_every", 0),
                            ("threads", 0), ("seed", 0)):  # fmt: skip
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be {least} or above, got {getattr(self, name)}")
        if self.rollout_horizon > self.seq_len - 1:
            raise ValueError(
                f"a window of {self.seq_len} frames cannot hold the horizon {self.rollout_horizon}; "
                f"use rollout_horizon <= {self.seq_len - 1} or seq_len >= {self.rollout_horizon + 1}"
            )
        if self.model.warmup_frames_h > self.seq_len - 3:
            raise ValueError(
                f"model.warmup_frames_h {self.model.warmup_frames_h} leaves less than 3 of {self.seq_len} frames; "
                f"use at most {self.seq_len - 3} or a longer seq_len"
            )
        if self.spike_factor != 0 and not (self.spike_factor > 1 and math.isfinite(self.spike_factor)):
            raise ValueError(f"spike_factor must be 0 (off) or above 1, got {self.spike_factor}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must lie in [0, 1), 0 for no average, got {self.ema}")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise ValueError(f"precision must be auto, fp32 or bf16, got {self.precision!r}")
        if self.compile and self.model.checkpointing:
            raise ValueError("compile would keep what model.checkpointing throws away; use one of them")
        LOSSES.active(dataclasses.asdict(self.loss_weights))
        for name in self.schedules():
            LOSSES[name]
        self.graph().gates(self.gates)

    @property
    def settings(self) -> Settings:
        """What latents and losses may know."""
        return Settings(
            model=self.model, rollout_horizon=self.rollout_horizon, force_h_zero=self.force_h_zero,
            render_mode=self.render_mode,
        )  # fmt: skip

    def schedules(self) -> dict[str, Schedule]:
        """The weight schedules by loss."""
        return {
            name: Schedule.parse(text, f"loss_schedules.{name}") for name, text in self.loss_schedules.items()
        }

    def graph(self) -> Graph:
        """The latent table of this configuration."""
        return world_graph(self.settings)

    def edge_gates(self) -> dict[str, float]:
        """Every edge's share of the gradient: the table's, then the named gates, then `gates`."""
        named = named_gates(
            detach_z_from_h_and_p=self.detach_z_from_h_and_p,
            detach_decoder=self.detach_decoder,
            pose_delta_detach_h=self.model.pose_delta_detach_h,
        )
        graph = self.graph()
        return graph.gates(
            {edge: keep for edge, keep in named.items() if edge in graph.edge_names}, self.gates
        )
