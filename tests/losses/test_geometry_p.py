"""Geometry of the pose."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from jepa_world_model.losses.geometry_p import (
    ClosureConfig,
    PairConfig,
    RankConfig,
    TemporalDistanceConfig,
    rank_counts,
)
from tests.losses.world import draw, heads, judge, make_batch

PLAIN = RankConfig(softness=0.0)


def walk(batch) -> torch.Tensor:
    """A straight walk in which no-ops rest: [B,T,2]."""
    steps = (~batch.noop).float()[..., None] * torch.tensor([1.0, 0.0])
    return torch.nn.functional.pad(steps.cumsum(1), (0, 0, 1, 0))


def test_later_is_nearer_to_the_goal_and_further_is_not():
    batch = make_batch()
    p = walk(batch)
    assert judge("geometry_rank_p", {"p": p, "z": p}, batch=batch, options=PLAIN) == 0
    assert judge("geometry_rank_p", {"p": p, "z": p}, batch=batch) < 1e-4  # the rounded corner
    away = torch.tensor([0.0, 3, 1, 2, 0.5, 0]).view(1, 6, 1).expand(3, 6, 2)
    assert judge("geometry_rank_p", {"p": away, "z": p}, batch=batch, options=PLAIN) > 0.1


def test_a_rank_loss_that_is_already_won_still_has_a_gradient():
    batch = make_batch()
    p = walk(batch).requires_grad_()
    (grad,) = torch.autograd.grad(judge("geometry_rank_p", {"p": p, "z": p}, batch=batch), p)
    assert grad.isfinite().all()
    assert grad.norm() > 0


def test_pairs_with_only_no_ops_between_or_at_the_same_place_do_not_count():
    noop = torch.tensor([[True, False, False]])
    z = torch.tensor([[[0.0], [5.0], [6.0], [0.0]]])
    i, j = torch.triu_indices(4, 4, 1)
    counted = {
        (a, b)
        for a, b, c in zip(i.tolist(), j.tolist(), rank_counts(z, noop, i, j, 0.25)[0], strict=True)
        if c
    }
    assert counted == {(0, 2), (1, 2), (1, 3), (2, 3)}  # not 0-1 (a no-op), not 0-3 (the same z)


def test_a_batch_without_a_pair_that_counts_scores_zero():
    batch = make_batch()
    still = dataclasses.replace(batch, noop=torch.ones_like(batch.noop))
    assert judge("geometry_rank_p", {"p": draw(3, 6, 2), "z": draw(3, 6, 2)}, batch=still) == 0


def test_the_same_place_has_the_same_pose():
    z = torch.tensor([0.0, 1, 2, 3, 2, 0]).view(1, 6, 1).expand(3, 6, 1)
    options = ClosureConfig(min_gap=5, scale=0.1)
    assert judge("loop_closure_p", {"p": z, "z": z}, options=options) == 0
    clock = torch.arange(6.0).view(1, 6, 1).expand(3, 6, 1)
    assert judge("loop_closure_p", {"p": clock, "z": z}, options=options).item() == pytest.approx(
        25, rel=1e-4
    )
    elsewhere = torch.arange(6.0).view(1, 6, 1).expand(3, 6, 1)
    assert judge("loop_closure_p", {"p": clock, "z": elsewhere}, options=options).item() == pytest.approx(
        0, abs=1e-6
    )
    with pytest.raises(ValueError, match="min_gap"):
        judge("loop_closure_p", {"p": z, "z": z}, options=ClosureConfig(min_gap=6))


def test_a_fold_scores_no_better_than_a_path_that_never_returns():
    """Neighbours that count would reward a pose that swings to and fro, every step of length 1."""
    z = torch.arange(6.0).view(1, 6, 1).expand(3, 6, 1)
    zigzag = z % 2
    scores = {
        scale: [
            judge("loop_closure_p", {"p": p, "z": z}, options=ClosureConfig(min_gap=2, scale=scale))
            for p in (z, zigzag)
        ]
        for scale in (ClosureConfig().scale, 0.5)
    }
    straight, folded = scores[0.5]
    assert straight > max(0.01, 10 * folded)
    assert scores[ClosureConfig().scale][0] < 1e-6


def test_distances_in_pose_go_with_distances_in_z():
    z = draw(3, 6, 2)
    turn = torch.tensor([[0.6, 0.8], [-0.8, 0.6]])
    assert judge("distance_corr_p", {"p": 3 * z @ turn + 1, "z": z}).item() == pytest.approx(0, abs=1e-5)
    unrelated = judge("distance_corr_p", {"p": draw(3, 6, 2, seed=5), "z": z})
    assert unrelated > 0.3


def test_the_number_of_pairs_is_bounded_and_drawn_anew_each_seed():
    p, z = draw(3, 6, 2), draw(3, 6, 2, seed=1)
    few = PairConfig(max_pairs=9)
    values = {judge("distance_corr_p", {"p": p, "z": z}, options=few, seed=seed).item() for seed in range(5)}
    assert len(values) > 1
    again = {judge("distance_corr_p", {"p": p, "z": z}, options=few, seed=3).item() for _ in range(3)}
    assert len(again) == 1


def temporal(q, batch=None, **options) -> float:
    z = torch.arange(6.0).view(1, 6, 1).expand(3, 6, 1) + 100 * torch.arange(3.0).view(3, 1, 1)
    loss_options = TemporalDistanceConfig(**options)
    batch = batch or dataclasses.replace(make_batch(), episode=torch.arange(3))
    return judge(
        "temporal_distance", {"z": z}, batch=batch, model=heads(temporal_distance=q), options=loss_options
    ).item()


def knows(z_a: torch.Tensor, z_b: torch.Tensor) -> torch.Tensor:
    gap = (z_b - z_a)[..., 0]
    return torch.where(gap.abs() < 50, gap.clamp(min=0).log1p(), torch.tensor(math.log1p(64)))


def test_steps_between_frames_of_one_episode_and_a_cap_between_two():
    assert temporal(knows) == pytest.approx(0, abs=1e-10)
    assert temporal(lambda a, b: knows(a, b) * 0) > 0.1
    assert temporal(lambda a, b: knows(b, a)) > 0.05  # the way back is not the way
    assert temporal(knows, cap=8) > 0.01


def test_frames_of_the_same_episode_are_no_strangers():
    one = dataclasses.replace(make_batch(), episode=torch.zeros(3, dtype=torch.int64))
    only_near = lambda a, b: torch.where((b - a)[..., 0].abs() < 50, knows(a, b), torch.tensor(1e6))
    assert temporal(only_near, one) == pytest.approx(0, abs=1e-10)


def test_too_long_costs_nine_times_too_short():
    one = dataclasses.replace(make_batch(), episode=torch.zeros(3, dtype=torch.int64))
    long = temporal(lambda a, b: knows(a, b) + 0.1, one)
    short = temporal(lambda a, b: knows(a, b) - 0.1, one)
    assert long == pytest.approx(9 * short, rel=1e-3)


def test_impossible_options_are_refused():
    for options, wrong in [
        (RankConfig, {"margin": -1.0}), (RankConfig, {"max_pairs": 0}), (ClosureConfig, {"scale": 0.0}),
        (PairConfig, {"max_pairs": 1}), (TemporalDistanceConfig, {"expectile": 1.0}),
        (TemporalDistanceConfig, {"cap": 0}),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=next(iter(wrong))):
            options(**wrong)
