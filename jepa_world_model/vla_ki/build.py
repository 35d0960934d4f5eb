"""From a configuration to what a run needs: data, tokenizers, model, task, optimizer, batches."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from jepa_world_model.core.checkpoint import latest_checkpoint, load_checkpoint
from jepa_world_model.core.distributed import ALONE, World
from jepa_world_model.core.errors import UserError
from jepa_world_model.core.optim import build_optimizer
from jepa_world_model.core.precision import resolve_precision
from jepa_world_model.core.rng import Streams, seed_everything
from jepa_world_model.core.sharding import entering, shard, shard_moments
from jepa_world_model.core.task import Task, parameter_groups
from jepa_world_model.vla_ki import arm
from jepa_world_model.vla_ki.batch import KIBatch
from jepa_world_model.vla_ki.config import KIDataConfig, KITrainConfig
from jepa_world_model.vla_ki.fast import FastTokenizer
from jepa_world_model.vla_ki.lerobot import RobotData, read_lerobot, write_lerobot
from jepa_world_model.vla_ki.lora import add_lora, freeze
from jepa_world_model.vla_ki.model import Vla
from jepa_world_model.vla_ki.prompt import PromptBuilder, PromptConfig, question_text, task_text
from jepa_world_model.vla_ki.questions import read_questions, split_questions
from jepa_world_model.vla_ki.samples import (
    Mixer,
    Normalisers,
    Questions,
    action_chunks,
    frames_of,
    split_episodes,
)
from jepa_world_model.vla_ki.siglip import SIGLIP
from jepa_world_model.vla_ki.table import GRAPH, LOSSES, Settings
from jepa_world_model.vla_ki.text import PromptBpe, SentencePieceText, TextTokenizer, load_text_tokenizer
from jepa_world_model.vla_ki.weights import load_weights

TOKENIZERS = "tokenizers.json"
PROOF_ROWS = 4  # of each kind
CAMERA = "observation.images.top"
LARGEST_RMSE = 0.10 * 2.0  # a tenth of the normalised range [-1, 1]


@dataclass(frozen=True)
class Tools:
    """What turns data into tokens and numbers; saved with a run, since its model means nothing without."""

    text: TextTokenizer
    fast: FastTokenizer
    norm: Normalisers

    def save(self, folder: Path) -> None:
        """Write `tokenizers.json`."""
        (folder / TOKENIZERS).write_text(self.to_text(), encoding="utf-8")

    def to_text(self) -> str:
        """What `tokenizers.json` holds."""
        state = {"text": self.text.to_json(), "fast": self.fast.to_json(), "norm": self.norm.to_json()}
        return json.dumps(state, ensure_ascii=False)

    @classmethod
    def load(cls, folder: Path) -> Tools:
        """Read `tokenizers.json` of a run. Errors: UserError where there is none."""
        path = folder / TOKENIZERS
        if not path.is_file():
            raise UserError(f"{folder} holds no {TOKENIZERS}; is it a run of ki-train?")
        return cls.from_text(path.read_text(encoding="utf-8"))

    @classmethod
    def from_text(cls, text: str) -> Tools:
        """What `to_text` gave."""
        state = json.loads(text)
        return cls(
            load_text_tokenizer(state["text"]),
            FastTokenizer.from_json(state["fast"]),
            Normalisers.from_json(state["norm"]),
        )

    def builder(self, cfg: KITrainConfig) -> PromptBuilder:
        """The prompt builder of these tokenizers."""
        m = cfg.model
        sizes = PromptConfig(
            prompt_length=m.prompt_length,
            answer_length=m.answer_length,
            vocab_size=m.vocab_size,
            fast_skip=m.fast_skip,
        )
        return PromptBuilder(self.text, sizes, self.fast)


@dataclass(frozen=True)
class Data:
    """Demonstrations and questions, split."""

    robot: RobotData
    train: np.ndarray  # frame numbers
    val: np.ndarray  # frame numbers of other episodes
    train_questions: Questions | None
    val_questions: Questions | None


@dataclass(frozen=True)
class Experiment:
    """Everything a run needs."""

    cfg: KITrainConfig
    data: Data
    tools: Tools
    task: Task
    optimizer: torch.optim.Optimizer
    mixer: Mixer
    device: torch.device
    fast_rmse: float  # what FAST loses of validation chunks, in normalised units


def make_arm_data(cfg: KIDataConfig, seed: int = 0) -> Path:
    """The embedded arm's demonstrations as a LeRobotDataset folder, written once."""
    # Another renderer gives other pictures: the simulator and the demonstrations must be of the same one.
    look = hashlib.sha256(Path(arm.__file__).read_bytes()).hexdigest()[:8]
    folder = Path(cfg.cache) / f"ki_arm-{cfg.episodes}-s{seed}-{look}"
    if folder.exists():
        return folder
    rng = Streams(seed).numpy("arm")
    seen = [c for c in arm.NAMES if c not in arm.HELD_OUT]
    scenes = arm.sample_scenes(rng, cfg.episodes, goals=seen)
    states, actions, lengths = arm.demonstrate(scenes)
    shown = np.arange(states.shape[1])[None] < lengths[:, None]  # [E,T]
    episode = np.repeat(np.arange(cfg.episodes), lengths)
    each = arm.Scenes(
        states[shown], *(part[episode] for part in (scenes.targets, scenes.colours, scenes.goal))
    )
    tasks = tuple(sorted(set(scenes.instructions)))
    folder.parent.mkdir(parents=True, exist_ok=True)
    data = RobotData(
        name="ki_arm",
        fps=10.0,
        tasks=tasks,
        bounds=np.stack([np.cumsum(lengths) - lengths, lengths], 1),
        states=states[shown],
        actions=actions[shown],
        task=np.array([tasks.index(i) for i in scenes.instructions])[episode],
        cameras={CAMERA: arm.render(each)},
    )
    try:
        return write_lerobot(folder, data, robot_type="planar_arm")
    except UserError:
        if folder.is_dir():  # another process was faster: its data are the same
            return folder
        raise


