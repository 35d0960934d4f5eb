"""The evidence is what the model says, whichever model it is, and taking it changes nothing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from jepa_world_model.diagnostics.dashboard import diagnose
from jepa_world_model.diagnostics.panels import PANELS
from jepa_world_model.diagnostics.panels.gather import Witness, gather, joined
from jepa_world_model.planning.dynamics import Dynamics
from tests.diagnostics.oracle import MOVES, SPACE, see, walk, walled
from tests.diagnostics.panels.asked import Square, ask, healthy

BATCH = walk()


def test_along_true_frames_the_oracle_knows_where_it_is():
    seen = healthy()
    np.testing.assert_allclose(seen.latents["z"], seen.places, atol=1e-6)
    np.testing.assert_allclose(seen.latents["h"], seen.places, atol=1e-6)
    np.testing.assert_allclose(seen.latents["p"], seen.places - seen.places[:, :1], atol=1e-5)
    assert seen.stride == 1


def test_imagined_actions_lead_where_the_simulator_says():
    seen = healthy()
    for said in (seen.repeats, seen.returns, seen.orders):
        np.testing.assert_allclose(said.latents["h"], said.places, atol=1e-5)
        assert 0 < said.free.mean() < 1
    assert seen.returns.labels == ("right", "left", "up", "down")
    free = seen.returns.places[seen.returns.free]
    np.testing.assert_array_equal(free[:, 0], free[:, 2])
    assert len(seen.orders.labels) == 2 * 6


def test_self_fed_rollouts_stand_beside_the_frames_they_belong_to():
    fed = healthy().self_fed
    for name in ("z", "h"):
        np.testing.assert_allclose(fed.open[name], fed.true[name], atol=1e-5)
    assert fed.open["z"].shape[0] == len(fed.action_id) + 1 == 7
    np.testing.assert_array_equal(fed.film, fed.film_true)


def test_swapped_actions_are_other_actions():
    one = healthy().one_step
    gap = np.abs(one.swapped["h"] - one.after["h"]).max(1)
    assert (gap > 0).mean() > 0.8  # two different moves may both be blocked
    np.testing.assert_allclose(one.after["h"], one.true["h"], atol=1e-6)


def test_the_same_seed_gives_the_same_evidence_and_draws_no_global_number():
    torch.manual_seed(7)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    one, two, other = ask(), ask(), ask(seed=1)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_num_threads() == threads
    np.testing.assert_array_equal(one.one_step.swapped["h"], two.one_step.swapped["h"])
    np.testing.assert_array_equal(one.norms["h"], two.norms["h"])
    assert (one.one_step.swapped["h"] != other.one_step.swapped["h"]).any()


def test_frames_of_the_warm_up_are_left_out():
    task_free = Witness(Plain(), Square(), horizon=3, warmup=2)
    seen = gather(task_free, BATCH)
    assert seen.latents["z"].shape[1] == BATCH.T - 2 == seen.places.shape[1]
    assert seen.actions.shape[1] == BATCH.T - 3


class Plain(Dynamics):
    """Somebody else's model: one state, by another name."""

    space, latents, goal_latents = SPACE, ("xy",), ("xy",)

    def encode(self, frames: Tensor) -> Tensor:
        return see(frames.float())

    def step(self, state: Tensor, action: Tensor) -> Tensor:
        return walled(state + action @ MOVES)

    def read(self, state: Tensor, name: str) -> Tensor:
        return state


def test_any_model_with_encode_and_step_can_be_asked():
    found = diagnose(gather(Witness(Plain(), Square(), horizon=4), BATCH))
    assert found.faults == []
    assert found.panels["rollouts"].verdict == found.panels["plannability"].verdict == "pass"
    assert (
        found.panels["memory"].sentence
        == "This panel needs a model whose state has an h that can be set to zeros."
    )
    assert "p" not in found.panels["increments"].sentence.split(":")[0]


def test_without_a_simulator_panels_say_what_they_need():
    panels = PANELS.answer(ask(simulator=False))
    unmeasured = {name for name, panel in panels.items() if panel.verdict == "not measured"}
    assert unmeasured == {"orders", "laps", "plannability"}
    assert all("simulator" in panels[name].sentence for name in unmeasured)


def test_without_true_positions_panels_say_what_they_need():
    blind = ask(simulator=False, batch=dataclasses.replace(BATCH, state=None))
    panels = PANELS.answer(blind)
    unmeasured = {name for name, panel in panels.items() if panel.verdict == "not measured"}
    assert {"position", "same_frame", "shift", "neighbours", "revisit", "ranking", "reachable"} <= unmeasured
    for name in ("rollouts", "actions", "increments", "straight", "returns", "commutator"):
        assert panels[name].verdict != "not measured"
    assert "p_blocked" not in {one.name for one in panels["increments"].readings}


def test_a_turn_on_the_spot_meets_no_wall():
    turning = torch.cat([BATCH.state, torch.arange(BATCH.T).expand(BATCH.B, -1)[..., None]], -1)
    seen = ask(simulator=False, batch=dataclasses.replace(BATCH, state=turning))
    assert seen.places.shape[-1] == 2
    assert not seen.blocked.any()
    assert healthy().blocked.any()
    np.testing.assert_array_equal(seen.moved, healthy().moved)


def test_a_model_without_pose_has_none():
    panels = PANELS.answer(ask(without=("p_action_delta_projector",)))
    assert panels["ranking"].verdict == "not measured"
    assert panels["commutator"].sentence == "This panel needs the increments of p (any loss on delta_p)."


def test_a_measured_pose_is_compared_between_windows():
    seen = ask(pose_measurement=lambda z: 2 * z)
    np.testing.assert_allclose(seen.measured, 2 * seen.places, atol=1e-5)
    np.testing.assert_allclose(
        seen.latents["p"], seen.places - seen.places[:, :1], atol=1e-5
    )  # still integrated
    panels = PANELS.answer(seen)
    assert panels["plannability"]["p"] == pytest.approx(panels["plannability"]["straight"])
    assert panels["reachable"]["p_nodes"] == 1


def test_states_are_joined_row_by_row():
    states = [
        {"z": torch.ones(2, 1), "h": (torch.zeros(2, 3),)},
        {"z": torch.zeros(1, 1), "h": (torch.ones(1, 3),)},
    ]
    whole = joined(states)
    assert whole["z"].flatten().tolist() == [1, 1, 0]
    assert whole["h"][0].shape == (3, 3)
