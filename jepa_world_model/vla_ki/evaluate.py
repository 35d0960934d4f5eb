"""What a trained model can do: losses on held-out rows, answers to questions, arms that reach or miss."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from jepa_world_model.core.checkpoint import latest_checkpoint, load_checkpoint, read_average
from jepa_world_model.core.config import load_config
from jepa_world_model.core.errors import UserError
from jepa_world_model.core.rng import Streams
from jepa_world_model.core.task import Task
from jepa_world_model.vla_ki import arm
from jepa_world_model.vla_ki.batch import KIBatch, collate
from jepa_world_model.vla_ki.build import Data, Experiment, Tools, build_task, open_data
from jepa_world_model.vla_ki.config import KITrainConfig
from jepa_world_model.vla_ki.policy import generate, sample_actions
from jepa_world_model.vla_ki.samples import Mixer, Questions, one_camera
from jepa_world_model.vla_ki.table import GRAPH, LOSSES

_SEEN = tuple(c for c in arm.NAMES if c not in arm.HELD_OUT)
COLOURS = {"seen": (_SEEN, _SEEN), "held_out": (arm.HELD_OUT, arm.NAMES)}  # of the goal, of the rest
REPLAN = 4  # actions of a chunk that are carried out before the next one is planned


@dataclass(frozen=True)
class Judge:
    """Everything an evaluation needs; the same rows and scenes every time it is called."""

    cfg: KITrainConfig
    task: Task
    tools: Tools
    data: Data
    streams: Streams = field(default_factory=lambda: Streams(1234))

    @property
    def embedded(self) -> bool:
        """Whether there is a simulator for the task."""
        return not self.cfg.data.folder

    def measure(self) -> dict[str, float]:
        """Every number there is, under `eval/`. Call it in eval mode and without gradient."""
        batch = self.held_out()
        found = self.losses(batch) | {"eval/chunk_mse": self.chunk_mse(batch)}
        if self.data.val_questions is not None:
            found |= self.answers(self.data.val_questions)
        if self.embedded and self.cfg.eval_episodes and self.cfg.flow_weight > 0:
            found |= self.closed_loop()
        return found

    def held_out(self) -> KIBatch:
        """Held-out robot rows, with as many held-out questions where there are any."""
        rng, questions = self.streams.numpy("rows"), self.data.val_questions
        frames = rng.permutation(self.data.val)[: self.cfg.eval_rows]
        asked = np.arange(min(len(questions), self.cfg.eval_rows) if questions else 0)
        mixer = Mixer(
            cfg=self.cfg.model,
            builder=self.tools.builder(self.cfg),
            data=self.data.robot,
            frames=self.data.val,
            norm=self.tools.norm,
            streams=self.streams,
            name="eval",
            questions=questions,
            vqa_share=0.0,
        )
        return mixer.rows(frames, asked).to(self.task.device)

    def losses(self, batch: KIBatch) -> dict[str, float]:
        """Both losses, whatever barrier and weights the training had, and the accuracy of FAST tokens."""
        weights = {"fast_ce": 1.0, "flow": 1.0, "text_ce": float(not bool(batch.robot.all()))}
        parts = {name: getattr(self.task, name) for name in ("gates", "settings", "autocast")}
        judge = Task(self.task.model, GRAPH, LOSSES, weights=weights, streams=self.streams, **parts)
        found = {f"eval/{name}": float(value) for name, value in judge.terms(batch).items()}
        hidden = judge.states(batch, ("prefix",))["prefix"].hidden
        text = hidden[:, self.cfg.model.image_tokens :].flatten(0, 1)
        robot = batch.robot[batch.supervised // batch.ids.shape[1]]
        targets = batch.supervised[robot]
        guess = self.task.model.vlm.logits(text[targets - 1]).argmax(-1)
        return found | {"eval/fast_accuracy": float((guess == batch.ids.flatten()[targets]).float().mean())}

    def chunk_mse(self, batch: KIBatch) -> float:
        """Sampled against true chunks, in normalised units, over the values that exist."""
        generator = self.streams.torch("chunk", device=self.task.device)
        rows = batch.rows(int(batch.robot.sum()))
        made = sample_actions(self.task.model, self.cfg.model, rows, generator, steps=self.cfg.sampler_steps)
        return float((made - rows.actions).square()[rows.action_mask].mean())

    def act(
        self, images: np.ndarray, states: np.ndarray, texts: Sequence[str], generator: torch.Generator
    ) -> np.ndarray:
        """Chunks of actions in the units of the data [N,T,D], for pictures, states and instructions."""
        return act(self.task, self.cfg, self.tools, images, states, texts, generator)

    def closed_loop(self) -> dict[str, float]:
        """Success of simulated arms with seen and held-out colours, and how often they go where told."""
        found = {}
        for name in COLOURS:
            sim, _ = self.episodes(name, self.cfg.eval_episodes)
            arrived, named = sim.followed()
            found[f"eval/success_{name}"] = float(sim.success().mean())
            found[f"eval/language_following_{name}"] = float((arrived & named).sum() / max(arrived.sum(), 1))
        return found

    def episodes(self, name: str, count: int, *, watch: bool = False) -> tuple[arm.ArmSim, list[np.ndarray]]:
        """Arms after an episode with goals of "seen" or "held_out" colours, and every picture of it if watched.

        Pictures are [N,3,64,64] uint8, one a step.
        """
        goals, others = COLOURS[name]
        sim = arm.ArmSim.reset(self.streams.numpy(f"sim-{name}"), count, goals=goals, others=others)
        generator = self.streams.torch(f"sim-{name}", device=self.task.device)
        pictures = []
        for _ in range(arm.EPISODE_STEPS // REPLAN):
            chunks = self.act(*sim.observe(), generator)
            for t in range(min(REPLAN, chunks.shape[1])):
                if watch:
                    pictures.append(arm.render(sim.scenes))
                sim.step(chunks[:, t])
        return sim, [*pictures, arm.render(sim.scenes)] if watch else []

    def answers(self, questions: Questions, chunk: int = 256) -> dict[str, float]:
        """Accuracy in free answers, among the answers that a question of its kind can have, and in pointing."""
        n = min(len(questions), self.cfg.eval_rows)
        kinds = np.array(questions.kinds[:n] or [""] * n)
        batch = self._asked(questions, np.arange(n), None)
        alone = self.task.world.size == 1
        made = generate(self.task.model, self.cfg.model, batch, length=8, stop_early=alone)
        said = [self.tools.text.decode(ids) for ids in made]
        right = np.array([said[i] == questions.answers[i] for i in range(n)])
        found = {}
        points = [i for i in range(n) if arm.place_of(questions.answers[i]) is not None]
        if points:
            found["eval/pointing"] = float(np.mean([arm.near(said[i], questions.answers[i]) for i in points]))
        if (kinds != "point").any():
            found["eval/vqa_open"] = float(right[kinds != "point"].mean())
        closed = [i for i in range(n) if kinds[i] in arm.CLOSED_SETS]
        if not closed:
            return found
        rows, answers = [], []
        for i in closed:
            choices = arm.CLOSED_SETS[kinds[i]]
            rows += [i] * len(choices)
            answers += choices
        scores = torch.cat([
            self._score(self._asked(questions, np.array(rows[at : at + chunk]), answers[at : at + chunk]))
            for at in range(0, len(rows), chunk)
        ]).cpu().numpy()  # fmt: skip
        index = np.array(rows)
        best = {i: answers[np.flatnonzero(index == i)[scores[index == i].argmax()]] for i in closed}
        found["eval/vqa_closed"] = float(np.mean([best[i] == questions.answers[i] for i in closed]))
        return found

    def _asked(self, questions: Questions, index: np.ndarray, answers: Sequence[str] | None) -> KIBatch:
        cfg, dim = self.cfg.model, self.data.robot.actions.shape[1]
        tokens = self.tools.builder(self.cfg).question_rows([questions.questions[i] for i in index], answers)
        images, mask = one_camera(questions.images[index], cfg.cameras)
        chunk, steps = (
            np.zeros((len(index), cfg.horizon, dim), np.float32),
            np.zeros((len(index), cfg.horizon), bool),
        )
        batch = collate(cfg, tokens, images, mask, chunk, steps, np.zeros(len(index), bool))
        return batch.to(self.task.device)

    def _score(self, batch: KIBatch) -> Tensor:
        """The log probability of each row's answer. [B]."""
        ce = self.task.states(batch, ("token_ce",))["token_ce"]
        row = batch.supervised // batch.ids.shape[1]
        return -torch.zeros(batch.B, device=ce.device).index_add(0, row, ce)


