"""What enters the model: images, token rows, action chunks, and the masks that say which of it counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_world_model.core.errors import UserError
from jepa_world_model.vla_ki.model import KIConfig
from jepa_world_model.vla_ki.prompt import Tokens

NOWHERE = -1  # the place of a target that is none


@dataclass(frozen=True, kw_only=True)
class KIBatch:
    """Rows of a mixed batch: robot rows have actions and FAST answers, text rows a question and an answer."""

    images: Tensor  # [B,C,3,H,W] uint8, as stored; a missing camera is zeros
    image_mask: Tensor  # [B,C] bool
    ids: Tensor  # [B,L] int64
    token_mask: Tensor  # [B,L] bool
    ar_mask: Tensor  # [B,L] bool
    supervised: Tensor  # [M] int64: places of the targets in the flattened [B*L], in row order; below 0: none
    robot: Tensor  # [B] bool: rows with actions, before all others
    robots: int  # how many; known without asking the device
    actions: Tensor  # [B,T,A] float32, normalised, padded to the model's width; zeros in text rows
    action_mask: Tensor  # [B,T,A] bool: real dimension, real step, robot row

    def to(self, device: torch.device | str) -> KIBatch:
        """The same batch on a device."""
        moved = {
            name: value.to(device, non_blocking=True)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return KIBatch(**moved, robots=self.robots)

    def rows(self, which: int | Sequence[int]) -> KIBatch:
        """The first so many rows, or those of these numbers (robot rows before all others)."""
        chosen = (
            torch.arange(self.B, device=self.ids.device)[:which]
            if isinstance(which, int)
            else torch.as_tensor(which)
        )
        parts = {
            name: value[chosen] for name, value in vars(self).items() if name not in ("supervised", "robots")
        }
        taught = torch.zeros(self.ids.numel(), dtype=torch.bool, device=self.ids.device)
        taught[self.supervised[self.supervised >= 0]] = True
        supervised = taught.view(self.ids.shape)[chosen].flatten().nonzero()[:, 0]
        return KIBatch(supervised=supervised, robots=int(parts["robot"].sum()), **parts)

    def padded(self, targets: int) -> KIBatch:
        """The same batch with `targets` places for targets, the last of them for none.

        How many targets a batch has differs from one to the next; a compiled step is made for a number of them.
        Errors: ValueError where the batch has more.
        """
        missing = targets - len(self.supervised)
        if missing < 0:
            raise ValueError(f"the batch has {len(self.supervised)} targets, {targets} was to be the most")
        return replace(self, supervised=F.pad(self.supervised, (0, missing), value=NOWHERE))

    @property
    def B(self) -> int:
        """Rows."""
        return len(self.ids)


def collate(
    cfg: KIConfig,
    tokens: Tokens,
    images: np.ndarray,
    image_mask: np.ndarray,
    actions: np.ndarray,
    step_mask: np.ndarray,
    robot: np.ndarray,
) -> KIBatch:
    """A batch from numpy rows; actions are padded to the model's width and masked there.

    Shapes: images [B,C,3,H,W] uint8, image_mask [B,C], actions [B,T,D] normalised, step_mask [B,T], robot
    [B].
    Errors: UserError where a robot batch would train nothing, or sizes do not fit the model.
    """
    batch, horizon, dim = actions.shape
    if horizon != cfg.horizon or dim > cfg.action_dim:
        raise UserError(
            f"action chunks of {horizon} steps with {dim} dimensions do not fit a model of horizon {cfg.horizon} and "
            f"action_dim {cfg.action_dim}; raise --model.action-dim, or set --model.horizon"
        )
    if tokens.ids.shape != (batch, cfg.prompt_length + cfg.answer_length) or images.shape[1] != cfg.cameras:
        raise UserError(
            f"token rows {list(tokens.ids.shape)} and images {list(images.shape)} do not fit a model with "
            f"{cfg.prompt_length} + {cfg.answer_length} tokens and {cfg.cameras} cameras"
        )
    if (np.diff(robot.astype(int)) > 0).any():
        raise UserError("robot rows must come before all others in a batch")
    padded = np.zeros((batch, horizon, cfg.action_dim), np.float32)
    padded[..., :dim] = np.where(robot[:, None, None], actions, 0.0)
    mask = np.zeros(padded.shape, bool)
    mask[..., :dim] = (step_mask & robot[:, None])[..., None]
    return KIBatch(
        images=torch.from_numpy(images),
        image_mask=torch.from_numpy(image_mask),
        ids=torch.from_numpy(tokens.ids),
        token_mask=torch.from_numpy(tokens.token_mask),
        ar_mask=torch.from_numpy(tokens.ar_mask),
        supervised=torch.from_numpy(np.flatnonzero(tokens.loss_mask)),
        robot=torch.from_numpy(robot),
        robots=int(robot.sum()),
        actions=torch.from_numpy(padded),
        action_mask=torch.from_numpy(mask),
    )


def check_batch(cfg: KIConfig, batch: KIBatch) -> None:
    """Refuse batches that would train the wrong thing in silence; run on the first batches of a training.

    Errors: UserError for a robot batch without FAST targets, or answers among the columns that the expert
    reads.
    """
    length = batch.ids.shape[1]
    supervised_rows = torch.zeros(batch.B, dtype=torch.bool)
    supervised_rows[batch.supervised.cpu() // length] = True
    bare = int((batch.robot.cpu() & ~supervised_rows).sum())
    if bare:
        raise UserError(
            f"{bare} robot rows have no supervised token: the loss mask is empty, so the FAST loss would be "
            "0 and the VLM would not learn; give the prompt builder a FAST tokenizer and training chunks"
        )
    if bool((batch.supervised.cpu() % length < cfg.prompt_length).any()) or bool(
        batch.ar_mask[:, : cfg.prompt_length].any()
    ):
        raise UserError(
            f"answer tokens stand among the first {cfg.prompt_length} columns, which the expert reads; "
            "it would see its own answer"
        )
