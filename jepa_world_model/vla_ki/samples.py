"""From demonstrations and questions to batches: quantiles, action chunks, a mix that depends on the step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.rng import Streams
from jepa_world_model.vla_ki.batch import KIBatch, collate
from jepa_world_model.vla_ki.images import AugmentConfig, augment
from jepa_world_model.vla_ki.lerobot import RobotData
from jepa_world_model.vla_ki.model import KIConfig
from jepa_world_model.vla_ki.prompt import PromptBuilder, Tokens


@dataclass(frozen=True)
class Quantiles:
    """The range between the 1st and the 99th percentile of each dimension, mapped to [-1, 1]."""

    low: np.ndarray  # [D]
    high: np.ndarray  # [D]

    @classmethod
    def fit(cls, values: np.ndarray) -> Quantiles:
        """Of the training split [N,D]. Errors: UserError for values that are not finite."""
        if not np.isfinite(values).all():
            bad = np.flatnonzero(~np.isfinite(values).all(0)).tolist()
            raise UserError(
                f"dimensions {bad} of states or actions hold values that are not finite; mend the data set"
            )
        low, high = np.quantile(values.astype(np.float64), (0.01, 0.99), axis=0)
        return cls(low.astype(np.float32), high.astype(np.float32))

    @property
    def moving(self) -> np.ndarray:
        """Dimensions that change; the others are 0 when normalised, and FAST leaves them out. [D] bool."""
        return self.high - self.low > 1e-6

    def normalise(self, values: np.ndarray) -> np.ndarray:
        """Shapes: [...,D] -> [...,D] float32; values beyond the quantiles go beyond [-1, 1]."""
        span = np.where(self.moving, self.high - self.low, 1.0)
        return np.where(self.moving, (values - self.low) / span * 2 - 1, 0.0).astype(np.float32)

    def restore(self, values: np.ndarray) -> np.ndarray:
        """The inverse of `normalise`; dimensions that never move get their one value."""
        moved = (values + 1) / 2 * (self.high - self.low) + self.low
        return np.where(self.moving, moved, self.low).astype(np.float32)

    def to_json(self) -> dict:
        """As plain values."""
        return {"q01": self.low.tolist(), "q99": self.high.tolist()}

    @classmethod
    def from_json(cls, state: dict) -> Quantiles:
        """What `to_json` gave."""
        return cls(np.array(state["q01"], np.float32), np.array(state["q99"], np.float32))


@dataclass(frozen=True)
class Questions:
    """Pictures with a question and an answer each."""

    images: np.ndarray  # [N,3,H,W] uint8
    questions: Sequence[str]
    answers: Sequence[str]
    kinds: Sequence[str] = ()  # what a question is about, for the accuracy of each kind

    def __len__(self) -> int:
        return len(self.questions)


def action_chunks(data: RobotData, frames: np.ndarray, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """The actions that follow each frame, and which of them lie inside the episode.

    Shapes: frames [B] -> [B,T,D] float32, [B,T] bool. Past the end the last action is repeated and masked.
    """
    ends = data.bounds.sum(1)
    last = ends[np.searchsorted(ends, frames, side="right")] - 1  # [B]
    index = frames[:, None] + np.arange(horizon)  # [B,T]
    return data.actions[np.minimum(index, last[:, None])], index <= last[:, None]


def frames_of(data: RobotData, episodes: np.ndarray) -> np.ndarray:
    """The frame numbers of the given episodes."""
    return np.concatenate([np.arange(start, start + length) for start, length in data.bounds[episodes]])


def split_episodes(
    data: RobotData, val_share: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation episodes, at least one of each. Errors: UserError for a single episode."""
    count = len(data.bounds)
    if count < 2:
        raise UserError(f"{data.name} has {count} episode; training and validation need at least 2")
    held = int(np.clip(round(val_share * count), 1, count - 1))
    order = rng.permutation(count)
    return np.sort(order[held:]), np.sort(order[:held])


@dataclass(frozen=True)
class Normalisers:
    """The quantiles of states and actions, from the training split."""

    state: Quantiles
    action: Quantiles

    @classmethod
    def fit(cls, data: RobotData, frames: np.ndarray) -> Normalisers:
        """Of the given frames. Errors: UserError for an action dimension that its quantiles cannot scale."""
        action = Quantiles.fit(data.actions[frames])
        span = np.ptp(data.actions[frames], axis=0)
        rare = np.flatnonzero(~action.moving & (span > 1e-6))
        if len(rare):
            raise UserError(
                f"action dimensions {rare.tolist()} are degenerate: 98 % of their values are the same, yet they span "
                f"{', '.join(f'{v:.3g}' for v in span[rare])}; quantiles cannot scale that, so leave them out of the data "
                "set, or add demonstrations in which they move"
            )
        return cls(Quantiles.fit(data.states[frames]), action)

    def to_json(self) -> dict:
        """As plain values."""
        return {"state": self.state.to_json(), "action": self.action.to_json()}

    @classmethod
    def from_json(cls, state: dict) -> Normalisers:
        """What `to_json` gave."""
        return cls(Quantiles.from_json(state["state"]), Quantiles.from_json(state["action"]))


