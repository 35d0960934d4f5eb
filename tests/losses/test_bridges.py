"""Bridges between frame states and dynamics states."""

from __future__ import annotations

import pytest
import torch

from jepa_world_model.losses.bridges import noop_action
from tests.losses.world import SPACES, A, draw, heads, judge, make_batch


def test_h2z_is_zero_for_a_right_read_out_and_counts_the_first_frame():
    z = draw(2, 5, 4)
    assert judge("h2z", {"z": z, "z_from_h": z}) == 0
    off = z.clone()
    off[:, 0] += 1.0
    assert judge("h2z", {"z": z, "z_from_h": off}).item() == pytest.approx(1 / 5)


def test_z2h_is_zero_when_the_read_out_inverts_the_lift():
    z = draw(2, 5, 4)
    assert judge("z2h", {"z": z, "h_from_z": 2 * z}, model=heads(h_to_z=lambda h: h / 2)).item() == 0
    assert judge("z2h", {"z": z, "h_from_z": 2 * z}, model=heads(h_to_z=lambda h: h)).item() > 0.1


def test_z2h_init_zero_is_zero_for_what_a_cold_start_leads_to():
    batch = make_batch(frames=6)
    z, noop = draw(3, 6, 4), torch.eye(A)[0]

    def cold(z, h, a):
        assert h.abs().max() == 0
        assert torch.equal(a, noop.expand_as(a))
        return z + a.sum(-1, keepdim=True)

    model = heads(predictor=cold)
    assert judge("z2h_init_zero", {"z": z, "h_from_z": z + 1}, batch=batch, model=model) == 0
    assert judge("z2h_init_zero", {"z": z, "h_from_z": z}, batch=batch, model=model).item() == pytest.approx(
        1
    )


@pytest.mark.parametrize("kind", SPACES)
def test_the_resting_action_is_that_of_the_action_space(kind):
    batch = make_batch(kind=kind)

    class View:
        pass

    View.batch = batch
    rest = noop_action(View)
    assert rest.shape == (A,)
    assert batch.actions[batch.noop].eq(rest).all()


def test_z2h_match_h_leaves_out_the_first_frame_which_is_equal_by_construction():
    h = draw(2, 5, 4)
    off = h.clone()
    off[:, 0] += 1.0
    assert judge("z2h_match_h", {"h": h, "h_from_z": off}) == 0
    off[:, 1] += 1.0
    assert judge("z2h_match_h", {"h": h, "h_from_z": off}).item() == pytest.approx(1 / 4)
    assert judge("z2h_match_h", {"h": h, "h_from_z": off}, config={"warmup_frames_h": 2}) == 0


def test_h2z_delta_is_zero_when_h_tells_the_last_change_of_z():
    z = draw(2, 5, 4)
    h = torch.nn.functional.pad(z[:, 1:] - z[:, :-1], (0, 0, 1, 0))
    assert judge("h2z_delta", {"z": z, "h": h}, model=heads(h2z_delta=lambda h: h)) == 0
    assert judge(
        "h2z_delta", {"z": z, "h": h}, model=heads(h2z_delta=lambda h: h + 1)
    ).item() == pytest.approx(1)
