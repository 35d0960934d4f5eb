"""ModelConfig: what it derives, and what it refuses."""

from __future__ import annotations

import pytest

from jepa_world_model.core.config import load_config
from jepa_world_model.model_config import ModelConfig, halved


def test_halving_rounds_up():
    assert halved(64, 3) == (64, 32, 16, 8)
    assert halved(65, 3) == (65, 33, 17, 9)
    assert halved(1, 2) == (1, 1, 1)


def test_encoder_and_decoder_have_maps_of_their_own():
    cfg = ModelConfig(image_size=65, encoder_schedule=(8, 8), decoder_schedule=(8, 8, 8))
    assert cfg.encoder_sizes == (65, 33, 17)
    assert cfg.decoder_sizes == (65, 33, 17, 9)


def test_the_smallest_image_is_named_when_one_cannot_be_halved():
    with pytest.raises(ValueError, match=r"image_size 7 cannot be halved 3 times.*use at least 8 px"):
        ModelConfig(image_size=7)
    with pytest.raises(ValueError, match=r"model.decoder_schedule; use at least 16 px"):
        ModelConfig(image_size=15, decoder_schedule=(8,) * 4)
    ModelConfig(image_size=8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"z_dim": 0}, "z_dim must be 1 or above, got 0"),
        ({"in_channels": 0}, "in_channels must be 1 or above"),
        ({"pose_dim": -1}, "pose_dim must be 1 or above"),
        ({"action_dim": -1}, "action_dim must be 0 or above"),
        ({"warmup_frames_h": -1}, "warmup_frames_h must be 0 or above"),
        ({"keypoints": -1}, "keypoints must be 0 or above"),
        ({"encoder_schedule": ()}, "encoder_schedule needs at least one number of channels"),
        ({"decoder_schedule": (8, 0)}, "decoder_schedule needs at least one number of channels"),
        ({"h_init": "none"}, "h_init must be z_to_h or zero, got 'none'"),
        ({"action_kind": "text"}, "action_kind must be discrete, multi_binary, continuous or empty"),
        ({"backbone_weights": "a.pt"}, "no model.backbone is chosen"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_in_one_sentence(changes, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(**changes)


def test_flags_reach_every_field():
    argv = [
        "--encoder-schedule",
        "8",
        "16",
        "--pose-dim",
        "4",
        "--h-init",
        "zero",
        "--no-pose-delta-detach-h",
    ]
    cfg = load_config(ModelConfig, argv, prog="test")
    assert (cfg.encoder_schedule, cfg.pose_dim, cfg.h_init, cfg.pose_delta_detach_h) == (
        (8, 16),
        4,
        "zero",
        False,
    )


@pytest.mark.parametrize("change", [{"keypoints": 0}, {"backbone": "resnet18"}])
def test_a_readout_needs_something_to_read(change):
    with pytest.raises(ValueError, match=r"model\.flat_readout is off, so z needs"):
        ModelConfig(flat_readout=False, **change)
