"""Action algebra on p: odometry."""

from __future__ import annotations

import pytest
import torch

from jepa_world_model.losses.measures import ScaleConfig, trimmed_mean, typical_move
from tests.losses.world import draw, heads, judge, make_batch

EFFECTS = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])  # of action 0 (the no-op) to 3


def odometry(batch) -> tuple[torch.Tensor, torch.Tensor]:
    """A pose that every action moves by its own unit step: delta_p [B,T-1,2], p [B,T,2]."""
    delta_p = batch.actions @ EFFECTS
    return delta_p, torch.nn.functional.pad(delta_p.cumsum(1), (0, 0, 1, 0))


def test_an_action_has_one_increment():
    delta_p, _ = odometry(make_batch())
    assert judge("action_delta_dp", {"delta_p": delta_p, "delta_p_proto": delta_p}) == 0
    states = {"delta_p": delta_p, "delta_p_proto": delta_p + 0.5}
    assert judge("action_delta_dp", states).item() == pytest.approx(0.25)


def test_increments_add_up():
    delta_p, p = odometry(make_batch())
    pair = delta_p[:, :-1] + delta_p[:, 1:]
    assert judge("additivity_dp", {"delta_p_pair": pair, "p": p}).item() == pytest.approx(0, abs=1e-12)
    assert judge("additivity_dp", {"delta_p_pair": pair + 1, "p": p}).item() == pytest.approx(1)


def test_imagined_poses_arrive_where_true_ones_do():
    _, p = odometry(make_batch())
    steps = tuple(p[:, k:] for k in range(5))
    assert judge("rollout_kstep_p", {"rollout_p": steps, "p": p}) == 0
    off = (*steps[:4], steps[4] + 1)
    assert judge("rollout_kstep_p", {"rollout_p": off, "p": p}).item() == pytest.approx(2 / (4 + 3 + 2))


def test_a_move_has_length_one_and_no_ops_do_not_count():
    batch = make_batch()
    delta_p, _ = odometry(batch)
    assert batch.noop.any()
    assert judge("scale_dp", {"delta_p": delta_p}, batch=batch) == 0
    assert judge("scale_dp", {"delta_p": 3 * delta_p}, batch=batch).item() == pytest.approx(4)
    assert judge("scale_dp", {"delta_p": 0 * delta_p}, batch=batch).item() == pytest.approx(1)
    median = ScaleConfig(statistic="median", target=3.0)
    assert judge("scale_dp", {"delta_p": 3 * delta_p}, batch=batch, options=median).item() == pytest.approx(0)


def test_the_trimmed_mean_leaves_out_both_ends_of_the_valid_values():
    values = torch.tensor([100.0, 1, 2, 3, 4, 5, 6, 7, 8, -50, 9999])
    valid = torch.tensor([True] * 10 + [False])
    assert trimmed_mean(values, valid, 0.1).item() == pytest.approx(4.5)
    assert trimmed_mean(values, valid, 0.0).item() == pytest.approx((100 + 36 - 50) / 10)
    assert trimmed_mean(values, ~valid & False, 0.1) == 0
    for trim in (0.0, 0.1, 0.49):
        assert trimmed_mean(values[:1], valid[:1], trim) == 100


def test_a_batch_of_no_ops_alone_has_no_typical_move():
    batch = make_batch()
    delta_p, still = odometry(batch)[0], torch.ones_like(batch.noop)
    for statistic in ("trimmed_mean", "median"):
        assert typical_move(delta_p, still, ScaleConfig(statistic=statistic)) == 0


def test_an_increment_is_a_linear_image_of_the_change_of_z():
    delta_p, _ = odometry(make_batch())
    z = torch.nn.functional.pad((delta_p @ draw(2, 5)).cumsum(1), (0, 0, 1, 0))
    inverse = torch.linalg.pinv(draw(2, 5))
    right, blind = (heads(dz_to_dp_projector=f) for f in (lambda d: d @ inverse, lambda d: d[..., :2] * 0))
    assert judge("dz_anchor_dp", {"delta_p": delta_p, "z": z}, model=right).item() == pytest.approx(
        0, abs=1e-9
    )
    assert judge("dz_anchor_dp", {"delta_p": delta_p, "z": z}, model=blind) > 0.1


def test_a_no_op_does_not_change_the_pose():
    batch = make_batch()
    delta_p, _ = odometry(batch)
    assert judge("noop_still_dp", {"delta_p": delta_p}, batch=batch) == 0
    assert judge("noop_still_dp", {"delta_p": delta_p + 1}, batch=batch).item() == pytest.approx(2)


def test_an_action_and_its_inverse_sum_to_zero_where_something_moved():
    batch = make_batch()
    delta_p, _ = odometry(batch)
    assert judge("inverse_cycle_dp", {"delta_p": delta_p, "delta_p_back": -delta_p}, batch=batch) == 0
    # Off by 1 in both coordinates everywhere: only the steps that moved count.
    value = judge("inverse_cycle_dp", {"delta_p": delta_p, "delta_p_back": 1 - delta_p}, batch=batch)
    assert value.item() == pytest.approx(2 * (~batch.noop).float().mean().item())


def test_a_measurement_is_right_when_its_differences_are_the_integrated_ones():
    _, p = odometry(make_batch())
    away = p + draw(len(p), 1, 2)  # every window has an origin of its own
    assert judge("pose_measure_p", {"z": away, "p": p}, model=heads(pose_measurement=lambda z: z)) < 1e-12
    wrong = heads(pose_measurement=lambda z: z.sin())
    value = judge("pose_measure_p", {"z": away, "p": p}, model=wrong)
    e = away.sin() - p
    i, j = torch.triu_indices(e.shape[1], e.shape[1], 1)
    assert value.item() == pytest.approx((e[:, j] - e[:, i]).square().mean().item(), rel=1e-5)


def test_a_blocked_move_is_no_move():
    delta_p, p = odometry(make_batch())
    model = heads(pose_measurement=lambda z: z)
    assert judge("pose_correct_dp", {"delta_p": delta_p, "z": p}, model=model).item() == pytest.approx(
        0, abs=1e-12
    )
    assert judge("pose_correct_dp", {"delta_p": delta_p, "z": p * 0}, model=model).item() == pytest.approx(
        delta_p.square().mean().item()
    )


def test_impossible_options_are_refused():
    for wrong, words in [
        ({"statistic": "mode"}, "statistic"),
        ({"trim": 0.5}, "trim"),
        ({"target": 0.0}, "target"),
    ]:
        with pytest.raises(ValueError, match=words):
            ScaleConfig(**wrong)
