"""Environments of other packages: made, seen, told, recorded and trained on; a missing package is named with its extra."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import jepa_world_model.envs  # noqa: F401  (registers the environments)
import jepa_world_model_trainer as trainer
from jepa_world_model.core.errors import UserError
from jepa_world_model.data.collect import CollectConfig, collect
from jepa_world_model.data.store import open_store
from jepa_world_model.envs.make import FAMILIES, make_env

TINY = [
    "--model.image-size", "16", "--model.encoder-schedule", "8", "8", "--model.decoder-schedule", "8", "8",
    "--model.z-dim", "8", "--model.state-dim", "8", "--model.hidden-dim", "16", "--model.keypoints", "4",
    "--model.pose-dim", "2", "--seq-len", "6", "--rollout-horizon", "3", "--batch-size", "2", "--eval-windows", "4",
    "--precision", "fp32", "--threads", "1", "--steps", "3", "--no-report", "--data.size", "16",
]  # fmt: skip
ENVIRONMENTS = {  # id -> package; how it is recorded; what is known of it
    "ALE/Freeway-v5": ("ale_py", {"fit": "squeeze"}, ("NOOP", "UP", "DOWN"), ()),
    "MiniGrid-DoorKey-8x8-v0": (
        "minigrid", {"action_weights": {"forward": 4.0, "drop": 0.0}},
        ("left", "right", "forward", "pickup", "drop", "toggle", "noop"), ("x", "y", "direction"),
    ),
    "gym_pusht/PushT-v0": (
        "gym_pusht", {}, ("x", "y"), ("agent_x", "agent_y", "block_x", "block_y", "block_angle"),
    ),
    "PointMaze_UMaze-v3": (
        "gymnasium_robotics", {"skip": 5, "repeat_action_prob": 0.8}, ("force_x", "force_y"),
        ("x", "y", "velocity_x", "velocity_y"),
    ),
}  # fmt: skip


@pytest.mark.extra
@pytest.mark.filterwarnings("default")  # what other packages warn of at import is theirs
@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_an_environment_of_another_package_is_recorded_and_trained_on(tmp_path, monkeypatch, env_id):
    package, how, actions, states = ENVIRONMENTS[env_id]
    pytest.importorskip(package, reason=f"{env_id} needs the package {package}")
    monkeypatch.chdir(tmp_path)
    try:
        env = make_env(env_id)
    except UserError as error:
        if "cannot draw" not in str(error):
            raise
        pytest.skip(str(error))  # MuJoCo without a driver
    collect(env, "set", CollectConfig(frames=120, max_length=20, **how))
    env.close()
    episodes = open_store("set", verify=True)
    assert episodes.frames.shape == (120, 3, 64, 64)
    assert (episodes.space.names, episodes.state_names) == (actions, states)
    assert episodes.space.noop == {"NOOP": 0, "left": 6}.get(actions[0])
    inside = episodes.transitions()
    moved = (np.asarray(episodes.frames)[inside + 1] != np.asarray(episodes.frames)[inside]).any((1, 2, 3))
    assert moved.mean() > 0.3
    if states:
        stepped = (episodes.states[inside + 1] != episodes.states[inside]).any(1)
        assert (stepped & ~moved).mean() < 0.2  # what happens is seen
    assert trainer.main([*TINY, "--data.source", "set", "--name", "run"]) == 0
    assert (tmp_path / "runs" / "run" / "metrics.jsonl").stat().st_size > 0


@pytest.mark.extra
def test_the_action_is_not_drawn_into_the_frames_of_pusht():
    pytest.importorskip("gym_pusht")
    env = make_env("gym_pusht/PushT-v0")
    env.reset(seed=0)
    frame = env.step(np.array([500.0, 30.0], np.float32))[0]
    red = (frame[..., 0] > 200) & (frame[..., 1] < 80)
    assert not red.any()  # render() puts a red cross where the action points
    env.close()


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.package)
def test_a_missing_package_is_named_with_its_extra(monkeypatch, family):
    monkeypatch.setitem(sys.modules, family.package, None)
    with pytest.raises(UserError, match=rf"install it with: pip install jepa-world-model\[{family.extra}\]"):
        make_env(f"{family.prefixes[0]}Any-v0")


def test_environments_that_cannot_be_made_are_user_errors():
    with pytest.raises(UserError, match="cannot be made"):
        make_env("jepa_wm/Nowhere-v0")
    with pytest.raises(UserError, match="does not take the options"):
        make_env("jepa_wm/Gridworld-v0", colour="red")


def test_ids_of_no_family_are_left_as_they_are():
    env = make_env("jepa_wm/Gridworld-v0", size=32)
    assert env.reset(seed=0)[0].shape == (32, 32, 3)
    assert env.get_wrapper_attr("state_names") == ("x", "y")
