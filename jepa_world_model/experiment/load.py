"""A trained world model, read back from its run folder and ready for use."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jepa_world_model.core.checkpoint import latest_checkpoint, load_checkpoint, read_average
from jepa_world_model.core.config import from_toml
from jepa_world_model.core.errors import UserError
from jepa_world_model.core.rng import Streams, isolated
from jepa_world_model.core.task import Task
from jepa_world_model.data.batch import ActionSpace, Batch
from jepa_world_model.experiment.build import build_task, resolve_device
from jepa_world_model.experiment.config import TrainConfig
from jepa_world_model.experiment.data import open_dataset
from jepa_world_model.models.pretrained import WEIGHTS, fetch, fill, read_pretrained
from jepa_world_model.models.world_model import WorldModel
from jepa_world_model.planning.dynamics import WorldModelDynamics
from jepa_world_model.planning.planners import CategoricalCemConfig, CemConfig, ShootingConfig, search
from jepa_world_model.planning.problem import Problem
from jepa_world_model.planning.rollout import Objective, make_score

HUB = "hf://"
RELEASED = ("*.json", "*.toml", "*.safetensors", "README.md")  # of a release, without its programs
ACTIONS = "actions.json"  # the action space, in the run folder: a model means nothing without it


@dataclass(frozen=True)
class Imagined:
    """What the model expects to follow; entry k-1 belongs to k steps after the last frame seen. No B for one window."""

    z: Tensor  # [B,K,Dz]
    h: Tensor  # [B,K,Dh]
    p: Tensor | None  # [B,K,Dp], counted from the first frame seen; None where the run has no pose
    frames: np.ndarray | None  # [B,K,C,H,W] uint8; None where the run has no decoder


@dataclass(frozen=True)
class Planned:
    """Actions towards a goal, as the environment takes them, and what the model expects them to cost. No B for one."""

    actions: np.ndarray  # [B,K,...] raw
    cost: np.ndarray  # [B] of the plan, in the objective's units


@dataclass(frozen=True)
class LoadedRun:
    """A run's model in eval mode, its parameters fixed, with what its inputs mean."""

    folder: Path
    cfg: TrainConfig  # as it was resolved when the run was made
    task: Task
    space: ActionSpace
    step: int  # optimizer steps behind these weights

    @property
    def model(self) -> WorldModel:
        """The model itself: `run.model.encoder`, and so on."""
        assert isinstance(self.task.model, WorldModel)
        return self.task.model

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.task.device

    def dynamics(self, *, pose: bool = False) -> WorldModelDynamics:
        """The model as planners take it; with `pose` it integrates p as well."""
        precision = self.cfg.precision if self.cfg.precision in ("fp32", "bf16") else "fp32"
        return WorldModelDynamics(self.model, self.cfg.settings, self.space, pose=pose, precision=precision)

    def frames(self, frames: np.ndarray | Tensor) -> Tensor:
        """Pictures as the model's batches hold them: [B,T,C,H,W] uint8, on its device.

        Shapes: [T,C,H,W] or [B,T,C,H,W], channels first or last. Errors: UserError for another size or type.
        """
        x = torch.as_tensor(np.asarray(frames) if not isinstance(frames, Tensor) else frames)
        size, channels = self.cfg.model.image_size, self.cfg.model.in_channels
        if tuple(x.shape[-3:]) == (size, size, channels):
            x = x.movedim(-1, -3)
        if x.dtype != torch.uint8 or x.dim() not in (4, 5) or tuple(x.shape[-3:]) != (channels, size, size):
            raise UserError(
                f"frames are {str(x.dtype)[6:]} {list(x.shape)}; this model takes uint8 [T,C,H,W] or [B,T,C,H,W] "
                f"of {channels}x{size}x{size} (channels first or last)"
            )
        return (x if x.dim() == 5 else x[None]).contiguous().to(self.device)

    def encoded(self, actions: np.ndarray, rows: int) -> Tensor:
        """Raw actions [T,...] or [B,T,...] as the model sees them, [B,T,A]. Errors: UserError outside the space."""
        return torch.from_numpy(self.space.encode(self._raw(actions, rows))).to(self.device)

    def _raw(self, actions: np.ndarray, rows: int) -> np.ndarray:
        try:
            raw = self.space.check(np.asarray(actions))
        except ValueError as problem:
            raise UserError(str(problem)) from None
        raw = raw if raw.ndim == 2 + len(self.space.raw_shape) else raw[None]
        if len(raw) != rows:
            raise UserError(f"actions {list(raw.shape)} are of {len(raw)} windows, the frames of {rows}")
        return raw

    def batch(self, frames: np.ndarray | Tensor, actions: np.ndarray) -> Batch:
        """Windows of frames and the raw actions between them, as the environment takes them.

        Shapes: frames [B,T,C,H,W] or [T,C,H,W]; actions [B,T-1,...] or [T-1,...].
        Errors: UserError for counts that do not match or actions outside the space.
        """
        x = self.frames(frames)
        raw, rows = self._raw(actions, len(x)), torch.zeros(len(x), dtype=torch.int64)
        if raw.shape[1] != x.shape[1] - 1:
            raise UserError(
                f"actions {list(raw.shape)} do not fit frames {list(x.shape)}: T frames have T-1 actions between them"
            )
        return Batch(
            frames=x, actions=self.encoded(raw, len(x)), action_id=torch.from_numpy(self.space.ids(raw)),
            noop=torch.from_numpy(self.space.is_noop(raw)), episode=rows, start=rows, state=None, space=self.space,
        ).to(self.device)  # fmt: skip

    @torch.no_grad()
    def encode(self, frames: np.ndarray | Tensor) -> Tensor:
        """The frame states z of pictures. Shapes: [T,C,H,W] -> [T,Dz], [B,T,C,H,W] -> [B,T,Dz]."""
        x = self.frames(frames)
        at_rest = np.zeros((len(x), x.shape[1] - 1, *self.space.raw_shape))  # z reads no action
        z = self.task.states(self.batch(x, at_rest), ["z"])["z"]
        return z if np.ndim(frames) == 5 else z[0]

    @torch.no_grad()
    def states(
        self, frames: np.ndarray | Tensor, actions: np.ndarray, names: tuple[str, ...] = ("z", "h", "p")
    ) -> dict[str, Tensor]:
        """The named latents along windows of frames and the actions between them, each [B,T,D].

        Errors: UserError for a latent that this run's losses left unbuilt.
        """
        have = set(dict(self.task.model.named_children()))
        for name in names:
            lacking = sorted({g for part in self.task.graph.closure([name]) for g in part.trains} - have)
            if lacking:
                raise UserError(
                    f"this run has no {name}: its losses needed no {', '.join(lacking)}, so none was built"
                )
        states = self.task.states(self.batch(frames, actions), names)
        return {name: states[name] for name in names}

    def save_pretrained(self, folder: str | os.PathLike[str], *, programs: bool = False) -> list[Path]:
        """Write the model for others, with its card; `programs` adds the torch.export files. Returns the files."""
        from jepa_world_model.experiment.release import release

        return release(self, folder, programs=programs)

    @torch.no_grad()
    def imagine(self, frames: np.ndarray | Tensor, actions: np.ndarray) -> Imagined:
        """What follows the frames seen, as the model expects it from the actions alone (open loop).

        Shapes: frames [c,C,H,W] or [B,c,C,H,W] with c >= 1; actions [c-1+K] or [B,c-1+K] raw ones, of which the first
        c-1 led from frame to frame; K >= 1 steps are imagined. Without B in there is none out.
        Errors: UserError for fewer actions than frames, or a run whose losses built no dynamics.
        """
        x, many = self.frames(frames), np.ndim(frames) == 5
        seen, a = x.shape[1], self.encoded(actions, len(x))
        if a.shape[1] < seen:
            raise UserError(
                f"{seen} frames with {a.shape[1]} actions leave nothing to imagine; give the {seen - 1} actions between "
                "the frames and at least one more"
            )
        dynamics = self.dynamics(pose=hasattr(self.model, "p_action_delta_projector"))
        state, rows = _followed(dynamics, x, a), []
        start = state["z"]
        for t in range(seen - 1, a.shape[1]):
            state = dynamics.step(state, a[:, t])
            rows.append(state)
        z, h = (torch.stack([row[name] for row in rows], 1) for name in ("z", "h"))
        p = torch.stack([dynamics.read(row, "p") for row in rows], 1) if dynamics.pose else None
        drawn = self._pictures(z, x[:, -1:], start[:, None])
        if many:
            return Imagined(z, h, p, drawn)
        return Imagined(z[0], h[0], None if p is None else p[0], None if drawn is None else drawn[0])

    def plan(
        self,
        frames: np.ndarray | Tensor,
        goal: np.ndarray | Tensor,
        *,
        actions: np.ndarray | None = None,
        horizon: int = 20,
        planner: Any = None,
        objective: Objective | None = None,
        max_norm: float = math.inf,
        seed: int = 0,
    ) -> Planned:
        """Actions that, as the model expects, lead from the last frame seen to the goal's picture.

        Shapes: frames [c,C,H,W] or [B,c,C,H,W], goal [C,H,W] or [B,C,H,W], actions between the frames [c-1] or [B,c-1].
        planner, objective: of `planning.planners` and `planning.rollout`; by default cross-entropy search (random shooting
        where actions are bits) for the summed distance in z. max_norm: the longest encoded action that the environment
        executes as it is. The same seed gives the same plan.
        Errors: UserError for a planner that does not search such actions, or shapes that do not fit.
        """
        x, target = self.frames(frames), self._goals(goal)
        if len(target) != len(x):
            raise UserError(f"{len(target)} goals for {len(x)} windows of frames; give one picture each")
        a = torch.zeros(len(x), 0, self.space.dim) if actions is None else self.encoded(actions, len(x))
        if a.shape[1] != x.shape[1] - 1:
            raise UserError(
                f"{a.shape[1]} actions for {x.shape[1]} frames seen; give the {x.shape[1] - 1} between them, or the last "
                "frame alone"
            )
        dynamics, objective = self.dynamics(), objective or Objective()
        with torch.no_grad():
            state = _followed(dynamics, x, a)
            measure = objective.cost.towards(dynamics, dynamics.encode(target))
        problem = Problem(
            score=make_score(dynamics, state, measure, objective), episodes=len(x), horizon=horizon, space=self.space,
            generator=torch.Generator(self.device).manual_seed(seed), max_norm=max_norm,
        )  # fmt: skip
        found = search(planner or PLANNER[self.space.kind](), problem)
        raw, cost = self.space.decode(found.actions.cpu().numpy()), found.cost.float().cpu().numpy()
        return Planned(raw, cost) if np.ndim(frames) == 5 else Planned(raw[0], cost[0])

    def _goals(self, goal: np.ndarray | Tensor) -> Tensor:
        """Pictures of goals [B,C,H,W]."""
        if np.ndim(goal) == 5:
            raise UserError(
                f"goals are {list(np.shape(goal))}; give one picture a window: [C,H,W] or [B,C,H,W]"
            )
        return self.frames(goal[None] if np.ndim(goal) == 3 else goal)[0]

    def _pictures(self, z: Tensor, x: Tensor, start: Tensor) -> np.ndarray | None:
        """Imagined frames as bytes, drawn as the run's `render_mode` says, from the last frame seen."""
        if not hasattr(self.model, "decoder"):
            return None
        with self.task.autocast():
            drawn = self.model.decoder(z).float()
            if self.cfg.render_mode == "anchor_delta":
                drawn = x.float() / 255 + drawn - self.model.decoder(start).float()
        return drawn.clamp(0, 1).mul(255).round().byte().cpu().numpy()


