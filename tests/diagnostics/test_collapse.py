"""The collapse guard: silent while states vary, one sentence when one no longer does."""

from __future__ import annotations

import pytest

from jepa_world_model.diagnostics.collapse import STATES, CollapseGuard

HEALTHY = {"std_z": 1.0, "rank_z": 8.0, "std_h": 0.5, "rank_h": 6.0, "std_p": 0.2, "rank_p": 1.9}


def seen(**changes: float) -> dict[str, float]:
    return {f"eval/{name}": value for name, value in (HEALTHY | changes).items()}


def test_states_that_vary_are_passed_over():
    guard = CollapseGuard(HEALTHY)
    assert guard.check(seen(std_z=0.3, rank_z=3.0, rank_p=1.0)) == []


@pytest.mark.parametrize("state", STATES)
def test_a_state_that_stands_still_is_told_once_with_what_to_try(state):
    guard = CollapseGuard(HEALTHY)
    (found,) = guard.check(seen(**{f"std_{state}": 1e-3 * HEALTHY[f"std_{state}"]}))
    assert (found.kind, found.module) == ("collapse", state)
    assert found.text.startswith(f"{state} collapses: its standard deviation is ")
    assert "--loss-weights." in found.text
    assert guard.check(seen(**{f"std_{state}": 0.0})) == []


def test_a_rank_far_below_the_best_so_far_is_a_collapse():
    guard = CollapseGuard(HEALTHY)
    assert guard.check(seen(rank_z=40.0)) == []
    (found,) = guard.check(seen(rank_z=8.0))
    assert "effective rank is 8, after 40" in found.text


def test_a_state_that_was_a_line_from_the_start_is_told():
    guard = CollapseGuard(HEALTHY | {"rank_h": 1.2})
    (found,) = guard.check(seen(rank_h=1.2))
    assert found.text.startswith("h collapses: its effective rank is only 1.2; ")


def test_a_pose_on_a_line_may_be_a_world_with_one_way():
    assert CollapseGuard(HEALTHY | {"rank_p": 1.0}).check(seen(rank_p=1.0)) == []


def test_states_that_are_not_measured_are_no_collapse():
    assert CollapseGuard({}).check({"eval/recon_mse": 0.1}) == []
