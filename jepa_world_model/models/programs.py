"""The model's parts as programs that run without this package: `torch.export`, one .pt2 file each.

Load one with `torch.export.load(path).module()`; N, the number of rows, is free. All in fp32.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.run import require_space, writing
from jepa_world_model.model_config import ModelConfig
from jepa_world_model.models.world_model import WorldModel


class EncodeFrames(nn.Module):
    """Frames as bytes to their states. Shapes: [N,C,H,W] uint8 -> z [N,Dz]."""

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.encoder = model.encoder

    def forward(self, frames: Tensor) -> Tensor:
        return self.encoder(frames.float() / 255)


class StartMemory(nn.Module):
    """The dynamics state to start from. Shapes: z [N,Dz] -> h [N,Dh]."""

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.z_to_h = model.z_to_h

    def forward(self, z: Tensor) -> Tensor:
        return self.z_to_h(z)


class PredictStep(nn.Module):
    """One step of the dynamics, self-fed. Shapes: z [N,Dz], h [N,Dh], encoded action [N,A] -> the next z and h.

    After a true frame, feed its own z in place of the predicted one.
    """

    def __init__(self, model: WorldModel, memory: bool) -> None:
        super().__init__()
        self.predictor, self.h_to_z, self.memory = model.predictor, model.h_to_z, memory

    def forward(self, z: Tensor, h: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        h = self.predictor(z, h if self.memory else torch.zeros_like(h), action)
        return self.h_to_z(h), h


class StepPose(nn.Module):
    """One increment of the pose. Shapes: p [N,Dp], h [N,Dh] before the step, encoded action [N,A] -> the next p."""

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.increment = model.p_action_delta_projector

    def forward(self, p: Tensor, h: Tensor, action: Tensor) -> Tensor:
        return p + self.increment(p, h, action)


class DrawFrames(nn.Module):
    """States to frames as bytes. Shapes: z [N,Dz] -> [N,C,H,W] uint8."""

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.decoder = model.decoder

    def forward(self, z: Tensor) -> Tensor:
        return self.decoder(z).clamp(0, 1).mul(255).round().to(torch.uint8)


def programs(
    model: WorldModel, cfg: ModelConfig, *, memory: bool = True
) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """The programs that this model's parts allow, by name, each with example inputs of two rows.

    memory: False where the run fed its predictor zeros for h (`force_h_zero`).
    """

    def rows(*shape: int) -> Tensor:
        return torch.zeros(2, *shape)

    z, h, p, a = rows(cfg.z_dim), rows(cfg.state_dim), rows(cfg.pose_dim), rows(cfg.action_dim)
    found: dict[str, tuple[nn.Module, tuple[Tensor, ...]]] = {}
    if hasattr(model, "encoder"):
        frames = rows(cfg.in_channels, cfg.image_size, cfg.image_size).to(torch.uint8)
        found["encoder"] = (EncodeFrames(model), (frames,))
    if hasattr(model, "z_to_h") and cfg.h_init == "z_to_h" and memory:
        found["start"] = (StartMemory(model), (z,))
    if hasattr(model, "predictor") and hasattr(model, "h_to_z"):
        found["step"] = (PredictStep(model, memory), (z, h, a))
    if hasattr(model, "p_action_delta_projector"):
        found["pose"] = (StepPose(model), (p, h, a))
    if hasattr(model, "decoder"):
        found["decoder"] = (DrawFrames(model), (z,))
    return found


def export_programs(
    folder: str | os.PathLike[str], model: WorldModel, cfg: ModelConfig, *, memory: bool = True
) -> list[Path]:
    """Write every program that the model allows as <name>.pt2; returns the files.

    Errors: UserError when the model has no part to export, or the place cannot be written.
    """
    import torch.export

    folder, files = Path(folder), []
    parts = programs(model, cfg, memory=memory)
    if not parts:
        raise UserError("this model has neither an encoder nor dynamics, so there is no program to export")
    require_space(folder, 4 * sum(p.nbytes for p in model.parameters()) + 1_000_000)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, (module, inputs) in parts.items():
        module = module.to("cpu").eval()
        shapes = tuple({0: torch.export.Dim("N")} for _ in inputs)
        with torch.no_grad():
            program = torch.export.export(module, inputs, dynamic_shapes=shapes)
        files.append(folder / f"{name}.pt2")
        draft = folder / f".{name}.pt2"
        with writing(files[-1]):
            torch.export.save(program, draft)
            os.replace(draft, files[-1])
    return files
