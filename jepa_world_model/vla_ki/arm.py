"""The embedded task: a planar arm, coloured targets, a scripted expert, questions about the picture.

Drawn with numpy: the same pixels on every machine, thousands of frames a second, no graphics driver.
World coordinates lie in [-1, 1], x to the right, y up. State and actions are places of the tip: a controller below
turns them into joint angles, as end-effector control does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from jepa_world_model.core.errors import UserError

SIZE = 40  # pixels
BASE = np.array([0.0, -0.85])
LINK = 0.95  # length of each of the two links
MAX_STEP = 0.6  # world units that the tip moves in a step at most
SPEED = 0.3  # world units a step that the expert takes on average; at most 1.9 times as fast, below MAX_STEP
TIP = 0.09  # world units, the radius that the tip is drawn with
EPISODE_STEPS = 12
HOLD_STEPS = 4  # a demonstration shows this many steps at the target: as many as are carried out of a chunk
# Scenes with a single target teach what a target is and where it lies; those with more, which one is meant.
# Without them answers stayed at chance three times as long.
MIN_TARGETS, MAX_TARGETS = 1, 3
LOW, HIGH = (-0.8, -0.35), (0.8, 0.8)  # corners of the places of tips
# Targets lie on a rack of 5 by 3 places. Anywhere in the plane, a model of this size pointed 0.18 away from them (median)
# after 190 CPU-seconds, and its action expert knew nothing yet.
RACK = np.array([(x, y) for y in (0.8, 0.4, 0.0) for x in (-0.8, -0.4, 0.0, 0.4, 0.8)])
RADIUS = 0.18  # world units of a target; a tip that is nearer than this counts as success
COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 200, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "purple": (170, 0, 255),
    "orange": (255, 128, 0),
    "cyan": (0, 255, 255),
    "white": (255, 255, 255),
}
HELD_OUT = ("orange", "cyan")  # never in the robot data; the questions show them
NAMES = tuple(COLOURS)
NUMBERS = ("zero", "one", "two", "three")
_RGB = np.array([*COLOURS.values()], np.float32)
_X = ((np.arange(SIZE) + 0.5) / SIZE * 2 - 1).astype(np.float32)[None, None, :]  # [1,1,W]
_Y = (1 - (np.arange(SIZE) + 0.5) / SIZE * 2).astype(np.float32)[None, :, None]  # [1,H,1]


@dataclass(frozen=True)
class Scenes:
    """N pictures' worth of arms and targets."""

    tip: np.ndarray  # [N,2] world units
    targets: np.ndarray  # [N,K,2] world units
    colours: np.ndarray  # [N,K] index into NAMES, -1 for no target
    goal: np.ndarray  # [N] which of the K targets the instruction names

    @property
    def instructions(self) -> list[str]:
        """What the arm is told to do."""
        named = self.colours[np.arange(len(self.goal)), self.goal]
        return [f"reach the {NAMES[c]} target" for c in named]

    @property
    def goal_position(self) -> np.ndarray:
        """Where the named target is. [N,2]."""
        return self.targets[np.arange(len(self.goal)), self.goal]


def sample_scenes(
    rng: np.random.Generator, n: int, *, goals: Sequence[str] = NAMES, others: Sequence[str] | None = None
) -> Scenes:
    """Random scenes of 1 to 3 targets at different places of the rack, each of its own colour.

    The named target has a colour of `goals`, the rest of `others` (default: the same). The tip starts 0.5
    away.
    """
    others = goals if others is None else others
    for name in (*goals, *others):
        if name not in COLOURS:
            raise UserError(f"there is no colour {name!r} (known: {', '.join(NAMES)})")
    targets = RACK[np.argsort(rng.random((n, len(RACK))), axis=1)[:, :MAX_TARGETS]]  # [N,K,2]
    colours = np.full((n, MAX_TARGETS), -1)
    goal_ids, other_ids = ([NAMES.index(c) for c in group] for group in (goals, others))
    count = rng.integers(MIN_TARGETS, MAX_TARGETS + 1, n)
    for row in range(n):
        named = rng.choice(goal_ids)
        rest = rng.permutation([c for c in other_ids if c != named])[: count[row] - 1]
        colours[row, : 1 + len(rest)] = [named, *rest]
    start = rng.uniform(LOW, HIGH, (n, 2))
    while (near := np.linalg.norm(start - targets[:, 0], axis=-1) < 0.5).any():
        start[near] = rng.uniform(LOW, HIGH, (int(near.sum()), 2))
    order = np.argsort(
        rng.random((n, MAX_TARGETS)), axis=1
    )  # so that the first target is not always the goal
    colours, targets = np.take_along_axis(colours, order, 1), np.take_along_axis(targets, order[..., None], 1)
    return Scenes(start, targets, colours, np.argmin(order, axis=1))


