"""The configuration of a training with knowledge insulation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jepa_world_model.core.config import load_config
from jepa_world_model.core.errors import ConfigError
from jepa_world_model.core.graph import unknown
from jepa_world_model.core.optim import OptimConfig
from jepa_world_model.vla_ki.images import AugmentConfig
from jepa_world_model.vla_ki.model import PRESETS, KIConfig
from jepa_world_model.vla_ki.table import setting_gates

# Published checkpoints are trained on with a small, long warmed-up rate; the default is for small models from
# scratch.
FULL_SIZE = dict.fromkeys(
    ("pi05", "pi05_ki", "pi05_droid_ki"),
    (
        "--optim.lr",
        "2.5e-5",
        "--optim.warmup-steps",
        "1000",
        "--precision",
        "bf16",
        "--data.fast-vocab",
        "2048",
        "--vlm-rate",
        "1.0",
        "--optim.lr-scale",
        "expert",
        "1.0",
        "--augment.brightness",
        "0.15",
        "--augment.contrast",
        "0.15",
    ),
)
ALIASES = {"--knowledge-insulation-lambda": "--ki-fast-loss-weight"}


@dataclass(frozen=True, kw_only=True)
class KIDataConfig:
    """Demonstrations, questions and tokenizers."""

    folder: str = ""  # a LeRobotDataset v3 folder; empty: the embedded arm, written once below `cache`
    cache: str = "datasets"  # where the embedded arm's data set lives
    cameras: tuple[str, ...] = ()  # of the folder, in this order; empty: all by name
    episodes: int = 1000  # of the embedded arm
    questions: int = 20000  # about the embedded arm's pictures, drawn anew (0: none)
    # a folder with questions.jsonl and its pictures; empty: the embedded arm's own, if used
    questions_folder: str = ""
    val_share: float = 0.1  # share of episodes, and of questions, that no training step sees
    vqa_share: float = 0.25  # share of question rows in a batch; 0: robot rows only
    # Beginning with both, a small model answers from the text alone, and its vision tower never starts: after 900 steps
    # its gradient was 0.04, answers at chance.
    # steps of questions alone, before robot rows come in; with `init` there are none
    questions_first: int = 1000
    fast_vocab: int = 256  # FAST ids; the published tokenizer has 2048
    fast_scale: float = 5.0  # quantisation steps a unit of a coefficient; more is finer and longer
    fast_file: str = ""  # a saved FAST tokenizer, or a folder with the published one; empty: fit on the data
    text_vocab: int = 448  # ids of the small BPE trained on the prompts, at least 260
    text_file: str = ""  # a SentencePiece model file to use instead

    def __post_init__(self) -> None:
        if not 0 < self.val_share < 1 or not 0 <= self.vqa_share <= 1:
            raise ConfigError(
                f"data.val_share must lie in (0, 1) and data.vqa_share in [0, 1], got {self.val_share} and "
                f"{self.vqa_share}"
            )
        if self.questions_first < 0:
            raise ConfigError(f"data.questions_first must be at least 0, got {self.questions_first}")
        if self.episodes < 2 or self.questions < 0 or self.fast_vocab < 2 or not self.fast_scale > 0:
            raise ConfigError(
                "data.episodes must be at least 2, questions at least 0, fast_vocab at least 2, "
                "fast_scale above 0"
            )


@dataclass(frozen=True, kw_only=True)
class KITrainConfig:
    """A run of `jepa-wm ki-train`."""

    steps: int = 4000  # optimizer steps, the first of them questions alone
    seed: int = 0  # weights, data order, every draw
    device: str = "auto"  # "auto" (cuda where there is one), "cpu", "cuda"
    output_dir: str = "runs"  # where run folders go
    name: str = ""  # folder below output_dir; empty: date, data set, seed
    resume: str = ""  # a run folder to continue from its newest checkpoint
    init: str = ""  # start from these weights: a run folder, or published safetensors
    batch_size: int = 32  # rows a step
    flow_samples: int = 4  # noisy versions of each chunk a VLM pass
    # share of the action gradient that passes when model.knowledge_insulation is off; 1: joint
    leak: float = 1.0
    freeze_vlm: bool = False  # train the expert alone; excludes knowledge_insulation
    lora_rank: int = 0  # above 0: the VLM trains adapters of this rank, the rest of it is frozen
    # of the FAST tokens' cross entropy, 0.1 to 10; also --knowledge-insulation-lambda
    ki_fast_loss_weight: float = 1.0
    flow_weight: float = 1.0  # of the flow-matching loss; 0: no action training
    vqa_weight: float = 1.0  # of the answers' cross entropy, where data.vqa_share is above 0
    # "bf16" is autocast, weights and losses stay in fp32; "auto": bf16 where the machine multiplies it natively. At the
    # default size conversions cost more than they save: 104 ms a step in bf16, 87 in fp32 (one AVX-512 core with AMX). In a
    # compiled step they do not: 32 and 42 (two).
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    # one program for losses and gradients: faster steps after some minutes of compiling (docs/vla.md)
    compile: bool = False
    threads: int = 0  # CPU threads; 0: torch's own choice
    log_every: int = 20  # steps between records of the losses
    eval_every: int = 500  # steps between evaluations; 0: at the end only
    eval_rows: int = 64  # held-out robot rows and questions an evaluation
    eval_episodes: int = 32  # closed-loop episodes an evaluation, embedded arm only; 0: none
    checkpoint_every: int = 500  # steps between checkpoints
    keep_checkpoints: int = 2  # older ones are deleted
    sampler_steps: int = 10  # Euler steps from noise to actions
    ema: float = 0.0  # decay of the averaged weights that evaluation uses, 0.999 for long runs; 0: off
    wandb: Literal["online", "offline", "disabled"] = "disabled"  # offline needs no account; sync later
    model: KIConfig = field(default_factory=KIConfig)
    data: KIDataConfig = field(default_factory=KIDataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    # What the expert reads must move slower than the expert: with one rate for all, the same flow loss took 1.4 times
    # the steps, and a fifth of the answers was forgotten on the way.
    vlm_rate: float = 0.5  # factor on the rate of vision and VLM in steps that train an expert too
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(lr=2.5e-3, warmup_steps=100, lr_scale={"expert": 2.0})
    )

    def __post_init__(self) -> None:
        least = {
            "steps": 1,
            "batch_size": 1,
            "flow_samples": 1,
            "log_every": 1,
            "eval_rows": 1,
            "keep_checkpoints": 1,
        }
        least |= dict.fromkeys(
            ("seed", "threads", "eval_every", "eval_episodes", "checkpoint_every", "lora_rank"), 0
        )
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                raise ConfigError(f"{name} must be at least {lowest}, got {getattr(self, name)}")
        for name in ("ki_fast_loss_weight", "flow_weight", "vqa_weight"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} must be finite and 0 or above, got {value}")
        if not (math.isfinite(self.vlm_rate) and self.vlm_rate > 0):
            raise ConfigError(
                f"vlm_rate must be finite and above 0, got {self.vlm_rate}; to freeze it use --freeze-vlm"
            )
        if not 0 <= self.ema < 1:
            raise ConfigError(f"ema must lie in [0, 1), got {self.ema}")
        if self.compile and self.model.checkpointing:
            raise ConfigError("compile would keep what model.checkpointing throws away; use one of them")
        self._refuse_disguises()
        self.gates()

    def _refuse_disguises(self) -> None:
        insulated = self.model.knowledge_insulation and self.flow_weight > 0
        if insulated and (self.freeze_vlm or self.ki_fast_loss_weight == 0):
            cause = "freeze_vlm is on" if self.freeze_vlm else "ki_fast_loss_weight is 0"
            raise ConfigError(
                f"insulation is on, but {cause}: nothing would teach the VLM about actions, "
                "which is a frozen backbone in disguise; for that use --no-model.knowledge-insulation "
                "--freeze-vlm, else give ki_fast_loss_weight a value above 0"
            )
        if self.freeze_vlm and self.lora_rank:
            raise ConfigError("freeze_vlm and lora_rank exclude each other; adapters train the VLM")

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each loss; a frozen VLM has none of its own."""
        trains = not self.freeze_vlm
        robots = round(self.data.vqa_share * self.batch_size) < self.batch_size
        asks = round(self.data.vqa_share * self.batch_size) > 0
        return {
            "fast_ce": self.ki_fast_loss_weight if trains and robots else 0.0,
            "text_ce": self.vqa_weight if trains and asks else 0.0,
            "flow": self.flow_weight if robots else 0.0,
        }

    @property
    def questions_alone(self) -> int:
        """Steps of questions alone at the start: none where nobody asks, or the weights come from elsewhere."""
        return self.data.questions_first if not self.init and self.weights["text_ce"] > 0 else 0

    @property
    def setting(self) -> str:
        """The named setting of the barrier."""
        if self.model.knowledge_insulation or self.freeze_vlm:
            return "insulated"
        return "joint" if self.leak == 1 else "leaky"

    def gates(self) -> Mapping[str, float]:
        """Every edge's share of the gradient."""
        return setting_gates(self.setting, self.leak)


