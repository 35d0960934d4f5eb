"""The one definition of what enters a model: an action space, and a batch of windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

KINDS = ("discrete", "multi_binary", "continuous")
MAX_BITS = 62  # the number that the bits spell has to fit into int64


@dataclass(frozen=True, kw_only=True)
class ActionSpace:
    """What the actions of a data set mean, and how they are encoded for a model."""

    kind: str  # "discrete" | "multi_binary" | "continuous"
    dim: int  # width A of an encoded action: number of actions, of bits, of continuous dimensions
    names: tuple[str, ...] = ()  # one a discrete action, bit or dimension; empty: unnamed
    noop: int | None = None  # index of the discrete no-op; None where no action rests
    low: tuple[float, ...] = ()  # continuous only: the raw values that are encoded as -1
    high: tuple[float, ...] = ()  # continuous only: the raw values that are encoded as +1
    noop_threshold: float = 1e-6  # continuous only: raw actions of a smaller norm count as no-op

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"action kind is {self.kind!r}; use one of {', '.join(KINDS)}")
        if self.dim < 1:
            raise ValueError(f"action dim is {self.dim}; an action space needs at least 1")
        if self.names and len(self.names) != self.dim:
            raise ValueError(
                f"{len(self.names)} action names given for {self.dim} actions; give one each or none"
            )
        if self.kind == "multi_binary" and self.dim > MAX_BITS:
            raise ValueError(f"multi_binary actions have {self.dim} bits; at most {MAX_BITS} are supported")
        if self.noop is not None and (self.kind != "discrete" or not 0 <= self.noop < self.dim):
            raise ValueError(
                f"noop is {self.noop}; it names a discrete action, so it lies in 0..{self.dim - 1}"
            )
        if self.kind == "continuous":
            self._check_range()
        elif self.low or self.high:
            raise ValueError(
                f"low and high belong to continuous actions; leave them out for {self.kind} ones"
            )

    def _check_range(self) -> None:
        if len(self.low) != self.dim or len(self.high) != self.dim:
            raise ValueError(
                f"continuous actions of {self.dim} dimensions need as many low and high values; "
                f"got {len(self.low)} and {len(self.high)}"
            )
        for i, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
            if not (np.isfinite(low) and np.isfinite(high) and low < high):
                raise ValueError(
                    f"action dimension {i} ranges from {low} to {high}; give finite numbers, low < high"
                )

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """Shape of one raw action as it is stored: () for discrete, (dim,) otherwise."""
        return () if self.kind == "discrete" else (self.dim,)

    @property
    def raw_dtype(self) -> np.dtype:
        """Type in which raw actions are stored."""
        return np.dtype({"discrete": np.int64, "multi_binary": np.uint8, "continuous": np.float32}[self.kind])

    def check(self, raw: np.ndarray, where: str = "the actions") -> np.ndarray:
        """The raw actions [...] in the stored type; ValueError when one lies outside this space."""
        raw = np.asarray(raw)
        tail = raw.shape[raw.ndim - len(self.raw_shape) :]
        if raw.ndim < len(self.raw_shape) or tail != self.raw_shape:
            raise ValueError(f"{where} have shape {raw.shape}; {self.kind} actions end in {self.raw_shape}")
        if raw.dtype.kind not in "biuf":
            raise ValueError(f"{where} are of type {raw.dtype}; {self.kind} actions are numbers")
        if self.kind == "continuous":
            if not np.isfinite(raw).all():
                raise ValueError(
                    f"{where} hold values that are not finite; continuous actions need finite numbers"
                )
            return raw.astype(np.float32)
        top = self.dim - 1 if self.kind == "discrete" else 1
        if raw.size and not ((raw >= 0) & (raw <= top) & (raw == np.floor(raw))).all():
            bad = raw[~((raw >= 0) & (raw <= top) & (raw == np.floor(raw)))][0]
            raise ValueError(
                f"{where} hold the value {bad}; {self.kind} actions are whole numbers from 0 to {top}"
            )
        return raw.astype(self.raw_dtype)

    def encode(self, raw: np.ndarray) -> np.ndarray:
        """What a model sees: one-hot, bits, or values mapped to [-1, 1].

        Shapes: raw [...] (discrete) or [...,A] -> [...,A] float32.
        """
        raw = np.asarray(raw)
        if self.kind == "discrete":
            return np.eye(self.dim, dtype=np.float32)[raw]
        if self.kind == "multi_binary":
            return raw.astype(np.float32)
        low, high = np.asarray(self.low, np.float32), np.asarray(self.high, np.float32)
        return ((raw - low) / (high - low) * 2 - 1).astype(np.float32)

    def decode(self, encoded: np.ndarray) -> np.ndarray:
        """The raw action nearest to an encoded one: the inverse of `encode`, for planners."""
        encoded = np.asarray(encoded)
        if self.kind == "discrete":
            return encoded.argmax(-1).astype(np.int64)
        if self.kind == "multi_binary":
            return (encoded > 0.5).astype(np.uint8)
        low, high = np.asarray(self.low, np.float32), np.asarray(self.high, np.float32)
        return (low + (np.clip(encoded, -1, 1) + 1) / 2 * (high - low)).astype(np.float32)

    def ids(self, raw: np.ndarray) -> np.ndarray:
        """One whole number an action: the index, the number that the bits spell (bit 0 least), or -1."""
        raw = np.asarray(raw)
        if self.kind == "discrete":
            return raw.astype(np.int64)
        if self.kind == "multi_binary":
            return raw.astype(np.int64) @ (1 << np.arange(self.dim, dtype=np.int64))
        return np.full(raw.shape[:-1], -1, np.int64)

    def is_noop(self, raw: np.ndarray) -> np.ndarray:
        """True where the action rests: the no-op index, no bit set, or a vector below the threshold."""
        raw = np.asarray(raw)
        if self.kind == "discrete":
            return raw == self.noop if self.noop is not None else np.zeros(raw.shape, bool)
        if self.kind == "multi_binary":
            return np.asarray(~raw.astype(bool).any(-1))
        return np.linalg.norm(raw, axis=-1) < self.noop_threshold

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that `from_json` reads."""
        return {f.name: list(v) if isinstance(v := getattr(self, f.name), tuple) else v for f in fields(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ActionSpace:
        """The space written by `to_json`; ValueError when a field is missing, unknown or of a wrong type."""
        if not isinstance(data, Mapping):
            raise ValueError(f"an action space is a table of fields, got {type(data).__name__}")
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(map(str, data)) - known):
            raise ValueError(f"action space has unknown fields {unknown}; known: {sorted(known)}")
        if missing := sorted({"kind", "dim"} - set(data)):
            raise ValueError(f"action space lacks {missing}")
        try:
            noop = data.get("noop")
            return cls(
                kind=str(data["kind"]),
                dim=int(data["dim"]),
                names=tuple(str(n) for n in data.get("names", ())),
                noop=None if noop is None else int(noop),
                low=tuple(float(v) for v in data.get("low", ())),
                high=tuple(float(v) for v in data.get("high", ())),
                noop_threshold=float(data.get("noop_threshold", 1e-6)),
            )
        except (TypeError, OverflowError) as error:
            raise ValueError(f"action space has a field of a wrong type: {error}") from None


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B windows of T frames and the T-1 actions between them."""

    frames: Tensor  # [B,T,C,H,W] uint8, as stored; becomes float in [0, 1] on the device
    actions: Tensor  # [B,T-1,A] float32, encoded; a[:, t] takes frame t to t+1
    action_id: Tensor  # [B,T-1] int64; -1 for continuous actions
    noop: Tensor  # [B,T-1] bool
    episode: Tensor  # [B] int64, index of the episode
    start: Tensor  # [B] int64, first frame of the window inside its episode
    state: Tensor | None  # [B,T,S] float32, true state of frame t; None where the environment does not tell
    space: ActionSpace

    @property
    def B(self) -> int:
        """Number of windows."""
        return self.frames.shape[0]

    @property
    def T(self) -> int:
        """Frames in a window."""
        return self.frames.shape[1]

    @property
    def moved(self) -> Tensor | None:
        """[B,T-1] bool, where the true state changed: not in a no-op or blocked move. None without states."""
        if self.state is None:
            return None
        return (self.state[:, 1:] != self.state[:, :-1]).any(-1)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device; pinned memory crosses without waiting."""
        return self._mapped(lambda x: x.to(device, non_blocking=x.is_pinned()))

    def pin(self) -> Batch:
        """The same batch in page-locked memory, from which a GPU copies without waiting."""
        return self._mapped(lambda x: x.pin_memory())

    def rows(self, n: int) -> Batch:
        """The first n windows."""
        return self._mapped(lambda x: x[:n])

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> Batch:
        changed: dict[str, Any] = {name: change(tensor) for name, tensor in self.tensors().items()}
        return replace(self, **changed)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by field name; `state` only where there is one."""
        return {f.name: v for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)}

    def validate(self) -> Batch:
        """This batch, or a ValueError with one sentence on the first thing that does not fit."""
        if self.frames.ndim != 5:
            raise ValueError(f"frames have shape {tuple(self.frames.shape)}; a batch needs [B,T,C,H,W]")
        if self.frames.dtype != torch.uint8:
            raise ValueError(f"frames are {self.frames.dtype}; store them as torch.uint8, 0 to 255")
        B, T = self.frames.shape[:2]
        if B < 1 or T < 2:
            raise ValueError(f"batch has {B} windows of {T} frames; it needs at least 1 window of 2 frames")
        if self.actions.ndim != 3 or self.actions.shape[:2] != (B, T - 1):
            raise ValueError(
                f"actions have shape {tuple(self.actions.shape)}; {B} windows of {T} frames need "
                f"[{B}, {T - 1}, {self.space.dim}]: one action between every two frames"
            )
        if self.actions.shape[2] != self.space.dim:
            raise ValueError(
                f"actions are {self.actions.shape[2]} wide; this action space encodes to {self.space.dim}"
            )
        expected = {
            "actions": (torch.float32, (B, T - 1, self.space.dim)),
            "action_id": (torch.int64, (B, T - 1)),
            "noop": (torch.bool, (B, T - 1)),
            "episode": (torch.int64, (B,)),
            "start": (torch.int64, (B,)),
        }
        for name, (dtype, shape) in expected.items():
            value = getattr(self, name)
            if value.dtype != dtype or tuple(value.shape) != shape:
                raise ValueError(
                    f"{name} is {value.dtype} {list(value.shape)}; a batch of {B} windows of {T} frames "
                    f"needs {dtype} {list(shape)}"
                )
        if self.state is not None and (self.state.ndim != 3 or self.state.shape[:2] != (B, T)):
            raise ValueError(
                f"state has shape {list(self.state.shape)}; it needs [{B}, {T}, S]: one state a frame"
            )
        if self.state is not None and self.state.dtype != torch.float32:
            raise ValueError(f"state is {self.state.dtype}; store it as torch.float32")
        return self
