"""A run read back: the same model, the same states, one sentence for what cannot be."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from jepa_world_model.core.checkpoint import latest_checkpoint, load_checkpoint
from jepa_world_model.core.config import from_toml
from jepa_world_model.core.errors import UserError
from jepa_world_model.experiment import TrainConfig, build, load
from jepa_world_model.experiment.load import ACTIONS
from jepa_world_model.planning.planners import CemConfig


@pytest.fixture(scope="module")
def experiment(trained):
    """The same run as the trainer builds it, with the trained weights."""
    built = build(from_toml(TrainConfig, trained / "config.toml"))
    load_checkpoint(latest_checkpoint(trained / "checkpoints"), built.task.model)
    built.task.model.eval()
    return built


def raw_windows(experiment) -> tuple[np.ndarray, np.ndarray]:
    """Frames and raw actions of two windows."""
    batch = experiment.held_out.batch(np.arange(2))
    return batch.frames.numpy(), experiment.episodes.space.decode(batch.actions.numpy())


def test_the_states_of_a_loaded_run_are_those_of_the_trained_model(trained, experiment):
    frames, actions = raw_windows(experiment)
    loaded = load(trained, device="cpu")
    with torch.no_grad():
        expected = experiment.task.states(experiment.held_out.batch(np.arange(2)), ["z", "h", "p"])
    found = loaded.states(frames, actions)
    assert all(torch.equal(found[name], expected[name]) for name in ("z", "h", "p"))
    assert loaded.step == 4
    assert loaded.space == experiment.episodes.space


def test_encode_takes_one_window_or_many_with_channels_first_or_last(trained, experiment):
    frames, _ = raw_windows(experiment)
    loaded = load(trained, device="cpu")
    z = loaded.encode(frames)  # [2,T,Dz]
    assert torch.allclose(loaded.encode(frames[0]), z[0], atol=1e-6)  # kernels differ with the batch size
    assert torch.equal(loaded.encode(np.moveaxis(frames, -3, -1)), z)
    assert torch.allclose(loaded.encode(frames[0, :1]), z[0, :1], atol=1e-6)
    assert not torch.allclose(z[0], z[1])


def test_imagining_is_the_rollout_of_training_from_the_last_frame_seen(trained, experiment):
    frames, actions = raw_windows(experiment)
    loaded, seen = load(trained, device="cpu"), 3
    names = ["rollout", "rollout_p", "x_rollout"]
    with torch.no_grad():
        states = experiment.task.states(experiment.held_out.batch(np.arange(2)), names)
    horizon = len(states["rollout"].z) - 1
    found = loaded.imagine(frames[:, :seen], actions)
    for name in ("z", "h"):
        steps = [
            getattr(states["rollout"], name)[k + 1][:, seen - 1]
            for k in range(min(horizon, found.z.shape[1]))
        ]
        torch.testing.assert_close(
            getattr(found, name)[:, : len(steps)], torch.stack(steps, 1), atol=1e-5, rtol=1e-4
        )
    poses = torch.stack([states["rollout_p"][k + 1][:, seen - 1] for k in range(len(steps))], 1)
    torch.testing.assert_close(found.p[:, : len(steps)], poses, atol=1e-5, rtol=1e-4)
    drawn = torch.stack([states["x_rollout"][k + 1][:, seen - 1] for k in range(len(steps))], 1)
    drawn = drawn.clamp(0, 1).mul(255).round().byte().numpy()
    assert (
        np.abs(found.frames[:, : len(steps)].astype(int) - drawn).max() <= 1
    )  # a byte may round the other way


def test_an_anchored_run_draws_the_true_frame_plus_the_change(trained, experiment):
    frames, actions = raw_windows(experiment)
    loaded = load(trained, device="cpu")
    anchored = dataclasses.replace(loaded, cfg=dataclasses.replace(loaded.cfg, render_mode="anchor_delta"))
    with torch.no_grad():
        plain = loaded.model.decoder(loaded.imagine(frames[:, :1], actions).z)
        start = loaded.model.decoder(loaded.encode(frames[:, :1]))
    expected = (torch.from_numpy(frames[:, :1]) / 255 + plain - start).clamp(0, 1).mul(255).round()
    found = anchored.imagine(frames[:, :1], actions).frames
    assert np.abs(found.astype(int) - expected.numpy()).max() <= 1
    assert not np.array_equal(found, loaded.imagine(frames[:, :1], actions).frames)


def test_one_window_needs_no_batch_and_gives_none(trained, experiment):
    frames, actions = raw_windows(experiment)
    loaded = load(trained, device="cpu")
    one, many = loaded.imagine(frames[0, :1], actions[0]), loaded.imagine(frames[:1, :1], actions[:1])
    assert one.z.shape == many.z.shape[1:]
    assert one.frames.shape == many.frames.shape[1:]
    plan = loaded.plan(frames[0, :1], goal=frames[0, 3], horizon=3)
    assert plan.actions.shape == (3,)
    assert plan.cost.shape == ()


def test_a_plan_costs_what_imagining_it_gives_and_less_than_chance(trained, experiment):
    frames, actions = raw_windows(experiment)
    loaded, goal, seen = load(trained, device="cpu"), frames[:, -1], 2
    plan = loaded.plan(frames[:, :seen], goal=goal, actions=actions[:, : seen - 1], horizon=4)
    assert plan.actions.shape == (2, 4)
    z_goal = loaded.encode(goal[:, None])

    def cost(chosen: np.ndarray) -> np.ndarray:
        z = loaded.imagine(frames[:, :seen], np.concatenate([actions[:, : seen - 1], chosen], 1)).z
        return (z - z_goal).norm(dim=-1).sum(1).numpy()

    np.testing.assert_allclose(
        plan.cost, cost(plan.actions), rtol=1e-3
    )  # the search feeds one-hot actions in fp32 too
    rng = np.random.default_rng(0)
    random = np.stack([cost(rng.integers(0, loaded.space.dim, (2, 4))) for _ in range(20)])
    assert (plan.cost <= random.min(0) + 1e-4).all()
    again = loaded.plan(frames[:, :seen], goal=goal, actions=actions[:, : seen - 1], horizon=4)
    assert np.array_equal(again.actions, plan.actions)


def test_a_plan_that_cannot_be_asked_for_is_one_sentence(trained, experiment):
    frames, actions = raw_windows(experiment)
    loaded = load(trained, device="cpu")
    for given, words in [
        ({"frames": frames, "goal": frames[0, 0]}, "1 goals for 2 windows"),
        ({"frames": frames, "goal": frames[:, 0]}, "0 actions for 6 frames seen; give the 5"),
        (
            {"frames": frames, "goal": frames[:, 0], "actions": actions[:, 1:]},
            "4 actions for 6 frames seen",
        ),
        ({"frames": frames[:, :1], "goal": frames}, "one picture a window"),
        (
            {"frames": frames[:, :1], "goal": frames[:, 0], "planner": CemConfig()},
            "searches continuous actions",
        ),
    ]:
        with pytest.raises(UserError, match=words):
            loaded.plan(**given)


def test_loading_leaves_the_callers_random_numbers_and_gives_fixed_parameters(trained):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    loaded = load(trained, device="cpu")
    assert torch.equal(torch.rand(2), expected)
    assert not any(p.requires_grad for p in loaded.task.model.parameters())
    assert not loaded.task.model.training


def test_an_earlier_checkpoint_is_loaded_by_its_step(trained):
    named = load(trained, device="cpu", step=2)
    assert named.step == 2
    newest = load(trained, device="cpu")
    assert not torch.equal(*(run.task.model.predictor.inner.weight for run in (named, newest)))


def test_a_run_without_its_action_space_takes_it_from_the_data(trained):
    space, text = load(trained, device="cpu").space, (trained / ACTIONS).read_text()
    (trained / ACTIONS).unlink()
    try:
        assert load(trained, device="cpu").space == space
        (trained / ACTIONS).write_text("{")
        with pytest.raises(UserError, match=r"actions\.json is damaged"):
            load(trained)
    finally:
        (trained / ACTIONS).write_text(text)


def test_what_cannot_be_is_one_sentence(trained, experiment, tmp_path):
    frames, actions = raw_windows(experiment)
    loaded = load(trained, device="cpu")
    with pytest.raises(UserError, match="is no run"):
        load(tmp_path)
    with pytest.raises(UserError, match=r"no checkpoint of step 9; there are \[2, 4\]"):
        load(trained, step=9)
    with pytest.raises(UserError, match="leave nothing to imagine"):
        loaded.imagine(frames, actions)
    with pytest.raises(UserError, match="are of 1 windows, the frames of 2"):
        loaded.imagine(frames, actions[0])
    with pytest.raises(UserError, match=r"float32 .* takes uint8"):
        loaded.encode(frames.astype(np.float32))
    with pytest.raises(UserError, match="3x16x16"):
        loaded.encode(frames[..., :8])
    with pytest.raises(UserError, match="T frames have T-1 actions"):
        loaded.states(frames, actions[:, 1:])
    with pytest.raises(UserError, match="whole numbers from 0 to"):
        loaded.states(frames, actions + 100)
    bare = dataclasses.replace(loaded, task=without(loaded.task, "p_action_delta_projector"))
    with pytest.raises(UserError, match="this run has no p: its losses needed no p_action_delta_projector"):
        bare.states(frames, actions)


def without(task, group):
    """The task as it is when no loss needs a group."""
    import copy

    twin = copy.copy(task)
    twin.model = copy.deepcopy(task.model)
    delattr(twin.model, group)
    return twin