def make_questions(count: int, rng: np.random.Generator) -> Questions:
    """Questions about fresh pictures of the embedded arm, in all colours."""
    scenes = arm.sample_scenes(rng, count)
    return Questions(arm.render(scenes), *arm.ask(rng, scenes))


def open_data(cfg: KITrainConfig) -> Data:
    """The data of a configuration. Errors: UserError for what the user can mend."""
    embedded = not cfg.data.folder
    folder = make_arm_data(cfg.data) if embedded else Path(cfg.data.folder)
    robot = read_lerobot(folder, image_size=SIGLIP[cfg.model.vision].image_size, cameras=cfg.data.cameras)
    if len(robot.cameras) != cfg.model.cameras:
        raise UserError(
            f"{folder} gives {len(robot.cameras)} cameras ({', '.join(robot.cameras)}), the model has "
            f"{cfg.model.cameras}; set --model.cameras or choose with --data.cameras"
        )
    train, val = split_episodes(robot, cfg.data.val_share, Streams(0).numpy("split"))
    return Data(robot, frames_of(robot, train), frames_of(robot, val), *open_questions(cfg))


def open_questions(cfg: KITrainConfig) -> tuple[Questions | None, Questions | None]:
    """Training and validation questions of a folder, or the embedded arm's; the same for every seed."""
    size, streams = SIGLIP[cfg.model.vision].image_size, Streams(0)
    if cfg.data.questions_folder:
        found = read_questions(cfg.data.questions_folder, size)
        return split_questions(found, cfg.data.val_share, streams.numpy("split-questions"))
    if cfg.data.folder or not cfg.data.questions:
        return None, None
    if size != arm.SIZE and cfg.data.vqa_share:
        raise UserError(f"the embedded questions have pictures of {arm.SIZE} pixels; set --data.vqa-share 0")
    held = max(round(cfg.data.questions * cfg.data.val_share), 8)
    return (
        make_questions(cfg.data.questions, streams.numpy("questions")),
        make_questions(held, streams.numpy("val-questions")),
    )


