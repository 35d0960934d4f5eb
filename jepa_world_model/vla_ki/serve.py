"""A trained VLA as a LeRobot policy: `select_action(observation)` and `reset()`, with a queue over chunks of actions."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.rng import Streams
from jepa_world_model.core.task import Task
from jepa_world_model.vla_ki.build import CAMERA, Tools
from jepa_world_model.vla_ki.config import KITrainConfig
from jepa_world_model.vla_ki.evaluate import REPLAN, act, load_model
from jepa_world_model.vla_ki.images import resize_with_pad
from jepa_world_model.vla_ki.siglip import SIGLIP

STATE, TASK, IMAGES = "observation.state", "task", "observation.images."  # LeRobot's keys


class Policy:
    """The model of a run of ki-train behind the methods that LeRobot's control loops call.

    An observation holds `observation.state` [B,S] and `task` (B instructions), both in the units and words of the data, and
    `observation.images.<camera>` [B,3,H,W] of any size, float in [0, 1] or uint8, channels first or last. Without a leading
    B (and with a single string as task) it is of one robot, and so is the answer. Actions are in the units of the data.

    n_action_steps: actions of a chunk that are carried out before the next is planned, at most the horizon.
    cameras: their names in the model's order; empty: those of the run's configuration. seed: of the flow's noise.
    """

    def __init__(
        self,
        cfg: KITrainConfig,
        task: Task,
        tools: Tools,
        *,
        n_action_steps: int = REPLAN,
        cameras: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        self.cfg, self.task, self.tools = cfg, task, tools
        self.cameras = tuple(cameras or cfg.data.cameras or ((CAMERA,) if not cfg.data.folder else ()))
        if self.cameras and len(self.cameras) != cfg.model.cameras:
            raise UserError(
                f"{len(self.cameras)} cameras are named ({', '.join(self.cameras)}), the model has {cfg.model.cameras}"
            )
        if not 1 <= n_action_steps <= cfg.model.horizon:
            raise UserError(
                f"n_action_steps is {n_action_steps}; the model plans {cfg.model.horizon} actions at a time, so it lies "
                f"in 1..{cfg.model.horizon}"
            )
        self.n_action_steps, self.streams = n_action_steps, Streams(seed)
        self.task.model.eval()
        self.reset()

    @classmethod
    def load(cls, folder: str | os.PathLike[str], **options: Any) -> Policy:
        """The policy of a run folder, from its newest checkpoint, averaged weights where the run keeps them.

        options: as the constructor takes them. The run's data are not needed.
        """
        cfg, task, tools, _ = load_model(folder)
        return cls(cfg, task, tools, **options)

    def reset(self) -> None:
        """Forget what was planned, and start the noise anew: the same episode gives the same actions."""
        self._queue: deque[Tensor] = deque()
        self._generator = self.streams.torch("policy", device=self.task.device)

    def select_action(self, observation: Mapping[str, Any]) -> Tensor:
        """The next action [B,D] (or [D] of one robot); plans a chunk when none is left of the last.

        Between two plans only the queue is read: the pictures of those steps are not looked at.
        Errors: UserError for a missing or misshapen part of the observation.
        """
        if not self._queue:
            chunk = self.predict_action_chunk(observation)
            self._queue.extend(chunk[..., : self.n_action_steps, :].movedim(-2, 0))
        rows, planned = np.shape(observation[STATE])[:-1], tuple(self._queue[0].shape[:-1])
        if rows != planned:
            raise UserError(
                f"the actions that are left are for robots {list(planned)}, the observation is of {list(rows)}; "
                "call reset() when episodes begin"
            )
        return self._queue.popleft()

    @torch.no_grad()
    def predict_action_chunk(self, observation: Mapping[str, Any]) -> Tensor:
        """A whole chunk of actions [B,T,D] (or [T,D] of one robot), whatever the queue holds."""
        for key in (STATE, TASK):
            if key not in observation:
                raise UserError(f"the observation lacks {key}; it holds {', '.join(sorted(observation))}")
        states = _array(observation[STATE]).astype(np.float32)
        one = states.ndim == 1
        texts = [observation[TASK]] if isinstance(observation[TASK], str) else list(observation[TASK])
        states = states[None] if one else states
        width = len(self.tools.norm.state.low)
        if states.ndim != 2 or states.shape[1] != width or len(texts) != len(states):
            raise UserError(
                f"{STATE} is {list(states.shape)} with {len(texts)} instructions; this model takes [B,{width}] and B of them"
            )
        chunk = act(
            self.task,
            self.cfg,
            self.tools,
            self._images(observation, one, len(states)),
            states,
            texts,
            self._generator,
        )
        made = torch.from_numpy(chunk)
        return made[0] if one else made

    def _images(self, observation: Mapping[str, Any], one: bool, rows: int) -> np.ndarray:
        """The cameras in the model's order, [B,C,3,size,size] uint8."""
        held = sorted(key for key in observation if key.startswith(IMAGES))
        names = self.cameras or tuple(held)
        missing = [name for name in names if name not in observation]
        if missing or len(names) != self.cfg.model.cameras:
            wanted = ", ".join(self.cameras) or f"{self.cfg.model.cameras} pictures"
            raise UserError(
                f"this model takes {wanted}; the observation holds {', '.join(held) or 'no picture'}"
            )
        if len(names) > 1 and not self.cameras:
            raise UserError(
                f"in which order does the model take {', '.join(names)}? Give cameras=(...) by name"
            )
        size = SIGLIP[self.cfg.model.vision].image_size
        return np.stack(
            [resize_with_pad(_pictures(name, observation[name], one, rows), size) for name in names], 1
        )


def _array(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)


def _pictures(name: str, value: Any, one: bool, rows: int) -> np.ndarray:
    """[B,3,H,W] uint8. Errors: UserError for what is no such picture."""
    x = _array(value)
    x = x[None] if one and x.ndim == 3 else x
    if x.ndim == 4 and x.shape[1] != 3 and x.shape[-1] == 3:
        x = np.moveaxis(x, -1, 1)
    if x.ndim != 4 or x.shape[1] != 3 or len(x) != rows:
        raise UserError(
            f"{name} is {list(np.shape(value))}; it must be [B,3,H,W] or [B,H,W,3] with B = {rows}"
        )
    if x.dtype == np.uint8:
        return x
    if x.dtype.kind != "f" or (x.size and (x.min() < 0 or x.max() > 1)):
        raise UserError(
            f"{name} is {x.dtype} from {x.min():g} to {x.max():g}; give uint8, or float in [0, 1]"
        )
    return np.rint(x * 255).astype(np.uint8)
