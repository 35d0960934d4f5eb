"""Small models for tests."""

from __future__ import annotations

from typing import Any

from jepa_world_model.model_config import ModelConfig

SMALL: dict[str, Any] = {
    "image_size": 32, "encoder_schedule": (8, 16, 16), "decoder_schedule": (16, 8, 8), "keypoints": 4,
    "z_dim": 12, "state_dim": 10, "hidden_dim": 16, "pose_dim": 3, "action_dim": 5,
}  # fmt: skip


def small(**changes: Any) -> ModelConfig:
    """A configuration of a few thousand parameters."""
    return ModelConfig(**(SMALL | changes))