PLANNER = {"continuous": CemConfig, "discrete": CategoricalCemConfig, "multi_binary": ShootingConfig}


def _followed(dynamics: WorldModelDynamics, x: Tensor, a: Tensor) -> dict[str, Tensor]:
    """The state at the last of the frames [B,c,C,H,W], after the first c-1 of the actions."""
    state = dynamics.encode(x[:, 0])
    for t in range(x.shape[1] - 1):
        state = dynamics.observe(state, a[:, t], x[:, t + 1])
    return state


def load(
    folder: str | os.PathLike[str], *, device: str = "auto", step: int | None = None, precision: str = ""
) -> LoadedRun:
    """The model of a run folder, from its newest checkpoint or that of a step; or of a folder that `release` wrote.

    "hf://owner/name" is such a folder on the Hugging Face Hub.

    Where a run averages its weights, these are the ones: they are what it evaluated.

    device: "auto", "cpu", "cuda". precision: "fp32" or "bf16"; empty: as it was trained.
    Errors: UserError for a folder that holds no run, no checkpoint, or one of another shape.
    """
    name = os.fspath(folder)
    folder = fetch(name.removeprefix(HUB), files=RELEASED) if name.startswith(HUB) else Path(folder)
    if not (folder / "config.toml").is_file():
        raise UserError(f"{folder} is no run: it holds no config.toml; give a folder below runs/")
    cfg = from_toml(TrainConfig, folder / "config.toml")
    if precision:
        cfg = dataclasses.replace(cfg, precision=precision)
    space = read_space(folder, cfg)
    cfg = dataclasses.replace(
        cfg,
        model=dataclasses.replace(
            cfg.model,
            action_dim=space.dim,
            action_kind=space.kind,
            backbone_weights="",  # what the backbone started from; the checkpoint has what became of it
        ),
    )
    with isolated(Streams(cfg.seed), "load"):  # fresh weights are drawn first; the caller's generators stay
        task = build_task(cfg, resolve_device(device))
    if step is None and (folder / WEIGHTS).is_file():
        read = read_pretrained(folder)
        fill(task.model, read)
        done = int(read.about.get("training", {}).get("steps", 0))
    else:
        chosen = _chosen(folder / "checkpoints", step)
        done = int(load_checkpoint(chosen, task.model)["step"])
        if averaged := read_average(chosen):
            task.model.load_state_dict(averaged, strict=False)  # buffers stay
    task.model.eval().requires_grad_(False)
    return LoadedRun(folder, cfg, task, space, done)


def _chosen(places: Path, step: int | None) -> Path:
    """The checkpoint to load. Errors: UserError that names those there are."""
    path = latest_checkpoint(places) if step is None else places / f"step-{step:08d}"
    if path is None or not path.is_dir():
        there = sorted(int(found.name.partition("-")[2]) for found in places.glob("step-*"))
        raise UserError(
            f"{places.parent} has no checkpoint{'' if step is None else f' of step {step}'}; "
            + (f"there are {there}" if there else "let it train to one first")
        )
    return path


def read_space(folder: Path, cfg: TrainConfig) -> ActionSpace:
    """The action space of a run: from its folder, or, for one made before that was kept, from its data."""
    path = folder / ACTIONS
    if not path.is_file():
        return open_dataset(cfg.data).space
    try:
        return ActionSpace.from_json(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as problem:
        raise UserError(f"{path} is damaged ({problem})") from None
