"""From a run to its dashboard: the fixed evaluation batch, the model as planners take it, and its world."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from pathlib import Path

import numpy as np
from torch import Tensor

from jepa_world_model.core.rng import Streams
from jepa_world_model.core.task import Task
from jepa_world_model.data.batch import Batch
from jepa_world_model.data.episodes import Episodes, split_episodes
from jepa_world_model.data.windows import Windows
from jepa_world_model.diagnostics.dashboard import Diagnosis, diagnose, write_dashboard
from jepa_world_model.diagnostics.evaluate import measuring
from jepa_world_model.diagnostics.panels.gather import Witness, gather
from jepa_world_model.experiment.config import TrainConfig
from jepa_world_model.experiment.data import open_dataset, option_value
from jepa_world_model.experiment.load import load
from jepa_world_model.planning.dynamics import WorldModelDynamics
from jepa_world_model.planning.scores import weights_hash
from jepa_world_model.planning.worlds import WORLDS, make_world

WINDOWS = 64  # of the evaluation batch


def diagnose_run(
    folder: str | os.PathLike[str],
    *,
    step: int | None = None,
    device: str = "auto",
    windows: int = WINDOWS,
    seed: int = 0,
) -> Path:
    """Write the dashboard of a finished run into its folder; the page's path.

    step: of the checkpoint, None for the newest. Errors: UserError for a folder without a run or checkpoint, data that
    are gone, or a model without dynamics.
    """
    run = load(folder, device=device, step=step, precision="fp32")
    episodes = open_dataset(run.cfg.data)
    _, held = split_episodes(episodes, run.cfg.data.val_fraction, run.cfg.data.seed)
    frames = max(run.cfg.seq_len, run.cfg.rollout_horizon + 1)
    found = examine(
        run.task, run.cfg, episodes, Windows(episodes, held, frames=frames), step=run.step, windows=windows, seed=seed
    )  # fmt: skip
    return write_dashboard(run.folder, found)


def examine(
    task: Task,
    cfg: TrainConfig,
    episodes: Episodes,
    held_out: Windows,
    *,
    step: int,
    windows: int = WINDOWS,
    seed: int = 0,
) -> Diagnosis:
    """Every panel on the fixed windows of what was held out. The model keeps its mode; no global random number is drawn."""
    begun = time.perf_counter()
    batch = evaluation_batch(held_out, windows, seed).to(task.device)
    with measuring(task.model):
        found = diagnose(gather(witness(task, cfg, episodes), batch, seed=seed))
    about = {
        "step": step,
        "data": episodes.name,
        "windows": f"{batch.B} of {batch.T} frames, drawn with seed {seed} from {len(held_out):,} held out",
        "batch_sha256": fingerprint(batch),
        "model_hash": weights_hash(task.model),
        "precision": "fp32",
        "device": str(task.device),
        "seconds": round(time.perf_counter() - begun, 2),
    }
    return dataclasses.replace(found, about=about)


def evaluation_batch(held_out: Windows, count: int, seed: int) -> Batch:
    """The fixed windows that a seed draws of those held out, in order."""
    draw = Streams(seed).numpy("diagnostics/windows")
    return held_out.batch(np.sort(draw.choice(len(held_out), min(count, len(held_out)), replace=False)))


def fingerprint(batch: Batch) -> str:
    """SHA-256 of everything in a batch: two runs with the same one were asked about the same frames."""
    found = hashlib.sha256()
    for name, value in batch.tensors().items():
        found.update(f"{name} {tuple(value.shape)}".encode())
        found.update(np.ascontiguousarray(value.cpu().numpy()).tobytes())
    return found.hexdigest()


def witness(task: Task, cfg: TrainConfig, episodes: Episodes) -> Witness:
    """A run's model, computed in fp32 whatever it was trained in, with its world where that is a built-in one.

    Errors: UserError for a model without the parts that dynamics need.
    """
    model = task.model
    pose = hasattr(model, "p_action_delta_projector")
    dynamics = WorldModelDynamics(model, cfg.settings, episodes.space, pose=pose)
    world, walls = None, None
    if cfg.data.source in WORLDS:
        options = {name: option_value(text) for name, text in cfg.data.options.items()}
        world = make_world(cfg.data.source, options)
        walls = _walls(episodes)

    def decode(z: Tensor) -> Tensor:
        return model.decoder(z)

    return Witness(
        dynamics=dynamics, world=world, walls=walls, decode=decode if hasattr(model, "decoder") else None,
        horizon=cfg.rollout_horizon, warmup=cfg.model.warmup_frames_h,
    )  # fmt: skip


def _walls(episodes: Episodes) -> np.ndarray | None:
    """The wall and door of each episode of Two Rooms [E,2]; None for worlds whose places are their states."""
    told = episodes.manifest.get("walls")
    return None if told is None else np.broadcast_to(np.asarray(told, np.float64), (len(episodes), 2))
