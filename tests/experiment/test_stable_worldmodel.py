"""The adapter to stable-worldmodel: its solvers see the distance that our own planners see."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

import jepa_world_model as jwm
import jepa_world_model_trainer as trainer
from jepa_world_model.core.errors import UserError
from jepa_world_model.experiment.stable_worldmodel import PlanCost, stable_worldmodel, world_model_policy
from jepa_world_model.planning.rollout import Objective
from tests.experiment.test_run import without_options


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> jwm.LoadedRun:
    """A run with continuous actions."""
    place = tmp_path_factory.mktemp("swm")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        flags = [
            "--steps",
            "1",
            "--name",
            "a",
            "--no-report",
            "--data.source",
            "two_rooms",
            "--data.episodes",
            "6",
        ]
        assert (
            trainer.main([*without_options(), *flags, "--model.in-channels", "2", "--model.image-size", "65"])
            == 0
        )
    return jwm.load(place / "runs" / "a", device="cpu")


def info(run: jwm.LoadedRun, rows: int = 2, samples: int = 5) -> dict:
    """What the evaluator hands to a cost: the same pictures for every candidate."""
    size, channels = run.cfg.model.image_size, run.cfg.model.in_channels
    generator = torch.Generator().manual_seed(0)
    shape = (rows, 1, 1, size, size, channels)
    pictures = (torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8) for _ in range(2))
    keys = {
        key: x.expand(-1, samples, -1, -1, -1, -1)
        for key, x in zip(("pixels", "goal"), pictures, strict=True)
    }
    return keys | {"env_name": [["TwoRoom"]] * rows}


def candidates(run: jwm.LoadedRun, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_the_cost_is_the_distance_between_what_is_imagined_and_the_goal(run):
    given, actions = info(run), candidates(run, 2, 5, 3, 2) * 0.3
    last = PlanCost(run, Objective(over="last")).get_cost(given, actions)
    assert last.shape == (2, 5)
    raw = held(run, actions).numpy()
    for row in range(2):
        for sample in range(5):
            z = run.imagine(given["pixels"][row, 0], raw[row, sample]).z[-1]
            goal = run.encode(given["goal"][row, 0])[0]
            assert float((z - goal).norm()) == pytest.approx(float(last[row, sample]), rel=1e-4)


def held(run: jwm.LoadedRun, actions: torch.Tensor) -> torch.Tensor:
    """Actions as the environment takes them."""
    return torch.minimum(torch.maximum(actions, torch.tensor(run.space.low)), torch.tensor(run.space.high))


def test_actions_beyond_the_bounds_count_as_the_environment_takes_them(run):
    cost, given = PlanCost(run), info(run)
    wild = candidates(run, 2, 5, 3, 2) * 100
    assert torch.equal(cost.get_cost(given, wild), cost.get_cost(given, held(run, wild)))


def test_blocks_of_actions_are_taken_one_after_another(run):
    cost, given, actions = PlanCost(run), info(run), candidates(run, 2, 5, 6, 2)
    assert torch.equal(cost.get_cost(given, actions.view(2, 5, 2, 6)), cost.get_cost(given, actions))


def test_the_cost_can_be_differentiated_and_moves_no_parameter(run):
    actions = (candidates(run, 2, 5, 3, 2) * 0.3).requires_grad_()
    PlanCost(run).get_cost(info(run), actions).sum().backward()
    assert float(actions.grad.abs().min(1).values.max()) > 0
    assert all(p.grad is None for p in run.model.parameters())


def test_what_the_adapter_cannot_do_is_one_sentence(run, trained, monkeypatch):
    with pytest.raises(UserError, match="this run has discrete actions"):
        PlanCost(jwm.load(trained, device="cpu"))
    lacking = info(run)
    del lacking["goal"]
    with pytest.raises(UserError, match="the evaluator gave no goal, only env_name, pixels"):
        PlanCost(run).get_cost(lacking, candidates(run, 2, 5, 3, 2))
    monkeypatch.setitem(sys.modules, "stable_worldmodel", None)
    with pytest.raises(UserError, match=r"jepa-world-model\[swm\]"):
        stable_worldmodel()


@pytest.mark.extra
def test_its_own_solver_finds_cheaper_plans_than_chance(run):
    pytest.importorskip("stable_worldmodel")
    import gymnasium

    policy = world_model_policy(run, horizon=3, receding=2, samples=32, iterations=4, elites=4)
    box = gymnasium.spaces.Box(-1, 1, (2, 2), np.float32)
    policy.solver.configure(action_space=box, n_envs=2, config=policy.cfg)
    given = {key: value[:, 0] for key, value in info(run).items() if torch.is_tensor(value)}
    found = policy.solver.solve(given)["actions"]
    assert found.shape == (2, 3, 2)
    cost = PlanCost(run)
    planned = cost.get_cost(info(run), found[:, None].expand(-1, 5, -1, -1))[:, 0]
    assert (planned <= cost.get_cost(info(run), candidates(run, 2, 5, 3, 2)).min(1).values).all()
