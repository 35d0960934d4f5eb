"""Prediction of the next frame's state."""

from __future__ import annotations

import pytest
import torch

from jepa_world_model.losses.prediction import OpenLoopConfig
from tests.losses.world import as_imagined, draw, judge


def test_jepa_and_jepa_rep_are_zero_for_a_right_prediction_and_the_mse_otherwise():
    z = draw(2, 5, 4)
    for name in ("jepa", "jepa_rep"):
        assert judge(name, {"z": z, "z_hat": z[:, 1:]}) == 0
        assert judge(name, {"z": z, "z_hat": z[:, 1:] + 0.5}).item() == pytest.approx(0.25)


def test_jepa_with_z_norm_compares_directions_alone():
    z = draw(2, 5, 4)
    assert judge("jepa", {"z": z, "z_hat": 3 * z[:, 1:]}, config={"z_norm": True}).item() == pytest.approx(
        0, abs=1e-6
    )
    assert judge("jepa", {"z": z, "z_hat": -z[:, 1:]}, config={"z_norm": True}).item() == pytest.approx(2)


def test_frames_before_the_warm_up_do_not_count():
    z, z_hat = draw(2, 6, 4), draw(2, 6, 4)[:, 1:].clone()
    z_hat[:, 0] += 1.0  # frame 1, within a warm-up of 2 frames
    assert judge("jepa", {"z": z, "z_hat": z_hat}) > 0
    assert judge("jepa", {"z": z, "z_hat": z_hat}, config={"warmup_frames_h": 2}) == 0
    z_hat[:, 1] += 1.0  # frame 2
    assert judge("jepa", {"z": z, "z_hat": z_hat}, config={"warmup_frames_h": 2}) > 0


def test_a_warm_up_as_long_as_the_window_is_refused():
    z = draw(2, 5, 4)
    with pytest.raises(ValueError, match="warmup_frames_h"):
        judge("jepa", {"z": z, "z_hat": z[:, 1:]}, config={"warmup_frames_h": 5})


def test_h2z_is_jepa_after_the_first_frame():
    z, z_from_h = draw(2, 5, 4), draw(2, 5, 4, seed=1)
    z_from_h[:, 0] = z[:, 0]
    jepa = judge("jepa", {"z": z, "z_hat": z_from_h[:, 1:]})
    assert judge("h2z", {"z": z, "z_from_h": z_from_h}).item() == pytest.approx(jepa.item() * 4 / 5)


def test_jepa_open_loop_is_zero_for_right_rollouts_and_weighs_late_steps_more_on_request():
    z = draw(2, 6, 4)
    assert judge("jepa_open_loop", {"z": z, "rollout": as_imagined(z, z)}) == 0
    steps = as_imagined(z, z)
    off = type(steps)(z=tuple(s + (1.0 if k == 4 else 0.0) for k, s in enumerate(steps.z)), h=steps.h)
    assert judge("jepa_open_loop", {"z": z, "rollout": off}).item() == pytest.approx(1 / 4)
    early = type(steps)(z=tuple(s + (1.0 if k == 1 else 0.0) for k, s in enumerate(steps.z)), h=steps.h)
    linear = OpenLoopConfig(weighting="linear")
    assert judge("jepa_open_loop", {"z": z, "rollout": off}, options=linear).item() == pytest.approx(1 / 4)
    assert judge("jepa_open_loop", {"z": z, "rollout": early}, options=linear).item() == pytest.approx(1 / 16)
    with pytest.raises(ValueError, match="weighting"):
        OpenLoopConfig(weighting="late")


def test_every_step_of_jepa_open_loop_counts_alike_however_few_its_starts():
    z = torch.zeros(1, 5, 1)
    steps = as_imagined(z, z)
    off = type(steps)(z=tuple(s + float(k > 0) for k, s in enumerate(steps.z)), h=steps.h)
    assert judge("jepa_open_loop", {"z": z, "rollout": off}).item() == pytest.approx(1)
