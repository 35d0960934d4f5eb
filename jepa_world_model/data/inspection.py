"""What a data set looks like in numbers, and what about it would spoil a training."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from jepa_world_model.data.episodes import Episodes, rows_of

SAMPLE = 3000  # transitions looked at, evenly spread; enough for shares to about 1 %
BINS = 24  # of histograms
STILL_SHARE = 0.5  # moves that leave the frame as it was; walls and idle robots stay below
DOMINANT_SHARE = 0.8  # of one action
RARE_SHARE = 0.005  # of the rarest action
LAG_MARGIN = 0.25  # by which rest must go better with stillness one step away, in correlation


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Counts between edges, or of named values."""

    name: str
    counts: list[int]
    edges: list[float] = field(default_factory=list)  # one more than counts; empty for named values
    labels: list[str] = field(default_factory=list)  # as many as counts; empty for ranges


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """The numbers of a data set; shares are of a sample of transitions, spread over all episodes."""

    name: str
    episodes: int
    frames: int
    lengths: Histogram
    shortest: int
    median: int
    longest: int
    frame_shape: list[int]  # C, H, W
    pixel_mean: list[float]  # by channel, of 255
    pixel_std: list[float]
    change: Histogram  # mean absolute change of a pixel from frame to frame, of 255
    still_share: float  # moves (no-ops left out) that leave the frame as it was
    action_kind: str
    action_dim: int
    actions: list[Histogram]  # one for discrete actions and for buttons, one a dimension for continuous ones
    noop_share: float
    states: dict[str, list[float]]  # name -> least, greatest
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return asdict(self)