def judge_of(exp: Experiment) -> Judge:
    """The judge of a training that is under way."""
    return Judge(exp.cfg, exp.task, exp.tools, exp.data)


def act(
    task: Task,
    cfg: KITrainConfig,
    tools: Tools,
    images: np.ndarray,
    states: np.ndarray,
    texts: Sequence[str],
    generator: torch.Generator,
) -> np.ndarray:
    """Chunks of actions in the units of the data [N,T,D].

    Shapes: images [N,C,3,H,W] uint8 at the model's size, states [N,S] in the units of the data, N instructions.
    """
    n, dim = len(texts), len(tools.norm.action.low)
    tokens = tools.builder(cfg).robot_rows(texts, tools.norm.state.normalise(states))
    horizon = cfg.model.horizon
    blank, whole = np.zeros((n, horizon, dim), np.float32), np.ones((n, horizon), bool)
    seen = np.ones(images.shape[:2], bool)
    batch = collate(cfg.model, tokens, images, seen, blank, whole, np.ones(n, bool)).to(task.device)
    made = sample_actions(task.model, cfg.model, batch, generator, steps=cfg.sampler_steps)
    return tools.norm.action.restore(made[..., :dim].float().cpu().numpy())


def load_model(folder: str | Path, **changes: object) -> tuple[KITrainConfig, Task, Tools, int]:
    """Configuration, model and tokenizers of a run's newest checkpoint, and the steps it had done; no data are read.

    Errors: UserError for a folder that is no run, or has no checkpoint.
    """
    folder = Path(folder)
    if not (folder / "config.toml").is_file():
        raise UserError(f"{folder} is no run: it holds no config.toml; give a folder below runs/")
    cfg = load_config(KITrainConfig, ["--config", str(folder / "config.toml")], prog="jepa-wm ki-eval")
    cfg = replace(cfg, init="", **changes)
    newest = latest_checkpoint(folder / "checkpoints")
    if newest is None:
        raise UserError(f"the run {folder} has no checkpoint yet")
    task = build_task(cfg, torch.device("cpu" if not torch.cuda.is_available() else "cuda"))
    extra = load_checkpoint(newest, task.model)
    if cfg.ema:
        averaged = read_average(newest, needed=True)
        task.model.load_state_dict(averaged, strict=False)  # buffers are not averaged
    return cfg, task, Tools.load(folder), int(extra["step"])