def read_config(argv: Sequence[str], *, prog: str, description: str) -> KITrainConfig:
    """The configuration of a command line, with what is short for other flags.

    `--preset NAME` stands for the sizes of a model; `--resume FOLDER` alone takes every other setting from
    that run; `--knowledge-insulation-lambda` is `--ki-fast-loss-weight`.
    """
    words = [part for word in argv for part in _split(word)]
    words = [ALIASES.get(word.replace("_", "-"), word) if word.startswith("--") else word for word in words]
    if "--preset" in words:
        at = words.index("--preset")
        name = words[at + 1] if at + 1 < len(words) else ""
        if name not in PRESETS:
            raise ConfigError(unknown("preset", name, PRESETS))
        words = [*_flags_of(PRESETS[name]), *FULL_SIZE.get(name, ()), *words[:at], *words[at + 2 :]]
    if "--resume" in words[:-1] and "--config" not in words:
        words = ["--config", str(Path(words[words.index("--resume") + 1]) / "config.toml"), *words]
    about = f"{description} --preset NAME sets the sizes of a model: {', '.join(PRESETS)}."
    return load_config(KITrainConfig, words, prog=prog, description=about)


def _split(word: str) -> list[str]:
    return word.split("=", 1) if word.startswith("--") else [word]


def _flags_of(model: KIConfig) -> list[str]:
    words = []
    for name, value in vars(model).items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--model.{flag}" if value else f"--model.no-{flag}")
        else:
            words += [f"--model.{flag}", str(value)]
    return words