def fit_tools(cfg: KITrainConfig, data: Data) -> Tools:
    """Normalisers and tokenizers from the training split alone."""
    norm = Normalisers.fit(data.robot, data.train)
    chunks = _unit_chunks(cfg, data, data.train[:: max(len(data.train) // 4000, 1)], norm)
    if cfg.data.fast_file:
        path = Path(cfg.data.fast_file)
        fast = FastTokenizer.from_published(path) if path.is_dir() else FastTokenizer.load(path)
    else:
        fast = FastTokenizer.fit(chunks, vocab_size=cfg.data.fast_vocab, scale=cfg.data.fast_scale)
    if cfg.data.text_file:
        return Tools(SentencePieceText(cfg.data.text_file), fast, norm)
    states = norm.state.normalise(data.robot.states[data.train])
    every = max(len(states) // 2000, 1)
    texts = [
        task_text(data.robot.tasks[i], s)
        for i, s in zip(data.robot.task[data.train][::every], states[::every], strict=True)
    ]
    if data.train_questions is not None:
        pairs = zip(data.train_questions.questions, data.train_questions.answers, strict=True)
        texts += [question_text(q) + a for q, a in pairs]
    spoken = "".join(texts)
    whole = [word for word in arm.LOCATIONS if word in spoken]
    text = PromptBpe.fit([*texts, "|"], vocab_size=cfg.data.text_vocab, whole=whole)
    return Tools(text, fast, norm)


def _unit_chunks(cfg: KITrainConfig, data: Data, frames: np.ndarray, norm: Normalisers) -> np.ndarray:
    chunks, _ = action_chunks(data.robot, frames, cfg.model.horizon)
    return norm.action.normalise(chunks)[..., norm.action.moving]


def check_tools(cfg: KITrainConfig, data: Data, tools: Tools) -> float:
    """The FAST round-trip error on validation chunks. Errors: more than a tenth of the range."""
    frames = data.val[:: max(len(data.val) // 500, 1)]
    rmse = tools.fast.round_trip_rmse(_unit_chunks(cfg, data, frames, tools.norm))
    if rmse > LARGEST_RMSE:
        raise UserError(
            f"FAST loses {rmse:.3f} of the normalised actions of the validation split (at most "
            f"{LARGEST_RMSE} is allowed): fit it on this data set, or raise --data.fast-scale"
        )
    return rmse


def build_task(cfg: KITrainConfig, device: torch.device, world: World = ALONE) -> Task:
    """Model and task, with fresh weights of the seed or those of `init`."""
    seed_everything(cfg.seed)
    model = Vla(cfg.model)
    if cfg.init:
        start_from(model, Path(cfg.init))
    if cfg.freeze_vlm:
        freeze(model.vision)
        freeze(model.vlm)
    elif cfg.lora_rank:
        add_lora(model.vlm, rank=cfg.lora_rank)
    autocast = partial(
        torch.autocast,
        device.type,
        dtype=torch.bfloat16,
        enabled=resolve_precision(cfg.precision, device) == "bf16",
    )
    return Task(
        model.to(device),
        GRAPH,
        LOSSES,
        weights=cfg.weights,
        gates=cfg.gates(),
        settings=Settings(model=cfg.model, flow_samples=cfg.flow_samples),
        streams=Streams(cfg.seed),
        autocast=autocast,
        world=world,
    )


def start_from(model: Vla, path: Path) -> str:
    """Weights of another run, or published ones (perhaps without an expert); what was loaded."""
    if (path / "config.toml").is_file():
        newest = latest_checkpoint(path / "checkpoints")
        if newest is None:
            raise UserError(f"the run {path} has no checkpoint to start from")
        load_checkpoint(newest, model)
        return f"weights from {newest}"
    report = load_weights(model, path, strict=False)
    lost = [name for name in report.missing if not name.startswith("expert.")]
    whole = len(report.missing) - len(lost) in (0, len(model.expert.state_dict()))
    if lost or report.unexpected or report.misshaped or not whole:
        raise UserError(f"{path} does not fit the model: {report}")
    return f"weights from {path}: {report}"


def build(cfg: KITrainConfig, world: World = ALONE) -> Experiment:
    """Everything of a configuration. Errors: UserError for what the user can mend.

    world: the processes that share every batch; each holds the whole model until `sharded`.
    """
    device = torch.device(
        ("cuda" if torch.cuda.is_available() else "cpu") if cfg.device == "auto" else cfg.device
    )
    device = device if world.size == 1 else world.device
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    with world.leading():  # the embedded arm's data are written on first use: once a machine
        data = open_data(cfg)
    source = cfg.resume or (cfg.init if (Path(cfg.init) / TOKENIZERS).is_file() else "")
    tools = Tools.load(Path(source)) if source else _same_tools(cfg, data, world)
    rmse = check_tools(cfg, data, tools)
    if cfg.data.vqa_share and data.train_questions is None:
        raise UserError(
            "data.vqa_share is above 0, but this data set has no questions; give "
            "--data.questions-folder or set --data.vqa-share 0"
        )
    task = build_task(cfg, device, world)
    world.align(task.model)
    mixer = Mixer(
        cfg=cfg.model,
        builder=tools.builder(cfg),
        data=data.robot,
        frames=data.train,
        norm=tools.norm,
        streams=task.streams,
        name="data",
        batch_size=cfg.batch_size,
        questions=data.train_questions,
        vqa_share=cfg.data.vqa_share,
        questions_first=cfg.questions_alone,
        augment=cfg.augment,
        rank=world.rank,
        world=world.size,
    )
    optimizer = build_optimizer(task.groups, cfg.optim)
    return Experiment(cfg, data, tools, task, optimizer, mixer, device, rmse)


def _same_tools(cfg: KITrainConfig, data: Data, world: World) -> Tools:
    """Tools fitted by the first process: one token more on another machine, and no sizes would agree."""
    if world.size == 1:
        return fit_tools(cfg, data)
    return Tools.from_text(world.told(fit_tools(cfg, data).to_text() if world.leads else ""))


def sharded(exp: Experiment) -> Experiment:
    """The same, with every parameter and its moments cut into one part a process; alone, as it is."""
    if exp.task.world.size == 1:
        return exp
    task = copy.copy(exp.task)
    shard(task.model, task.model.blocks, task.world)
    task.groups, task.inside = parameter_groups(task.model), entering(task.model)
    optimizer = build_optimizer(task.groups, exp.cfg.optim)
    shard_moments(exp.optimizer, optimizer)
    return replace(exp, task=task, optimizer=optimizer)


def proof_rows(exp: Experiment) -> KIBatch:
    """A few training rows of both kinds, for proofs."""
    mixer = exp.mixer
    rng = mixer.streams.numpy("proof-rows")
    robots = min(PROOF_ROWS, mixer.batch_size - mixer.num_questions)
    frames = mixer.frames[rng.integers(len(mixer.frames), size=robots)]
    asked = rng.integers(len(mixer.questions or (0,)), size=min(PROOF_ROWS, mixer.num_questions))
    return mixer.rows(frames, asked).to(exp.device)