def load_judge(folder: str | Path, **changes: object) -> tuple[Judge, int]:
    """The judge of a run's newest checkpoint, and the steps it had done. Errors: there is none."""
    cfg, task, tools, step = load_model(folder, **changes)
    return Judge(cfg, task, tools, open_data(cfg)), step


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """`jepa-wm ki-eval`: the newest checkpoint of a run, on more rows and episodes."""

    run: str = ""  # the run's folder; needed
    eval_rows: int = 256  # held-out robot rows and questions
    eval_episodes: int = 100  # closed-loop episodes for seen and for held-out colours


def eval_main(argv: Sequence[str]) -> int:
    """`jepa-wm ki-eval --run runs/NAME`: measure, print, and write `evaluation.json` into the run."""
    cfg = load_config(EvalConfig, argv, prog="jepa-wm ki-eval", description="Evaluate a run of ki-train.")
    if not cfg.run:
        raise UserError("which run? give its folder: --run runs/NAME")
    judge, step = load_judge(cfg.run, eval_rows=cfg.eval_rows, eval_episodes=cfg.eval_episodes)
    judge.task.model.eval()
    with torch.no_grad():
        found = judge.measure()
    print(f"{cfg.run} after {step} steps, {cfg.eval_rows} rows, {cfg.eval_episodes} episodes")
    for name, value in found.items():
        print(f"  {name.removeprefix('eval/'):<26} {value:.4f}")
    (Path(cfg.run) / "evaluation.json").write_text(json.dumps({"step": step, **found}, indent=2) + "\n")
    return 0
