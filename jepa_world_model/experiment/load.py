"""A trained world model, read back from its run folder and ready for use."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from jepa_world_model.core.checkpoint import latest_checkpoint, load_checkpoint
from jepa_world_model.core.config import from_toml
from jepa_world_model.core.errors import UserError
from jepa_world_model.core.rng import Streams, isolated
from jepa_world_model.core.task import Task
from jepa_world_model.data.batch import ActionSpace, Batch
from jepa_world_model.experiment.build import build_task, resolve_device
from jepa_world_model.experiment.config import TrainConfig
from jepa_world_model.experiment.data import open_dataset

ACTIONS = "actions.json"  # the action space, in the run folder: a model means nothing without it


@dataclass(frozen=True)
class LoadedRun:
    """A run's model in eval mode, its parameters fixed, with what its inputs mean."""

    folder: Path
    cfg: TrainConfig  # as it was resolved when the run was made
    task: Task
    space: ActionSpace
    step: int  # optimizer steps behind these weights

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.task.device

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

    def batch(self, frames: np.ndarray | Tensor, actions: np.ndarray) -> Batch:
        """Windows of frames and the raw actions between them, as the environment takes them.

        Shapes: frames [B,T,C,H,W] or [T,C,H,W]; actions [B,T-1,...] or [T-1,...].
        Errors: UserError for counts that do not match or actions outside the space.
        """
        x = self.frames(frames)
        try:
            raw = self.space.check(np.asarray(actions))
        except ValueError as problem:
            raise UserError(str(problem)) from None
        raw = raw if raw.ndim == 2 + len(self.space.raw_shape) else raw[None]
        if raw.shape[:2] != (len(x), x.shape[1] - 1):
            raise UserError(
                f"actions {list(raw.shape)} do not fit frames {list(x.shape)}: T frames have T-1 actions between them"
            )
        rows = torch.zeros(len(x), dtype=torch.int64)
        return Batch(
            frames=x,
            actions=torch.from_numpy(self.space.encode(raw)),
            action_id=torch.from_numpy(self.space.ids(raw)),
            noop=torch.from_numpy(self.space.is_noop(raw)),
            episode=rows, start=rows, state=None, space=self.space,
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


def load(
    folder: str | Path, *, device: str = "auto", checkpoint: str | Path = "", precision: str = ""
) -> LoadedRun:
    """The model of a run folder, from its newest checkpoint unless another is named.

    device: "auto", "cpu", "cuda". checkpoint: a folder step-00001000, or its name below the run's checkpoints/.
    precision: "fp32" or "bf16"; empty: as it was trained.
    Errors: UserError for a folder that holds no run, no checkpoint, or one of another shape.
    """
    folder = Path(folder)
    if not (folder / "config.toml").is_file():
        raise UserError(f"{folder} is no run: it holds no config.toml; give a folder below runs/")
    cfg = from_toml(TrainConfig, folder / "config.toml")
    if precision:
        cfg = dataclasses.replace(cfg, precision=precision)
    space = read_space(folder, cfg)
    cfg = dataclasses.replace(
        cfg, model=dataclasses.replace(cfg.model, action_dim=space.dim, action_kind=space.kind)
    )
    with isolated(
        Streams(cfg.seed), "load"
    ):  # fresh weights are drawn first: leave the caller's generators be
        task = build_task(cfg, resolve_device(device))
    step = int(load_checkpoint(_chosen(folder, checkpoint), task.model)["step"])
    task.model.eval().requires_grad_(False)
    return LoadedRun(folder, cfg, task, space, step)


def _chosen(folder: Path, checkpoint: str | Path) -> Path:
    """The checkpoint to load."""
    places = folder / "checkpoints"
    if checkpoint:
        return next(
            (place for place in (places / checkpoint, Path(checkpoint)) if place.is_dir()),
            places / checkpoint,
        )
    newest = latest_checkpoint(places)
    if newest is None:
        raise UserError(f"{folder} has no checkpoint yet; let it train on, or give another run")
    return newest


def read_space(folder: Path, cfg: TrainConfig) -> ActionSpace:
    """The action space of a run: from its folder, or, for one made before that was kept, from its data."""
    path = folder / ACTIONS
    if not path.is_file():
        return open_dataset(cfg.data).space
    try:
        return ActionSpace.from_json(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as problem:
        raise UserError(f"{path} is damaged ({problem})") from None
