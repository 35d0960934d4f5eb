"""From a configuration to everything a run needs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from jepa_world_model.core.distributed import ALONE, World
from jepa_world_model.core.errors import UserError
from jepa_world_model.core.optim import build_optimizer
from jepa_world_model.core.precision import resolve_precision
from jepa_world_model.core.rng import Streams, seed_everything
from jepa_world_model.core.task import Task, needed_groups
from jepa_world_model.data.batch import ActionSpace, Batch
from jepa_world_model.data.episodes import Episodes, split_episodes
from jepa_world_model.data.loader import Loader
from jepa_world_model.data.windows import Windows
from jepa_world_model.experiment.config import TrainConfig
from jepa_world_model.experiment.data import open_dataset
from jepa_world_model.losses import LOSSES
from jepa_world_model.models.calibrate import calibrate
from jepa_world_model.models.world_model import BUILDERS, WorldModel


def resolve_device(name: str) -> torch.device:
    """The device of a name. Errors: UserError when this machine has none such."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device {name!r} is unknown; use auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device {name!r} asked for, but torch sees no CUDA device here; use --device cpu")
    return device


def build_task(cfg: TrainConfig, device: torch.device | str = "cpu", world: World = ALONE) -> Task:
    """Model and task of a configuration whose sizes are resolved; weights from `cfg.seed`."""
    weights = dataclasses.asdict(cfg.loss_weights)
    graph = cfg.graph()
    groups = needed_groups(graph, LOSSES.active(weights))
    seed_everything(cfg.seed)
    model = WorldModel(cfg.model, groups).to(device)
    kind = torch.device(device).type
    autocast = partial(torch.autocast, kind, dtype=torch.bfloat16, enabled=cfg.precision == "bf16")
    return Task(
        model, graph, LOSSES, weights=weights, gates=cfg.edge_gates(), settings=cfg.settings, options=cfg.loss_options,
        streams=Streams(cfg.seed), autocast=autocast, schedules=cfg.schedules(), normalize=cfg.loss_normalization,
        world=world,
    )  # fmt: skip


def resolve_sizes(cfg: TrainConfig, space: ActionSpace, frame_shape: tuple[int, int, int]) -> TrainConfig:
    """The configuration with the sizes that the data dictate. Errors: UserError where it says otherwise."""
    channels, height, width = frame_shape
    if height != width or height != cfg.model.image_size or channels != cfg.model.in_channels:
        raise UserError(
            f"the data hold frames of {channels}x{height}x{width} (channels, height, width), but the model expects "
            f"{cfg.model.in_channels}x{cfg.model.image_size}x{cfg.model.image_size}; set --model.in-channels {channels} "
            f"--model.image-size {height}, or resize the frames with --data.size {cfg.model.image_size}"
            if height == width
            else f"the data hold frames of {channels}x{height}x{width}, which are not square; resize them with "
            f"--data.size {cfg.model.image_size} (and --data.fit), or collect square ones"
        )
    if cfg.model.action_dim not in (0, space.dim):
        raise UserError(
            f"model.action_dim is {cfg.model.action_dim}, but the data have actions of width {space.dim} "
            f"({space.kind}); leave it at 0 to take the data's"
        )
    if cfg.model.action_kind not in ("", space.kind):
        raise UserError(
            f"model.action_kind is {cfg.model.action_kind!r}, but the data have {space.kind} actions; leave it empty"
        )
    return dataclasses.replace(
        cfg, model=dataclasses.replace(cfg.model, action_dim=space.dim, action_kind=space.kind)
    )


DATA = "data"  # the random stream of the order of windows
CALIBRATION_FRAMES = 384  # the encoder's readout starts at mean 0, variance 1 over as many training frames


@dataclass(frozen=True)
class Experiment:
    """Everything a run needs, built from one configuration."""

    cfg: TrainConfig  # resolved: sizes filled in from the data
    episodes: Episodes
    task: Task
    optimizer: torch.optim.Optimizer
    loader: Loader  # training windows by step
    held_out: Windows  # windows of episodes that no training step sees
    device: torch.device

    def batch(self, step: int) -> Batch:
        """This process's share of a batch, on the device: a function of (seed, its number) alone."""
        return self.loader.batch(step).to(self.device)

    def batches(self, step: int) -> tuple[Batch, ...]:
        """The batches whose gradients make one step: one, or as many as are accumulated."""
        count = self.cfg.accumulate
        return tuple(self.batch(step * count + number) for number in range(count))

    def whole_batches(self, step: int) -> tuple[Batch, ...]:
        """The same of all processes together, in host memory."""
        count = self.cfg.accumulate
        return tuple(self._whole.batch(step * count + number) for number in range(count))

    def first_windows(self, n: int) -> Batch:
        """The first n windows of the first batch, the same on every process."""
        return self.loader.windows.batch(self._whole.indices(0)[:n]).to(self.device)

    @property
    def _whole(self) -> Loader:
        return Loader(self.loader.windows, self.loader.batch_size, self.task.streams, DATA)


def build(cfg: TrainConfig, world: World = ALONE) -> Experiment:
    """Data, model, task and optimizer of a configuration. Errors: UserError for what the user can mend.

    world: the processes that share every batch; all start with the weights of the first.
    """
    device = resolve_device(cfg.device) if world.size == 1 else world.device
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    with world.leading():  # a built-in world is made on first use: once a machine
        episodes = open_dataset(cfg.data)
    cfg = dataclasses.replace(cfg, precision=resolve_precision(cfg.precision, device))
    cfg = resolve_sizes(cfg, episodes.space, tuple(episodes.frames.shape[1:]))
    train_ids, held_ids = split_episodes(episodes, cfg.data.val_fraction, cfg.data.seed)
    task = build_task(cfg, device, world)
    windows = Windows(episodes, train_ids, frames=cfg.seq_len)
    encoder = getattr(task.model, "encoder", None)
    if encoder is not None:
        frames = spread(windows, CALIBRATION_FRAMES // cfg.seq_len).to(device).frames.flatten(0, 1)
        calibrate(encoder, frames.float() / 255)
    world.align(task.model)
    # A rate may be set for any group there could be; a misspelt one is still refused.
    rates = {
        name: rate for name, rate in cfg.optim.lr_scale.items() if name in task.groups or name not in BUILDERS
    }
    optimizer = build_optimizer(task.groups, dataclasses.replace(cfg.optim, lr_scale=rates), no_decay)
    loader = Loader(windows, cfg.batch_size, task.streams, DATA, rank=world.rank, world=world.size)
    held_out = Windows(episodes, held_ids, frames=max(cfg.seq_len, cfg.rollout_horizon + 1))
    return Experiment(cfg, episodes, task, optimizer, loader, held_out, device)


def spread(windows: Windows, count: int) -> Batch:
    """A fixed batch of windows, evenly spread over all there are."""
    count = max(1, min(count, len(windows)))
    return windows.batch(np.linspace(0, len(windows) - 1, count).round().astype(np.int64))


def no_decay(name: str, parameter: torch.nn.Parameter) -> bool:
    """No weight decay on biases, norms and action prototypes."""
    return parameter.dim() <= 1 or name.startswith("dp_action_delta_projector.")
