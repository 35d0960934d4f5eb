"""The world model: a module whose children are exactly the parameter groups asked for."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from jepa_world_model.model_config import ModelConfig
from jepa_world_model.models.bridges import H2ZDelta, HToZ, ZToH
from jepa_world_model.models.decoder import Decoder
from jepa_world_model.models.encoder import Encoder
from jepa_world_model.models.heads import (
    HActionDelta,
    InverseAction,
    InverseDynamics,
    InverseDynamicsOfIncrement,
    ZActionDelta,
)
from jepa_world_model.models.pose import (
    ActionPrototype,
    ChangeToPose,
    PoseIncrement,
    PoseMeasurement,
    TemporalDistance,
)
from jepa_world_model.models.predictor import Predictor
from jepa_world_model.models.pretrained import check, fill, read_pretrained, upload, write_pretrained

BUILDERS: Mapping[str, Callable[[ModelConfig], nn.Module]] = {
    "encoder": Encoder,
    "decoder": Decoder,
    "predictor": Predictor,
    "h_to_z": HToZ,
    "z_to_h": ZToH,
    "p_action_delta_projector": PoseIncrement,
    "h_action_delta_projector": HActionDelta,
    "z_action_delta_projector": ZActionDelta,
    "dp_action_delta_projector": ActionPrototype,
    "inverse_dynamics_z": lambda cfg: InverseDynamics(cfg, cfg.z_dim),
    "inverse_dynamics_h": lambda cfg: InverseDynamics(cfg, cfg.state_dim),
    "inverse_dynamics_p": lambda cfg: InverseDynamics(cfg, cfg.pose_dim),
    "inverse_dynamics_dp": InverseDynamicsOfIncrement,
    "inverse_action_head": InverseAction,
    "h2z_delta": H2ZDelta,
    "dz_to_dp_projector": ChangeToPose,
    "pose_measurement": PoseMeasurement,
    "temporal_distance": TemporalDistance,
}
WITHOUT_ACTIONS = frozenset(
    (
        "encoder", "decoder", "h_to_z", "z_to_h", "h2z_delta", "dz_to_dp_projector", "pose_measurement",
        "temporal_distance",
    )
)  # fmt: skip


class WorldModel(nn.Module):
    """The parts named in `groups`, each a child of that name; nothing else has a parameter.

    Errors: ValueError for a name without a builder, and for a part that sees actions while `action_dim` is 0.
    """

    # For type checkers; each is there only if its name is among `groups`.
    encoder: Encoder
    decoder: Decoder
    predictor: Predictor
    h_to_z: HToZ
    z_to_h: ZToH
    p_action_delta_projector: PoseIncrement
    h_action_delta_projector: HActionDelta
    z_action_delta_projector: ZActionDelta
    dp_action_delta_projector: ActionPrototype
    inverse_dynamics_z: InverseDynamics
    inverse_dynamics_h: InverseDynamics
    inverse_dynamics_p: InverseDynamics
    inverse_dynamics_dp: InverseDynamicsOfIncrement
    inverse_action_head: InverseAction
    h2z_delta: H2ZDelta
    dz_to_dp_projector: ChangeToPose
    pose_measurement: PoseMeasurement
    temporal_distance: TemporalDistance

    def __init__(self, cfg: ModelConfig, groups: Collection[str]) -> None:
        super().__init__()
        if unknown := sorted(set(groups) - set(BUILDERS)):
            raise ValueError(f"no model part is called {', '.join(unknown)}; there are {', '.join(BUILDERS)}")
        if cfg.action_dim == 0 and (needy := sorted(set(groups) - WITHOUT_ACTIONS)):
            raise ValueError(
                f"model.action_dim is 0, but {needy[0]} sees actions; set it to the width of the actions"
            )
        self.cfg = cfg
        for name, build in BUILDERS.items():  # in this order, whatever the order of `groups`
            if name in groups:
                self.add_module(name, build(cfg))

    def save_pretrained(
        self, folder: str | os.PathLike[str], *, card: str = "", extra: Mapping[str, Any] | None = None
    ) -> Path:
        """Write config.json, model.safetensors and the model card README.md into a folder; returns it.

        card: text of the card; empty: one that names the parts. extra: plain JSON kept in config.json.
        """
        return write_pretrained(folder, self, self.cfg, card=card, extra=extra)

    @classmethod
    def from_pretrained(
        cls, source: str | os.PathLike[str], *, revision: str | None = None, local_files_only: bool = False
    ) -> WorldModel:
        """The model of a folder that `save_pretrained` wrote, or of the Hub ("owner/name"), in eval mode.

        Errors: UserError for what is absent, damaged or of another model.
        """
        read = read_pretrained(source, revision=revision, local_files_only=local_files_only)
        with torch.device("meta"):  # before memory is asked for: a damaged size can be any number
            planned = cls(read.model, read.groups).state_dict()
        check(read, planned)
        model = cls(read.model, read.groups)
        fill(model, read)
        return model.eval()

    def push_to_hub(self, name: str, *, card: str = "", private: bool = False) -> str:
        """Put the model on the Hugging Face Hub as "owner/name"; returns its address.

        Errors: UserError when nobody is logged in, or the Hub refuses.
        """
        with tempfile.TemporaryDirectory() as place:
            return upload(self.save_pretrained(place, card=card), name, private=private)
