"""Planning with a run: which costs it can make, what it writes down, and planning while training."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

import jepa_world_model_trainer as trainer
from jepa_world_model.core.config import load_config
from jepa_world_model.core.errors import UserError
from jepa_world_model.core.log import read_metrics
from jepa_world_model.experiment import TrainConfig
from jepa_world_model.experiment.load import load
from jepa_world_model.experiment.plan import (
    Planning,
    evaluate_plans,
    manifest,
    open_planning,
    untrained_model,
    world_of,
    write_results,
)
from jepa_world_model.experiment.plan_config import PlanConfig
from jepa_world_model.planning.reach import GraphDistance
from tests.experiment.test_run import TINY, numbers, run

LOSSES = ["--loss-weights.pose-measure-p", "1", "--loss-weights.temporal-distance", "1"]
FAST = {"episodes": 3, "steps": 6, "horizon": 4, "replan": 3, "graph_frames": 100, "pictures": 2}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny gridworld run, read back."""
    patch = pytest.MonkeyPatch()
    patch.chdir(tmp_path_factory.mktemp("planned"))
    assert trainer.main([*TINY, *LOSSES, "--steps", "2", "--name", "a", "--no-report"]) == 0
    yield load("runs/a")
    patch.undo()


def planning(trained, **changes) -> Planning:
    return open_planning(PlanConfig(**(FAST | changes)), trained.cfg)


@pytest.mark.parametrize("cost", ["graph", "roadmap", "scenes", "latent", "h", "pose", "steps", "true"])
def test_every_cost_can_be_planned_with(trained, cost):
    episodes, found, _ = planning(trained, cost=cost).model_arm(trained.model, cost)
    assert len(episodes) == 3
    assert found["plans"] == 2
    assert set(found["success"]) == {"ever", "final"}
    assert ("graph" in found) == (cost == "graph")
    assert ("probe_error" in found) == (cost == "true")


def test_arms_stand_side_by_side_on_the_same_pairs(trained, tmp_path):
    asked = planning(trained, decompose=True)
    arms, episodes = evaluate_plans(
        asked, trained.model, lambda: untrained_model(trained.cfg), lambda text: None
    )
    assert list(arms) == [
        "model", "random policy", "standing still", "untrained model", "perfect dynamics, straight line",
        "perfect dynamics, true way", "perfect dynamics, the model's graph", "model, true way",
    ]  # fmt: skip
    starts = {arm["mean_start_distance"] for arm in arms.values()}
    assert len(starts) == 1
    assert arms["standing still"]["success"]["ever"]["rate"] == 0
    about = manifest(asked, trained.model, trained.step)
    write_results(tmp_path / "x", asked, about, arms, episodes)
    told = json.loads((tmp_path / "x" / "results.json").read_text())
    assert told["manifest"]["sha256"]["data"]
    assert told["manifest"]["sha256"] == json.loads(json.dumps(about))["sha256"]
    assert told["loop"]["horizon"] == 4
    assert len(json.loads((tmp_path / "x" / "episodes.json").read_text())) == 3


def test_the_same_seed_plans_the_same_episodes(trained):
    one, same = (planning(trained, cost="latent").model_arm(trained.model, "latent")[0] for _ in range(2))
    np.testing.assert_array_equal(one.actions, same.actions)


def test_the_graph_is_made_of_training_episodes_alone(trained):
    asked = planning(trained)
    whole, used = trained.cfg, asked.training_data
    assert len(used) == round(whole.data.episodes * (1 - whole.data.val_fraction))
    _, cost = asked.cost(asked.dynamics(trained.model), "graph")
    assert isinstance(cost, GraphDistance)


def test_perfect_dynamics_do_not_depend_on_the_run(trained):
    """Only the true way is asked for: it must solve what a tiny model cannot."""
    asked = planning(trained, steps=14, horizon=8, replan=2, episodes=5)
    arms, _ = evaluate_plans(asked, trained.model, lambda: untrained_model(trained.cfg), lambda text: None)
    assert arms["perfect dynamics, true way"]["success"]["ever"]["rate"] == 1.0


@pytest.mark.parametrize(("changes", "words"), [
    ({"planner": "cem"}, "planner cem searches continuous actions.*--planner gradient or shooting"),
    ({"env": "two_rooms", "cost": "latent"}, "takes actions of width 5"),
])  # fmt: skip
def test_what_does_not_fit_the_world_is_refused(trained, changes, words):
    asked = planning(trained, **changes)
    with pytest.raises(UserError, match=words):
        asked.model_arm(trained.model, asked.plan.cost)


def test_a_run_on_other_data_needs_a_world(trained):
    elsewhere = dataclasses.replace(
        trained.cfg, data=dataclasses.replace(trained.cfg.data, source="frames/atari")
    )
    with pytest.raises(
        UserError, match=r"no world to plan in; name one with --env \(two_rooms or gridworld\)"
    ):
        world_of(PlanConfig(), elsewhere)
    assert world_of(PlanConfig(env="gridworld"), elsewhere).name == "gridworld"
    assert len(world_of(PlanConfig(), trained.cfg).walls) == 5  # the run's own options


@pytest.mark.parametrize("flags", [
    ["--planner", "cme"], ["--cost", "graf"], ["--over", "mean"], ["--env", "atari"], ["--episodes", "0"],
    ["--precision", "fp8"],
])  # fmt: skip
def test_settings_that_do_not_exist_are_named(flags):
    with pytest.raises(UserError, match=flags[1] if flags[1].isalpha() else flags[0][2:]):
        load_config(PlanConfig, flags, prog="jepa-wm plan")


def test_planning_while_training_logs_its_numbers_and_leaves_no_trace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = [
        word
        for key, value in (FAST | {"pictures": 0}).items()
        for word in (f"--plan.{key.replace('_', '-')}", str(value))
    ]
    quiet = ["--steps", "4", "--eval-every", "0", "--no-report", "--ema", "0.9"]
    assert run(*quiet, "--name", "with", "--plan-every", "2", *plan) == 0
    assert run(*quiet, "--name", "without") == 0
    rows = [row for row in read_metrics(tmp_path / "runs/with/metrics.jsonl") if "plan/ever" in row]
    assert [row["step"] for row in rows] == [2, 4]
    assert {"plan/final", "plan/random_ever", "plan/mean_final_distance", "plan/graph_connected"} <= set(
        rows[0]
    )
    losses = [
        [{k: v for k, v in row.items() if k.startswith("loss/")} for row in numbers(tmp_path / "runs" / name)]
        for name in ("with", "without")
    ]
    assert losses[0] == losses[1]


def test_planning_while_training_is_refused_before_a_run_exists(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("--steps", "2", "--plan-every", "1", "--plan.planner", "cem", "--name", "a") == 2
    assert "searches continuous actions" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert TrainConfig().plan.episodes == 20