@dataclass(frozen=True, kw_only=True)
class Mixer:
    """Batches of robot rows and questions; batch(step) depends on (seed, name, step) alone.

    A share of 0 or no questions gives robot rows only; the number of rows of each kind is the same in every
    batch from step `questions_first` on. With `world` processes `batch_size` is the global size, and process `rank`
    gets every world-th row of the global batch from row `rank` on: of each kind about as many as the others.
    """

    cfg: KIConfig
    builder: PromptBuilder
    data: RobotData
    frames: np.ndarray  # frame numbers of the split
    norm: Normalisers
    streams: Streams
    name: str
    batch_size: int = 32
    questions: Questions | None = None
    vqa_share: float = 0.25
    questions_first: int = 0  # steps of questions alone, before actions come in
    augment: AugmentConfig | None = None
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.batch_size % self.world:
            raise UserError(
                f"batch_size is {self.batch_size}; it must be a multiple of {self.world} processes"
            )
        if not 0 <= self.vqa_share <= 1 or self.batch_size < 1:
            raise UserError(f"vqa_share must lie in [0, 1] and batch_size be at least 1, got {self}")
        if self.num_questions and not len(self.questions or ()):
            raise UserError(f"vqa_share is {self.vqa_share}, but there are no questions; set it to 0")

    @property
    def num_questions(self) -> int:
        """Question rows in every batch."""
        return round(self.vqa_share * self.batch_size)

    def num_robots(self, step: int) -> int:
        """Robot rows in the batch of a step."""
        alone = step < self.questions_first and self.num_questions > 0
        return 0 if alone else self.batch_size - self.num_questions

    def batch(self, step: int) -> KIBatch:
        """This process's rows of the mixed batch of a step: robot rows first."""
        rng, robots = self.streams.numpy(self.name, step), self.num_robots(step)
        frames = self.frames[rng.integers(len(self.frames), size=robots)]
        asked = rng.integers(len(self.questions or (0,)), size=self.batch_size - robots)
        return self.rows(
            frames[self.rank :: self.world], asked[(self.rank - robots) % self.world :: self.world], rng
        )

    def rows(self, frames: np.ndarray, asked: np.ndarray, rng: np.random.Generator | None = None) -> KIBatch:
        """Given frames and questions as a batch; augmented only with a generator."""
        parts, images, masks = [], [], []
        chunk = np.zeros((0, self.cfg.horizon, self.data.actions.shape[1]), np.float32)
        steps = np.zeros((0, self.cfg.horizon), bool)
        if len(frames):
            chunk, steps = action_chunks(self.data, frames, self.cfg.horizon)
            chunk = self.norm.action.normalise(chunk)
            states = self.norm.state.normalise(self.data.states[frames])
            texts = [self.data.tasks[i] for i in self.data.task[frames]]
            parts.append(self.builder.robot_rows(texts, states, chunk[..., self.norm.action.moving]))
            images.append(np.stack([camera[frames] for camera in self.data.cameras.values()], 1))
            masks.append(np.ones((len(frames), self.cfg.cameras), bool))
        if len(asked):
            chosen = self.questions
            text = [(chosen.questions[i], chosen.answers[i]) for i in asked]
            parts.append(self.builder.question_rows([q for q, _ in text], [a for _, a in text]))
            picture, seen = one_camera(chosen.images[asked], self.cfg.cameras)
            images.append(picture)
            masks.append(seen)
        pictures = np.concatenate(images)
        if self.augment is not None and rng is not None:
            pictures = augment(pictures, self.augment, rng, rank=self.rank, world=self.world)
        robot = np.arange(len(frames) + len(asked)) < len(frames)
        rest = len(asked)
        return collate(
            self.cfg,
            Tokens(*(np.concatenate([getattr(p, name) for p in parts]) for name in vars(parts[0]))),
            pictures * np.concatenate(masks)[..., None, None, None],
            np.concatenate(masks),
            np.concatenate([chunk, np.zeros((rest, *chunk.shape[1:]), np.float32)]),
            np.concatenate([steps, np.zeros((rest, self.cfg.horizon), bool)]),
            robot,
        )


def one_camera(images: np.ndarray, cameras: int) -> tuple[np.ndarray, np.ndarray]:
    """Single pictures as the first of several cameras. Shapes: [N,3,H,W] -> [N,C,3,H,W], mask [N,C]."""
    out = np.zeros((len(images), cameras, *images.shape[1:]), np.uint8)
    out[:, 0] = images
    mask = np.zeros((len(images), cameras), bool)
    mask[:, 0] = True
    return out, mask
