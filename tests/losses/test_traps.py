"""Ways in which losses of this kind have been known to say nothing. One test a trap."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from jepa_world_model.core.barrier import leaves, reach
from jepa_world_model.latents import NAMED_GATES
from jepa_world_model.losses.measures import ScaleConfig
from tests.losses.world import draw, judge, make_batch, make_task

SOURCES = sorted(Path(__file__).parents[2].glob("jepa_world_model/losses/*.py"))
SOURCES.append(Path(__file__).parents[2] / "jepa_world_model/latents.py")


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.name)
def test_losses_never_detach_by_hand_and_never_wait_for_the_device(path):
    text = re.sub(r'""".*?"""', "", path.read_text(), flags=re.DOTALL)
    for word in (
        ".detach(",
        "no_grad",
        ".item()",
        ".cpu()",
        ".tolist()",
        ".numpy()",
        "inference_mode",
        "print(",
    ):
        assert word not in text, f"{path.name} says {word}"
    for pattern in (r"\bfloat\(view", r"\bbool\(view", r"\.nonzero\(", r"masked_select", r"if \(?\w*noop"):
        assert not re.search(pattern, text), f"{path.name} matches {pattern}"


@pytest.mark.parametrize("seed", range(3))
def test_a_pose_is_never_compared_with_its_own_sum(seed):
    """p[t+2] - p[t] against delta_p[t] + delta_p[t+1] is zero whatever the model does; these are not."""
    task = make_task(seed=seed)
    states = task.states(make_batch(seed), ("p", "delta_p", "delta_p_pair"))
    delta_p, p = states["delta_p"], states["p"]
    torch.testing.assert_close(delta_p[:, :-1] + delta_p[:, 1:], p[:, 2:] - p[:, :-2])
    assert (states["delta_p_pair"] - (p[:, 2:] - p[:, :-2])).abs().max() > 1e-3
    terms = task.terms(make_batch(seed))
    assert terms["additivity_dp"] > 1e-6
    assert terms["rollout_kstep_p"] > 1e-6


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("action_delta_dp", "dp_action_delta_projector"),
        ("dz_anchor_dp", "dz_to_dp_projector"),
        ("action_delta_h", "h_action_delta_projector"),
        ("action_delta_z", "z_action_delta_projector"),
        ("inverse_cycle_h", "inverse_action_head"),
        ("inverse_cycle_dp", "inverse_action_head"),
        ("pose_measure_p", "pose_measurement"),
        ("temporal_distance", "temporal_distance"),
        ("h2z_delta", "h2z_delta"),
    ],
)
def test_prototypes_and_projections_are_not_hidden_behind_a_barrier(name, head):
    task = make_task({name: 1.0})
    got = reach(task.terms(make_batch()), task.groups)[name]
    assert got.numeric[head] > 0
    assert got.untouched.get(head, ()) == ()


def test_no_window_prefix_is_missing_from_the_integrated_pose():
    task = make_task()
    states = task.states(make_batch(), ("p", "delta_p"))
    assert (states["p"][:, 0] == 0).all()
    torch.testing.assert_close(states["p"][:, 1], states["delta_p"][:, 0])
    pair = draw(3, 4, 2)
    p = torch.nn.functional.pad(draw(3, 5, 2).cumsum(1), (0, 0, 1, 0))
    first = pair.clone()
    first[:, 0] += 1.0
    assert judge("additivity_dp", {"delta_p_pair": first, "p": p}) != judge(
        "additivity_dp", {"delta_p_pair": pair, "p": p}
    )


def test_the_first_step_of_a_self_fed_rollout_is_equal_by_construction_and_left_out():
    task = make_task()
    states = task.states(make_batch(), ("rollout", "rollout_p", "h", "p"))
    torch.testing.assert_close(states["rollout"].h[1], states["h"][:, 1:])
    torch.testing.assert_close(states["rollout_p"][1], states["p"][:, 1:])
    assert (states["rollout"].h[2] - states["h"][:, 2:]).abs().max() > 1e-4
    ends = {"rollout_p": states["rollout_p"], "p": states["p"]}
    other = {
        "rollout_p": (ends["rollout_p"][0], ends["rollout_p"][1] + 1, *ends["rollout_p"][2:]),
        "p": ends["p"],
    }
    assert judge("rollout_kstep_p", ends) == judge("rollout_kstep_p", other)


def test_a_gate_that_one_rollout_honours_is_honoured_by_its_twin():
    """With every named gate closed and the one deliberate opening cut, no dynamics reaches the encoder."""
    closed = dict.fromkeys(NAMED_GATES, True)
    task = make_task(closed=closed, gates={"z->rollout_live": 0.0})
    measured = reach(task.terms(make_batch()), task.groups, numeric=False)
    allowed = {
        "jepa_rep", "sigreg", "sliced_w2", "vicreg_var", "vicreg_cov", "z_smooth", "z_straight",
        "action_delta_z", "inverse_dynamics_z", "rollout_project_z",
    }  # fmt: skip
    assert {name for name, got in measured.items() if "encoder" in got.structural} == allowed
    for name, got in measured.items():
        assert "decoder" not in got.structural or name == "rollout_project_z" or got.structural == {"decoder"}


def test_a_median_moves_one_sample_and_the_trimmed_mean_many():
    delta_p = draw(3, 5, 2).requires_grad_()
    moved = {}
    for statistic in ("trimmed_mean", "median"):
        value = judge("scale_dp", {"delta_p": delta_p}, options=ScaleConfig(statistic=statistic))
        (grad,) = torch.autograd.grad(value, delta_p)
        moved[statistic] = int((grad.abs().sum(-1) > 0).sum())
    assert moved["median"] == 1
    assert moved["trimmed_mean"] >= 5


@pytest.mark.parametrize("spectral_norm", [False, True])
def test_evaluating_losses_changes_no_weight(spectral_norm):
    task = make_task(model={"spectral_norm": spectral_norm})
    before = {name: p.clone() for name, p in task.model.named_parameters()}
    first = task.terms(make_batch())
    assert all(torch.equal(p, before[name]) for name, p in task.model.named_parameters())
    if not spectral_norm:  # the estimate of the largest singular value is refined at every call
        assert all(torch.equal(first[name], value) for name, value in task.terms(make_batch()).items())


def test_the_prototype_of_a_no_op_is_zero_and_prototypes_have_no_bias():
    task = make_task()
    batch = make_batch()
    proto = task.states(batch, ("delta_p_proto",))["delta_p_proto"]
    assert (proto[batch.noop] == 0).all()
    assert (proto[~batch.noop].abs().sum(-1) > 0).all()
    assert task.model.dp_action_delta_projector(torch.zeros(1, batch.space.dim)).abs().max() == 0


def test_a_loss_that_reads_only_constants_and_heads_has_no_leaf_elsewhere():
    for name in ("pose_measure_p", "temporal_distance", "h2z_delta", "z2h", "z2h_init_zero", "z2h_match_h"):
        task = make_task({name: 1.0})
        (group,) = task.derived()[name]
        found = leaves(task.terms(make_batch())[name])
        assert found == set(task.groups[group].values()), name
