"""Action algebra on z."""

from __future__ import annotations

import pytest
import torch

from tests.losses.world import A, as_imagined, draw, heads, judge, make_batch


def test_action_delta_z_is_zero_where_z_follows_its_actions():
    batch, effects = make_batch(), draw(A, 4)
    z = torch.nn.functional.pad((batch.actions @ effects).cumsum(1), (0, 0, 1, 0))
    right = heads(z_action_delta_projector=lambda z, a: a @ effects)
    assert judge("action_delta_z", {"z": z}, batch=batch, model=right).item() == pytest.approx(0, abs=1e-12)
    wrong = heads(z_action_delta_projector=lambda z, a: a @ effects + 1)
    assert judge("action_delta_z", {"z": z}, batch=batch, model=wrong).item() == pytest.approx(1)


def test_rollout_kstep_z_is_zero_for_right_rollouts_and_counts_the_first_step():
    z = draw(2, 6, 4)
    steps = as_imagined(z, z)
    assert judge("rollout_kstep_z", {"z": z, "rollout_live": steps}) == 0
    off = type(steps)(z=(steps.z[0], steps.z[1] + 1, *steps.z[2:]), h=steps.h)
    assert judge("rollout_kstep_z", {"z": z, "rollout_live": off}).item() == pytest.approx(
        5 / (5 + 4 + 3 + 2)
    )


IMAGINED = ("rollout_recon_z", "rollout_recon_multi_box_z")
CHANGES = ("rollout_recon_delta_z", "rollout_recon_multi_box_delta_z")


@pytest.mark.parametrize("name", IMAGINED + CHANGES)
def test_imagined_frames_and_their_changes_are_judged_against_those_that_come(name):
    x = torch.rand(2, 6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    drawn = tuple(x[:, k:] for k in range(5))
    assert judge(name, {"x": x, "x_rollout_live": drawn}).item() == pytest.approx(0, abs=1e-7)
    still = tuple(x[:, : 6 - k] for k in range(5))  # as if nothing ever changed
    assert judge(name, {"x": x, "x_rollout_live": still}) > 0.05
    brighter = tuple(d + 0.5 for d in drawn)
    assert (judge(name, {"x": x, "x_rollout_live": brighter}) > 1e-3) == (name in IMAGINED)


def test_rollout_project_z_is_zero_when_the_imagined_frame_encodes_to_the_imagined_state():
    z = draw(2, 6, 4)
    steps = as_imagined(z, z)
    again = tuple(steps.z[1:])
    assert judge("rollout_project_z", {"z_again": again, "rollout_live": steps}) == 0
    off = tuple(s + 1 for s in again)
    assert judge("rollout_project_z", {"z_again": off, "rollout_live": steps}).item() == pytest.approx(1)
