"""The VLA behind LeRobot's policy interface: the model's own actions, one at a time, planned again when they run out."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from jepa_world_model.core.errors import UserError
from jepa_world_model.vla_ki import arm
from jepa_world_model.vla_ki.build import CAMERA
from jepa_world_model.vla_ki.evaluate import act, load_judge
from jepa_world_model.vla_ki.serve import STATE, TASK, Policy
from jepa_world_model.vla_ki.train import train_main
from tests.vla_ki.tiny import flags

for package in ("tokenizers", "pyarrow", "av"):
    pytest.importorskip(package)
pytestmark = pytest.mark.extra


@pytest.fixture(scope="module")
def run(place):
    given = flags(place, name="served", steps=1, eval_episodes=0, checkpoint_every=0)
    assert train_main(given) == 0
    return place / "runs" / "served"


@pytest.fixture
def policy(run) -> Policy:
    return Policy.load(run, n_action_steps=3)


def observed(sim: arm.ArmSim, kind: str = "float") -> dict:
    """What LeRobot hands to a policy."""
    images, states, texts = sim.observe()
    picture = torch.from_numpy(images[:, 0])  # [B,3,H,W] uint8
    return {
        f"{CAMERA}": picture / 255 if kind == "float" else picture,
        STATE: torch.from_numpy(states), TASK: list(texts),
    }  # fmt: skip


def simulated(episodes: int = 2, seed: int = 0) -> arm.ArmSim:
    return arm.ArmSim.reset(np.random.default_rng(seed), episodes, goals=arm.NAMES, others=arm.NAMES)


def test_the_actions_are_the_models_own_in_the_units_of_the_data(run, policy):
    judge, _ = load_judge(run)
    sim = simulated()
    images, states, texts = sim.observe()
    judge.task.model.eval()
    with torch.no_grad():
        generator = policy.streams.torch("policy")
        expected = act(judge.task, judge.cfg, judge.tools, images, states, texts, generator)
    first = policy.select_action(observed(sim))
    assert first.shape == (2, judge.data.robot.actions.shape[1])
    assert torch.equal(first, torch.from_numpy(expected[:, 0]))
    assert torch.equal(policy.select_action(observed(sim)), torch.from_numpy(expected[:, 1]))


def test_a_chunk_is_planned_once_and_again_when_it_runs_out(policy):
    sim, planned = simulated(), []
    real = policy.predict_action_chunk
    policy.predict_action_chunk = lambda observation: planned.append(1) or real(observation)
    counts = []
    for _ in range(7):
        sim.step(policy.select_action(observed(sim)).numpy())
        counts.append(len(planned))
    assert counts == [1, 1, 1, 2, 2, 2, 3]


def test_reset_forgets_the_queue_and_gives_the_same_episode_again(policy):
    first, second = observed(simulated(seed=0)), observed(simulated(seed=1))
    before = [policy.select_action(first) for _ in range(4)]
    policy.reset()
    assert all(torch.equal(a, policy.select_action(first)) for a in before)
    policy.reset()
    assert not torch.equal(policy.select_action(second), before[0])


def test_one_robot_needs_no_batch_and_pictures_may_be_bytes_or_channels_last(policy):
    sim = simulated(episodes=1)
    expected = policy.select_action(observed(sim))
    policy.reset()
    whole = observed(sim, "bytes")
    one = {CAMERA: whole[CAMERA][0].movedim(0, -1).numpy(), STATE: whole[STATE][0], TASK: whole[TASK][0]}
    found = policy.select_action(one)
    assert found.shape == expected.shape[1:]
    torch.testing.assert_close(found, expected[0], atol=1e-6, rtol=1e-5)


def test_pictures_of_another_size_are_fitted_and_nothing_is_changed_in_place(policy):
    given = observed(simulated())
    kept = {key: value.clone() for key, value in given.items() if isinstance(value, torch.Tensor)}
    given[CAMERA] = torch.nn.functional.pad(given[CAMERA], (8, 8))  # wider than high
    assert policy.select_action(given).isfinite().all()
    assert torch.equal(given[STATE], kept[STATE])


@pytest.mark.parametrize(("change", "words"), [
    (lambda o: o.pop(STATE), "the observation lacks observation.state"),
    (lambda o: o.pop(TASK), "the observation lacks task"),
    (lambda o: o.pop(CAMERA), "this model takes observation.images.top; the observation holds no picture"),
    (lambda o: o.update({STATE: o[STATE][:, :1]}), r"observation.state is \[2, 1\]"),
    (lambda o: o.update({TASK: ["go"]}), "with 1 instructions"),
    (lambda o: o.update({CAMERA: o[CAMERA][:1]}), "with B = 2"),
    (lambda o: o.update({CAMERA: o[CAMERA] * 255}), r"give uint8, or float in \[0, 1\]"),
    (lambda o: o.update({CAMERA: o[CAMERA][:, 0]}), r"it must be \[B,3,H,W\]"),
])  # fmt: skip
def test_an_observation_that_does_not_fit_is_one_sentence(policy, change, words):
    given = observed(simulated())
    change(given)
    with pytest.raises(UserError, match=words):
        policy.predict_action_chunk(given)


def test_what_was_planned_for_others_is_not_handed_out(policy):
    policy.select_action(observed(simulated(episodes=2)))
    with pytest.raises(UserError, match="call reset"):
        policy.select_action(observed(simulated(episodes=1)))


def test_settings_that_the_model_cannot_have_are_refused(run, tmp_path):
    with pytest.raises(UserError, match=r"it lies in 1\.\."):
        Policy.load(run, n_action_steps=1000)
    with pytest.raises(UserError, match="2 cameras are named"):
        Policy.load(run, cameras=("a", "b"))
    with pytest.raises(UserError, match="is no run"):
        Policy.load(tmp_path)


def test_the_code_of_the_page_runs(run):
    page = (Path(__file__).parents[2] / "docs" / "vla.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    scope = {"observation": observed(simulated())}
    exec(
        compile(
            code.replace("runs/NAME", str(run)).replace("n_action_steps=8", "n_action_steps=2"),
            "vla.md",
            "exec",
        ),
        scope,
    )
    assert scope["action"].shape == (2, 2)