def forward_kinematics(joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Elbow and tip. Shapes: joints [...,2] -> two of [...,2]."""
    unit = lambda angle: np.stack([np.cos(angle), np.sin(angle)], -1)
    elbow = BASE + LINK * unit(joints[..., 0])
    return elbow, elbow + LINK * unit(joints.sum(-1))


def inverse_kinematics(tip: np.ndarray) -> np.ndarray:
    """The joints that put the tip there, elbow always bent the same way. Shapes: [...,2] -> [...,2]."""
    offset = tip - BASE
    reach = np.clip((offset**2).sum(-1) / (2 * LINK**2) - 1, -1, 1)
    second = np.arccos(reach)
    return np.stack([np.arctan2(offset[..., 1], offset[..., 0]) - second / 2, second], -1)


def minimum_jerk(start: np.ndarray, goal: np.ndarray, steps: int = EPISODE_STEPS) -> np.ndarray:
    """Straight paths that start and end at rest, then stay. Shapes: [N,2] twice -> [N,steps+1,2]."""
    s = np.clip(np.arange(steps + 1)[None] / durations(start, goal)[:, None], 0, 1)[..., None]
    return start[:, None] + (goal - start)[:, None] * (10 * s**3 - 15 * s**4 + 6 * s**5)


def durations(start: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Steps that the expert takes from place to place. Shapes: [N,2] twice -> [N] int."""
    return np.clip(
        np.ceil(np.linalg.norm(goal - start, axis=-1) / SPEED), 2, EPISODE_STEPS - HOLD_STEPS
    ).astype(int)


def demonstrate(scenes: Scenes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The expert's states and actions, and how many steps of them a demonstration shows.

    Action t is state t+1: where the tip shall be. As steps of the joints, most values were close to 0 (standard
    deviation 0.24 of the normalised range): a flow loss was noise for 94 %, and arms missed.
    Shapes: states [N,T,2], actions [N,T,2], lengths [N].
    """
    path = minimum_jerk(scenes.tip, scenes.goal_position)
    lengths = durations(scenes.tip, scenes.goal_position) + HOLD_STEPS
    return path[:, :-1].astype(np.float32), path[:, 1:].astype(np.float32), lengths


def render(scenes: Scenes, chunk: int = 256) -> np.ndarray:
    """Pictures [N,3,SIZE,SIZE] uint8."""
    parts = [
        _draw(*(a[i : i + chunk] for a in vars(scenes).values())) for i in range(0, len(scenes.goal), chunk)
    ]
    return np.concatenate(parts)


def _draw(tips: np.ndarray, targets: np.ndarray, colours: np.ndarray, goal: np.ndarray) -> np.ndarray:
    elbow, tip = (p.astype(np.float32) for p in forward_kinematics(inverse_kinematics(tips)))
    # Grey is 0 for the vision tower. On white, the constant part of every patch drowned the targets: after
    # 250 steps
    # of questions alone the gradient of the tower was 0.001 and answers were at chance; on 0 they began to be
    # learnt.
    picture = np.full((len(goal), 3, SIZE, SIZE), 128, np.float32)
    base = np.broadcast_to(BASE.astype(np.float32), elbow.shape)
    dark, black = np.full((1, 3), 70, np.float32), np.zeros((1, 3), np.float32)
    for a, b in ((base, elbow), (elbow, tip)):
        _paint(picture, 0.05 - _to_segment(a, b), dark)
    for k in range(targets.shape[1]):
        radius = np.where(colours[:, k] >= 0, RADIUS, -9).astype(np.float32)
        _paint(
            picture, radius[:, None, None] - _to_point(targets[:, k].astype(np.float32)), _RGB[colours[:, k]]
        )
    _paint(picture, TIP - _to_point(tip), black)
    return np.rint(picture).astype(np.uint8)


def _paint(picture: np.ndarray, inside: np.ndarray, colour: np.ndarray) -> None:
    """Blend a colour [N,3] in where `inside` [N,H,W] (world units, signed) is positive; soft edges."""
    cover = np.clip(inside * (SIZE / 2) + 0.5, 0, 1)
    for channel in range(3):
        plane = picture[:, channel]
        plane += cover * (colour[:, channel, None, None] - plane)


def _to_point(place: np.ndarray) -> np.ndarray:
    """Distance of every pixel to a place. Shapes: [N,2] -> [N,H,W]."""
    x, y = place[:, 0, None, None], place[:, 1, None, None]
    return np.sqrt((_X - x) ** 2 + (_Y - y) ** 2)


def _to_segment(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distance of every pixel to the segment from a to b. Shapes: [N,2] twice -> [N,H,W]."""
    along = (b - a)[..., None, None]
    x, y = _X - a[:, 0, None, None], _Y - a[:, 1, None, None]
    share = np.clip((x * along[:, 0] + y * along[:, 1]) / (along**2).sum(1), 0, 1)
    return np.sqrt((x - share * along[:, 0]) ** 2 + (y - share * along[:, 1]) ** 2)


@dataclass
class ArmSim:
    """N arms at once, for closed-loop evaluation, in Gymnasium's words: reset, step, observation, success."""

    scenes: Scenes

    @classmethod
    def reset(
        cls, rng: np.random.Generator, n: int, *, goals: Sequence[str], others: Sequence[str] = NAMES
    ) -> ArmSim:
        """N fresh scenes."""
        return cls(sample_scenes(rng, n, goals=goals, others=others))

    def observe(self) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Pictures [N,1,3,64,64] uint8, states [N,2] and instructions."""
        return render(self.scenes)[:, None], self.scenes.tip.astype(np.float32), self.scenes.instructions

    def step(self, actions: np.ndarray) -> None:
        """Move every tip towards a place [N,2], as far as the motors and the links can in one step."""
        way = np.clip(actions, [-0.9, -0.5], [0.9, 0.85]) - self.scenes.tip
        far = np.linalg.norm(way, axis=-1, keepdims=True)
        tip = self.scenes.tip + way * np.minimum(1, MAX_STEP / np.maximum(far, 1e-9))
        self.scenes = replace(self.scenes, tip=tip)

    def distances(self) -> np.ndarray:
        """From the tip to each target [N,K]; infinite where there is none."""
        gaps = np.linalg.norm(self.scenes.targets - self.scenes.tip[:, None], axis=-1)
        return np.where(self.scenes.colours >= 0, gaps, np.inf)

    def success(self) -> np.ndarray:
        """Whether the tip is at the named target. [N] bool."""
        return self.distances()[np.arange(len(self.scenes.goal)), self.scenes.goal] < RADIUS

    def followed(self) -> tuple[np.ndarray, np.ndarray]:
        """Whether the tip is at any target, and whether the nearest one is the named one. [N] bool each."""
        gaps = self.distances()
        return gaps.min(1) < RADIUS, gaps.argmin(1) == self.scenes.goal


QUESTION_KINDS = ("leftmost", "where", "presence", "count", "point")
POINTING = 0.7  # share of the questions that ask for places in numbers: what the arm needs most
# Finer than quadrants: what the VLM can tell of a place is what the action expert can read of it.
ROWS, COLUMNS = ("top", "middle", "bottom"), ("far left", "left", "centre", "right", "far right")
PLACES = tuple(f"{row} {column}" for row in ROWS for column in COLUMNS)
CLOSED_SETS = {"leftmost": NAMES, "where": PLACES, "presence": ("yes", "no"), "count": NUMBERS[MIN_TARGETS:]}
# Places in numbers are tokens of their own, as PaliGemma has them: 1024 to a side, of which every 32nd is used.
BINS, LOC_SCALE = 32, 1024
LOCATIONS = tuple(f"<loc{(i * 2 + 1) * LOC_SCALE // BINS // 2:04d}>" for i in range(BINS))


def ask(rng: np.random.Generator, scenes: Scenes) -> tuple[list[str], list[str], list[str]]:
    """A question about each scene, its answer, and its kind."""
    questions, answers, kinds = [], [], []
    for tip, targets, colours in zip(scenes.tip, scenes.targets, scenes.colours, strict=True):
        kind = "point" if rng.random() < POINTING else QUESTION_KINDS[rng.integers(len(QUESTION_KINDS) - 1)]
        there = colours >= 0
        if kind in ("where", "point") and rng.random() < 0.1:
            about, place = "tip", tip
        else:
            pick = rng.integers(there.sum())
            about, place = f"{NAMES[colours[there][pick]]} target", targets[there][pick]
        if kind == "where":
            question, answer = f"where is the {about}?", name_of(*place)
        elif kind == "point" and rng.random() < 0.5:
            question, answer = "point to everything", everything(targets[there], colours[there])
        elif kind == "point":
            question, answer = f"point to the {about}", locations_of(*place)
        else:
            question, answer = _ask(rng, kind, targets[there], colours[there])
        questions.append(question)
        answers.append(answer)
        kinds.append(kind)
    return questions, answers, kinds


def everything(targets: np.ndarray, colours: np.ndarray) -> str:
    """All targets with their places, from left to right: several lessons of pointing in one answer."""
    order = np.lexsort((-targets[:, 1], targets[:, 0]))
    return " ".join(NAMES[colours[i]] + locations_of(*targets[i]) for i in order)


def locations_of(x: float, y: float) -> str:
    """A place as two tokens, down and across, as PaliGemma points."""
    down, across = ((1 - y) / 2, (x + 1) / 2)
    return "".join(LOCATIONS[min(max(int(share * BINS), 0), BINS - 1)] for share in (down, across))


def place_of(text: str) -> np.ndarray | None:
    """The middle of the place that two tokens name, in world units [2]; None for anything else."""
    found = re.fullmatch(r"<loc(\d{4})><loc(\d{4})>", text)
    if found is None:
        return None
    down, across = (int(part) / LOC_SCALE for part in found.groups())
    return np.array([2 * across - 1, 1 - 2 * down])


def near(said: str, answer: str) -> bool:
    """Whether a pointing answer lies within a target's radius of the right place."""
    place = place_of(said)
    return place is not None and float(np.linalg.norm(place - place_of(answer))) < RADIUS


def name_of(x: float, y: float) -> str:
    """A place in words: three rows of equal height, five columns of equal width."""
    (left, bottom), (right, top) = LOW, HIGH
    row = ROWS[min(int((top - y) / (top - bottom) * 3), 2)]
    return f"{row} {COLUMNS[min(int((x - left) / (right - left) * 5), 4)]}"


def _ask(rng: np.random.Generator, kind: str, targets: np.ndarray, colours: np.ndarray) -> tuple[str, str]:
    if kind == "leftmost":
        first = np.lexsort((-targets[:, 1], targets[:, 0]))[0]  # of two in a column the upper one
        return "what colour is leftmost?", NAMES[colours[first]]
    if kind == "presence":
        absent = [c for c in range(len(NAMES)) if c not in colours]
        here = bool(rng.integers(2))
        colour = rng.choice(colours if here else absent)
        return f"is there a {NAMES[colour]} target?", "yes" if here else "no"
    return "how many targets are there?", NUMBERS[len(colours)]