def inspect(episodes: Episodes, *, window: int = 12) -> Inspection:
    """Count, measure and warn; `window` is the number of frames that training will ask for."""
    lengths = episodes.lengths
    rows = episodes.transitions()
    step = max(len(rows) // SAMPLE, 1)
    rows = rows[step // 2 :: step] if len(rows) else rows
    change, mean, std = _changes(episodes, rows)
    raw = np.asarray(episodes.actions[episodes.transitions()])
    noop = episodes.space.is_noop(np.asarray(episodes.actions[rows]))
    moved = ~noop if (~noop).any() else np.ones(len(rows), bool)
    states = {}
    if episodes.states is not None:
        told = episodes.states[rows_of(episodes.bounds)]
        names = episodes.state_names or tuple(f"s{i}" for i in range(told.shape[1]))
        states = {n: [float(a), float(b)] for n, a, b in zip(names, told.min(0), told.max(0), strict=True)}
    found = Inspection(
        name=episodes.name,
        episodes=len(episodes),
        frames=int(lengths.sum()),
        lengths=_histogram("frames an episode", lengths),
        shortest=int(lengths.min()),
        median=int(np.median(lengths)),
        longest=int(lengths.max()),
        frame_shape=list(episodes.frames.shape[1:]),
        pixel_mean=mean,
        pixel_std=std,
        change=_histogram("change of a pixel", change),
        still_share=float((change[moved] == 0).mean()) if len(change) else 0.0,
        action_kind=episodes.space.kind,
        action_dim=episodes.space.dim,
        actions=_action_histograms(episodes, raw),
        noop_share=float(episodes.space.is_noop(raw).mean()) if len(raw) else 0.0,
        states=states,
        warnings=[],
    )
    found.warnings.extend(
        [*_about_lengths(found, lengths, window), *_about_frames(found), *_about_actions(episodes, raw),
         *_about_copies(episodes), *_about_lag(episodes, rows, change)]
    )  # fmt: skip
    return found


def _changes(episodes: Episodes, rows: np.ndarray) -> tuple[np.ndarray, list[float], list[float]]:
    """Mean change to the next frame of each row [n], and mean and spread of the pixels by channel."""
    channels = episodes.frames.shape[1]
    change, sums, squares, count = [], np.zeros(channels), np.zeros(channels), 0
    for part in np.array_split(rows, max(len(rows) // 256, 1)):
        if not len(part):
            continue
        here, there = (np.asarray(episodes.frames[at]).astype(np.int16) for at in (part, part + 1))
        change.append(np.abs(there - here).mean((1, 2, 3)))
        pixels = here.transpose(1, 0, 2, 3).reshape(channels, -1).astype(np.float64)
        sums, squares, count = sums + pixels.sum(1), squares + (pixels**2).sum(1), count + pixels.shape[1]
    mean = sums / max(count, 1)
    spread = np.sqrt(np.maximum(squares / max(count, 1) - mean**2, 0))
    return np.concatenate(change) if change else np.zeros(0), mean.tolist(), spread.tolist()


def _histogram(name: str, values: np.ndarray) -> Histogram:
    if not len(values):
        return Histogram(name=name, counts=[], edges=[0.0])
    bins = min(BINS, int(np.ptp(values)) + 1) if values.dtype.kind in "iu" else BINS
    counts, edges = np.histogram(values, bins=max(bins, 1))
    return Histogram(name=name, counts=counts.tolist(), edges=edges.tolist())


def _action_histograms(episodes: Episodes, raw: np.ndarray) -> list[Histogram]:
    space = episodes.space
    names = space.names or tuple(str(i) for i in range(space.dim))
    if space.kind == "continuous":
        return [_histogram(name, raw[:, i]) for i, name in enumerate(names)]
    counts = np.bincount(raw, minlength=space.dim) if space.kind == "discrete" else raw.sum(0, dtype=np.int64)
    what = "actions" if space.kind == "discrete" else "pressed"
    return [Histogram(name=what, counts=counts.tolist(), labels=list(names))]


def _about_lengths(found: Inspection, lengths: np.ndarray, window: int) -> list[str]:
    said = []
    if short := int((lengths < window).sum()):
        what = (
            "no window fits into any episode" if short == len(lengths) else "they are never seen in training"
        )
        said.append(
            f"tiny episodes: {short} of {len(lengths)} have less than {window} frames, the window of training; {what}"
        )
    if len(lengths) == 1:
        said.append("one episode only: nothing can be held out; split the recording or record more")
    channels, height, width = found.frame_shape
    if height != width:
        said.append(
            f"frames are {height} x {width} px, not square: train with --data.size and --data.fit, which says how"
        )
    elif max(height, width) > 128:
        said.append(f"frames are {height} x {width} px: --data.size 64 makes training far cheaper")
    if channels not in (1, 2, 3):
        said.append(f"frames have {channels} channels: set --model.in-channels {channels}")
    return said


def _about_frames(found: Inspection) -> list[str]:
    said = []
    if max(found.pixel_std) < 2:
        said.append(
            f"flat frames: pixels spread by {max(found.pixel_std):.1f} of 255; is anything to be seen?"
        )
    if found.still_share > STILL_SHARE:
        said.append(
            f"duplicate frames: {found.still_share:.0%} of moves leave the frame exactly as it was; recorded faster "
            "than the picture changes, or stuck?"
        )
    return said


def _about_actions(episodes: Episodes, raw: np.ndarray) -> list[str]:
    space = episodes.space
    if not len(raw):
        return ["no actions: every episode has a single frame"]
    names = space.names or tuple(str(i) for i in range(space.dim))
    if space.kind == "discrete":
        share = np.bincount(raw, minlength=space.dim) / len(raw)
        if share.max() == 1:
            return [
                f"constant actions: always {names[int(share.argmax())]}; nothing can be learned from them"
            ]
        said = []
        if never := [names[i] for i in np.flatnonzero(share == 0)]:
            said.append(f"actions never taken: {', '.join(never[:8])}{' ...' if len(never) > 8 else ''}")
        top, low = int(share.argmax()), int(np.where(share > 0, share, 2).argmin())
        if share[top] > DOMINANT_SHARE or share[low] < RARE_SHARE:
            said.append(
                f"unbalanced actions: {names[top]} {share[top]:.1%}, {names[low]} {share[low]:.2%}; rare ones are "
                "hardly learned"
            )
        return said
    if space.kind == "multi_binary":
        share = raw.mean(0)
        parts = (("never pressed", share == 0), ("always pressed", share == 1))
        return [
            f"constant actions: {', '.join(names[i] for i in np.flatnonzero(which))} {what}"
            for what, which in parts
            if which.any()
        ]
    fixed = [names[i] for i in np.flatnonzero(np.ptp(raw, 0) == 0)]
    if len(fixed) == space.dim:
        return ["constant actions: all are the same vector; nothing can be learned from them"]
    return [f"constant actions: {', '.join(fixed)} never change"] if fixed else []


def _about_copies(episodes: Episodes) -> list[str]:
    """Episodes of the same actions from the same first frame to the same last one."""
    seen: dict[str, int] = {}
    twins = []
    for number, (start, length) in enumerate(episodes.bounds.tolist()):
        digest = hashlib.sha1(np.ascontiguousarray(episodes.actions[start : start + length - 1]).tobytes())
        for row in (start, start + length - 1):
            digest.update(np.ascontiguousarray(episodes.frames[row]).tobytes())
        first = seen.setdefault(digest.hexdigest(), number)
        if first != number:
            twins.append((first, number))
    if not twins:
        return []
    one, two = twins[0]
    return [
        f"duplicate episodes: {len(twins)} repeat another (episode {two} is episode {one}); held-out data would be "
        "seen in training"
    ]


def _about_lag(episodes: Episodes, rows: np.ndarray, change: np.ndarray) -> list[str]:
    """Whether resting goes with a still frame one step before or after rather than at once."""
    inside = np.zeros(len(episodes.actions), bool)
    inside[episodes.transitions()] = True
    near = (rows > 0) & (rows + 1 < len(inside))
    rows, change = rows[near], change[near]
    whole = inside[rows - 1] & inside[rows + 1] if len(rows) else np.zeros(0, bool)
    rows, change = rows[whole], change[whole]
    fit: Mapping[int, float] = {
        lag: _correlation(~episodes.space.is_noop(np.asarray(episodes.actions[rows + lag])), change)
        for lag in (-1, 0, 1)
    }
    best = max(fit, key=lambda lag: fit[lag])
    if best == 0 or fit[best] < fit[0] + LAG_MARGIN:
        return []
    when = "the step before" if best == -1 else "the step after"
    return [
        f"misaligned actions: frames change with the action of {when} (correlation {fit[best]:.2f}, at once "
        f"{fit[0]:.2f}); action t must take frame t to frame t + 1"
    ]


def _correlation(moves: np.ndarray, change: np.ndarray) -> float:
    if len(change) < 50 or moves.all() or not moves.any() or not change.std():
        return 0.0
    return float(np.corrcoef(moves, change > 0 if (change == 0).mean() > 0.02 else change)[0, 1])


def contact_sheet(episodes: Episodes, *, rows: int = 6, columns: int = 12) -> np.ndarray:
    """Frames of up to `rows` episodes, evenly spread; each row is one from its first frame to its last.

    Shapes: [rows,columns,C,H,W] uint8; a short episode repeats frames.
    """
    chosen = np.linspace(0, len(episodes) - 1, min(rows, len(episodes))).round().astype(int)
    at = [np.linspace(0, n - 1, columns).round().astype(int) + a for a, n in episodes.bounds[chosen]]
    return np.stack([np.asarray(episodes.frames[index]) for index in at])
