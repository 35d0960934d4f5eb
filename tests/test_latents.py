"""The latent table: every row against its slow twin, the modes, and the gates."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from jepa_world_model.core.errors import UserError
from jepa_world_model.latents import (
    CLOSED_BY_DESIGN,
    NAMED_GATES,
    OPEN_BY_DESIGN,
    Settings,
    named_gates,
    world_graph,
)
from tests.losses.world import B, T, make_batch, make_task, tiny
from tests.reference.rollouts import (
    open_loop_slow,
    pose_open_loop_slow,
    pose_slow,
    teacher_forced_slow,
)

HORIZON = 4


def table(names, batch=None, **kwargs):
    task = make_task(**kwargs)
    batch = batch or make_batch()
    with torch.no_grad():
        return task.model, batch, task.states(batch, names)


@torch.no_grad()
@pytest.mark.parametrize("h_init", ["z_to_h", "zero"])
def test_dynamics_and_pose_equal_their_slow_twins(h_init):
    names = ("z", "h", "z_from_h", "z_hat", "rollout", "rollout_live", "p", "rollout_p", "delta_p")
    model, batch, s = table(names, model={"h_init": h_init})
    for b in range(B):
        z, h, p, a = s["z"][b], s["h"][b], s["p"][b], batch.actions[b]
        first = model.z_to_h(z[0]) if h_init == "z_to_h" else torch.zeros(h.shape[-1])
        torch.testing.assert_close(h, teacher_forced_slow(model, z, a, first))
        torch.testing.assert_close(p, pose_slow(model, h, a, p.shape[-1]))
        torch.testing.assert_close(s["z_hat"][b], model.h_to_z(h)[1:])
        for k in range(HORIZON + 1):
            assert s["rollout"].h[k].shape[:2] == (B, T - k)
            for t in range(T - k):
                slow_z, slow_h = open_loop_slow(model, z, h, a, t, k)
                torch.testing.assert_close(s["rollout"].z[k][b, t], slow_z)
                torch.testing.assert_close(s["rollout"].h[k][b, t], slow_h)
                torch.testing.assert_close(
                    s["rollout_p"][k][b, t], pose_open_loop_slow(model, z, h, p, a, t, k)
                )
    for live, fixed in zip(
        s["rollout_live"].h + s["rollout_live"].z, s["rollout"].h + s["rollout"].z, strict=True
    ):
        assert torch.equal(live, fixed)


@torch.no_grad()
def test_the_other_rows_are_what_they_say():
    names = (
        "x",
        "z",
        "h",
        "p",
        "h_back",
        "undoing_action",
        "delta_p_back",
        "delta_p_pair",
        "h_from_z",
        "x_hat",
    )
    model, batch, s = table(
        (*names, "x_from_z_hat", "z_hat", "x_rollout", "rollout", "x_rollout_live", "z_again")
    )
    h, p, a, g = s["h"], s["p"], batch.actions, model.p_action_delta_projector
    assert s["x"].min() >= 0
    assert s["x"].max() <= 1
    torch.testing.assert_close(s["x"] * 255, batch.frames.float())
    undo = model.inverse_action_head(h[:, :-1], a)
    torch.testing.assert_close(s["undoing_action"], undo)
    torch.testing.assert_close(s["h_back"], model.predictor(model.h_to_z(h[:, 1:]), h[:, 1:], undo))
    torch.testing.assert_close(s["delta_p_back"], g(p[:, 1:], h[:, 1:], undo))
    first = g(torch.zeros_like(p[:, 2:]), h[:, :-2], a[:, :-1])
    torch.testing.assert_close(s["delta_p_pair"], first + g(first, h[:, :-2], a[:, 1:]))
    torch.testing.assert_close(s["h_from_z"], model.z_to_h(s["z"]))
    torch.testing.assert_close(s["x_hat"], model.decoder(s["z"]))
    torch.testing.assert_close(s["x_from_z_hat"], model.decoder(s["z_hat"]))
    for k in range(HORIZON + 1):
        drawn = model.decoder(s["rollout"].z[k]) if k else s["x"]
        torch.testing.assert_close(s["x_rollout"][k], drawn)
        torch.testing.assert_close(s["x_rollout_live"][k], drawn)
        if k:
            again = model.encoder(drawn.flatten(0, 1)).unflatten(0, drawn.shape[:2])
            torch.testing.assert_close(s["z_again"][k - 1], again)


@torch.no_grad()
def test_anchored_frames_are_the_true_start_and_the_decoded_change():
    model, _, s = table(("x", "z", "rollout", "x_rollout", "x_rollout_live"), render_mode="anchor_delta")
    for k in range(1, HORIZON + 1):
        starts = T - k
        change = model.decoder(s["rollout"].z[k]) - model.decoder(s["z"][:, :starts])
        torch.testing.assert_close(s["x_rollout"][k], s["x"][:, :starts] + change)
        torch.testing.assert_close(s["x_rollout_live"][k], s["x_rollout"][k])


@torch.no_grad()
def test_without_memory_h_is_a_function_of_the_last_frame_and_action_alone():
    batch = make_batch()
    frames = batch.frames.clone()
    frames[:, 0] = 255 - frames[:, 0]
    other = dataclasses.replace(batch, frames=frames)
    names = ("z", "h", "rollout", "rollout_p", "p", "h_back", "undoing_action", "z_hat")
    for forced in (False, True):
        model, _, here = table(names, batch, force_h_zero=forced)
        _, _, there = table(names, other, force_h_zero=forced)
        assert torch.equal(here["h"][:, 2:], there["h"][:, 2:]) == forced
        assert torch.equal(here["rollout"].h[2][:, 1:], there["rollout"].h[2][:, 1:]) == forced
    zeros = torch.zeros_like(here["h"])
    assert (here["h"][:, 0] == 0).all()
    torch.testing.assert_close(
        here["h"][:, 1:], model.predictor(here["z"][:, :-1], zeros[:, 1:], batch.actions)
    )
    torch.testing.assert_close(here["rollout"].h[1], here["h"][:, 1:])
    second = model.predictor(here["rollout"].z[1][:, :-1], zeros[:, 2:], batch.actions[:, 1:])
    torch.testing.assert_close(here["rollout"].h[2], second)
    torch.testing.assert_close(here["rollout_p"][1], here["p"][:, 1:])
    torch.testing.assert_close(
        here["h_back"], model.predictor(here["z_hat"], zeros[:, 1:], here["undoing_action"])
    )


def test_a_rollout_is_no_longer_than_the_window():
    _, _, s = table(("rollout",), make_batch(frames=5), rollout_horizon=50)
    assert [h.shape[1] for h in s["rollout"].h] == [5, 4, 3, 2, 1]


def test_all_frames_are_encoded_in_one_call():
    task, calls = make_task(), []
    task.model.encoder.register_forward_hook(lambda _, args, out: calls.append(args[0].shape))
    task.states(make_batch(), ("x_rollout", "rollout_p", "x_hat", "h_from_z"))
    assert calls == [(B * T, 3, 16, 16)]


def test_nothing_is_computed_that_no_loss_asked_for():
    task, calls = make_task({"recon": 1.0}), []
    task.model.predictor.register_forward_hook(lambda *_: calls.append(1))
    task.terms(make_batch())
    assert calls == []


def test_named_gates_close_and_open_their_edges_and_no_others():
    graph = world_graph(Settings(model=tiny()))
    usual = graph.gates(
        named_gates(detach_z_from_h_and_p=True, detach_decoder=False, pose_delta_detach_h=True)
    )
    closed = {edge for edge, keep in usual.items() if keep == 0}
    expected = {*NAMED_GATES["detach_z_from_h_and_p"], *NAMED_GATES["pose_delta_detach_h"], *CLOSED_BY_DESIGN}
    assert closed == expected
    assert not set(OPEN_BY_DESIGN) & closed
    owned = [edge for edges in NAMED_GATES.values() for edge in edges]
    assert len(owned) == len(set(owned))
    assert not set(owned) & {*CLOSED_BY_DESIGN, *OPEN_BY_DESIGN}
    with pytest.raises(KeyError):
        named_gates(detach_everything=True)
    with pytest.raises(UserError, match="did you mean"):
        graph.gates({"z->rolout": 0.0})


def test_h_from_zero_has_no_edge_from_the_lifted_frame():
    assert "h_from_z->h" not in world_graph(Settings(model=tiny(h_init="zero"))).edge_names
    assert "h_from_z->h" not in world_graph(Settings(model=tiny(), force_h_zero=True)).edge_names
    assert "h_from_z->h" in world_graph(Settings(model=tiny())).edge_names


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="rollout_horizon"):
        Settings(model=tiny(), rollout_horizon=0)
    with pytest.raises(ValueError, match="render_mode"):
        Settings(model=tiny(), render_mode="sideways")


def test_pose_increments_are_as_exact_under_autocast_as_without():
    names = ("h", "delta_p", "p", "delta_p_pair", "rollout_p", "delta_p_back")
    task, batch = make_task(), make_batch()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        s = task.states(batch, names)
    h, a, p = s["h"], batch.actions, s["p"]
    with torch.no_grad():
        increments = task.model.p_action_delta_projector(p[:, :-1], h[:, :-1], a)
        coarse = task.model.p_action_delta_projector.to(torch.bfloat16)(
            *(x.bfloat16() for x in (p[:, :-1], h[:, :-1], a))
        )
    torch.testing.assert_close(s["delta_p"], increments)
    torch.testing.assert_close(s["rollout_p"][1], p[:, 1:])
    assert (coarse - increments).abs().max() > 1e-3  # bf16 would be seen
