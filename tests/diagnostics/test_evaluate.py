"""Metrics of a model that knows the world exactly, and of models that fail in one way each."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from jepa_world_model.diagnostics.evaluate import evaluate, measuring, sigreg_floor
from jepa_world_model.diagnostics.scorecard import METRICS, find
from jepa_world_model.losses.distribution import SigregConfig, epps_pulley
from tests.diagnostics.oracle import MOVES, oracle, walk

BATCH = walk()


def test_the_oracle_scores_perfectly():
    found = evaluate(oracle(), BATCH)
    zero = ("latent_one_step_ratio", "latent_open_loop_ratio_k1", "latent_open_loop_ratio_k4", "p_q",
            "latent_open_loop_ratio_k8", "open_loop_ratio_k8", "recon_mse", "p_noop_ratio", "p_inverse_ratio",
            "p_loop_residual")  # fmt: skip
    one = ("inverse_accuracy_unblocked", "probe_z_r2", "probe_h_r2", "probe_p_r2", "rank_accuracy")
    assert {name: found[f"eval/{name}"] for name in zero} == pytest.approx(dict.fromkeys(zero, 0.0), abs=1e-6)
    assert {name: found[f"eval/{name}"] for name in one} == pytest.approx(dict.fromkeys(one, 1.0), abs=1e-4)
    assert 0.5 < found["eval/inverse_accuracy"] < 1  # a blocked move looks like a no-op
    assert found["eval/rank_accuracy_minus_clock"] > 0.05
    assert found["eval/probe_actions_r2"] < 0.999  # dead reckoning walks through walls
    assert 1.9 < found["eval/rank_z"] <= 2


def test_every_metric_is_in_the_scorecard():
    found = evaluate(oracle(weights={"jepa": 1.0, "sigreg": 1.0}), BATCH)
    assert [name for name in found if find(name) is None] == []
    assert len(found) > 0.7 * len(METRICS)


def test_a_model_that_copies_scores_one():
    found = evaluate(oracle(predictor=lambda z, h, a: h), BATCH)
    for name in ("latent_one_step_ratio", "latent_open_loop_ratio_k8", "open_loop_ratio_k8"):
        assert found[f"eval/{name}"] >= 1 - 1e-6, name


def test_a_clock_orders_no_better_than_time():
    drift = torch.tensor([0.5, 0.2])
    found = evaluate(oracle(p_action_delta_projector=lambda p, h, a: drift.expand_as(p)), BATCH)
    assert found["eval/rank_accuracy_minus_clock"] == pytest.approx(0, abs=1e-6)
    assert found["eval/p_noop_ratio"] == pytest.approx(1)
    assert found["eval/p_inverse_ratio"] == pytest.approx(2)


def test_a_pose_blind_to_walls_is_as_good_as_summed_actions():
    found = evaluate(oracle(p_action_delta_projector=lambda p, h, a: a @ MOVES), BATCH)
    assert found["eval/probe_p_r2"] == pytest.approx(found["eval/probe_actions_r2"], abs=0.02)
    assert found["eval/p_commutator"] == pytest.approx(0, abs=1e-6)
    assert found["eval/p_loop_residual"] > 0.01


def test_what_is_not_built_or_not_told_is_absent():
    bare = evaluate(oracle(without=("decoder", "p_action_delta_projector", "inverse_dynamics_h")), BATCH)
    assert "eval/latent_open_loop_ratio_k8" in bare
    assert not [
        n
        for n in bare
        if n.removeprefix("eval/").startswith(("open_loop", "recon", "p_", "inverse", "rank_p"))
    ]
    told = evaluate(oracle(), dataclasses.replace(BATCH, state=None))
    assert not [n for n in told if "probe" in n or "unblocked" in n or "clock" in n or "loop_res" in n]
    assert "eval/p_inverse_ratio" in told
    only = evaluate(oracle(without=("predictor", "h_to_z", "z_to_h")), BATCH)
    assert set(only) == {"eval/recon_mse", "eval/probe_z_r2", "eval/rank_z", "eval/std_z"}


def test_a_short_window_names_the_longest_step_it_holds():
    found = evaluate(oracle(), walk(frames=7))
    assert {n for n in found if "open_loop" in n} == {
        "eval/latent_open_loop_ratio_k1", "eval/latent_open_loop_ratio_k4", "eval/latent_open_loop_ratio_k6",
        "eval/open_loop_ratio_k6",
    }  # fmt: skip
    assert "eval/open_loop_ratio_k3" in evaluate(oracle(horizon=3), BATCH)


def test_a_probe_is_scored_on_other_episodes():
    torch.manual_seed(0)
    names = {}  # an encoder that knows each frame by heart and nothing else

    def by_heart(x):
        keys = [(*row.nonzero().flatten().tolist(), i // 24) for i, row in enumerate(x.flatten(1))]
        return torch.stack([names.setdefault(key, torch.randn(300)) for key in keys])

    task = oracle(without=("predictor", "h_to_z", "z_to_h", "decoder"), encoder=by_heart)
    assert evaluate(task, BATCH)["eval/probe_z_r2"] < 0.2
    other = walk(seed=1)
    assert "eval/probe_z_r2" not in evaluate(
        task, BATCH, other
    )  # the same episodes: nothing is left to fit on
    fresh = dataclasses.replace(other, episode=other.episode + 100)
    assert evaluate(oracle(), BATCH, fresh)["eval/probe_z_r2"] > 0.9999
    assert "eval/probe_z_r2" not in evaluate(oracle(), BATCH.rows(2))  # a single episode


def test_warm_up_frames_do_not_count():
    task = oracle()
    cold = dataclasses.replace(
        task.settings, model=dataclasses.replace(task.settings.model, warmup_frames_h=3)
    )
    task.settings = cold
    found = evaluate(task, BATCH)
    assert found["eval/latent_one_step_ratio"] == 0
    assert "eval/latent_open_loop_ratio_k8" in found
    assert found["eval/probe_h_r2"] > 0.999


def test_evaluation_changes_neither_mode_nor_generator_nor_gradient():
    task = oracle()
    task.model.train()
    task.model.decoder.eval()
    before = torch.get_rng_state()
    evaluate(task, BATCH)
    assert torch.equal(before, torch.get_rng_state())
    assert task.model.training
    assert not task.model.decoder.training
    assert all(p.grad is None for p in task.model.parameters())
    with pytest.raises(RuntimeError), measuring(task.model):
        raise RuntimeError
    assert task.model.encoder.training


def test_sigreg_lines_enclose_a_gaussian_and_a_collapse():
    options = SigregConfig()
    assert sigreg_floor(options) == pytest.approx(1.05, abs=0.01)
    draws = torch.randn(64, 256, 40, generator=torch.Generator().manual_seed(0))
    assert float(epps_pulley(draws, options)) == pytest.approx(sigreg_floor(options), rel=0.03)
    found = evaluate(oracle(weights={"sigreg": 1.0}, encoder=lambda x: torch.zeros(len(x), 2)), BATCH)
    assert found["eval/sigreg"] == pytest.approx(found["eval/sigreg_collapse"])
    assert found["eval/sigreg_collapse"] == pytest.approx(0.40 * BATCH.B, rel=0.03)


def test_continuous_actions_have_r2_and_no_accuracy():
    space = dataclasses.replace(BATCH.space, kind="continuous", noop=None, low=(-1.0,) * 5, high=(1.0,) * 5)
    batch = dataclasses.replace(BATCH, space=space, action_id=torch.full_like(BATCH.action_id, -1))
    found = evaluate(oracle(inverse_dynamics_h=lambda h, d: batch.actions + 0), batch)
    assert found["eval/inverse_r2"] == 1
    assert not [n for n in found if "accuracy" in n and "inverse" in n]


def test_bits_that_never_change_are_no_achievement():
    actions = torch.zeros(32, 11, 4)
    actions[..., 0] = BATCH.action_id % 2
    bits = dataclasses.replace(
        BATCH, space=dataclasses.replace(BATCH.space, kind="multi_binary", noop=None, dim=4, names=()),
        actions=actions, action_id=actions[..., 0].long(),
    )  # fmt: skip
    wrong = lambda h, d: torch.cat([actions[..., :1] * 2 - 1, torch.ones(32, 11, 3)], -1)
    task = oracle(predictor=lambda z, h, a: h, inverse_dynamics_h=wrong,
                  p_action_delta_projector=lambda p, h, a: a[..., :2])  # fmt: skip
    assert evaluate(task, bits)["eval/inverse_accuracy"] == 1
