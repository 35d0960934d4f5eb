from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import jepa_world_model.envs  # noqa: F401  (registers the environments)
from jepa_world_model.core.errors import UserError
from jepa_world_model.data.collect import CollectConfig, action_space_of, collect, generate
from jepa_world_model.data.store import open_store
from jepa_world_model.envs import GENERATORS, Gridworld
from jepa_world_model.envs.make import make_env


class Counter(gymnasium.Env):
    """Shows the number of steps as a grey level; ends after `end` steps."""

    metadata = {"render_modes": ["rgb_array"]}
    render_mode = "rgb_array"

    def __init__(self, action_space=None, *, end=6, tells="always", picture=True):
        self.action_space = action_space or spaces.Discrete(3)
        self.observation_space = spaces.Box(-1, 1, (1,), np.float32)
        self.end, self.tells, self.picture = end, tells, picture

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(1, np.float32), {"state": [0.0]} if self.tells != "never" else {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.count += 1
        info = {"state": [float(self.count)]} if self.tells == "always" else {}
        return np.zeros(1, np.float32), 0.0, self.count >= self.end, False, info

    def render(self):
        return np.full((20, 10, 3), self.count, np.uint8) if self.picture else None


@pytest.mark.parametrize(
    ("space", "kind", "dim"),
    [
        (spaces.Discrete(3), "discrete", 3),
        (spaces.Discrete(3, start=-1), "discrete", 3),
        (spaces.MultiBinary(8), "multi_binary", 8),
        (spaces.Box(-2, 3, (2,), np.float32), "continuous", 2),
    ],
)
def test_every_supported_action_space_is_collected(tmp_path, space, kind, dim):
    config = CollectConfig(episodes=4, size=8, repeat_action_prob=0.3)
    episodes = open_store(collect(Counter(space), tmp_path / "set", config), verify=True)
    assert (episodes.space.kind, episodes.space.dim) == (kind, dim)
    assert episodes.bounds.tolist() == [[0, 7], [7, 7], [14, 7], [21, 7]]
    if kind == "discrete":
        assert set(episodes.actions.tolist()) == {0, 1, 2}


def test_frames_states_and_actions_are_aligned_and_the_last_observation_is_kept(tmp_path):
    taken = []

    def policy(observation, rng):
        taken.append(int(rng.integers(3)))
        return taken[-1]

    episodes = open_store(collect(Counter(), tmp_path / "set", CollectConfig(episodes=2), policy=policy))
    assert episodes.frames[:7, 0, 32, 32].tolist() == list(range(7))
    assert episodes.states[:7, 0].tolist() == list(range(7))
    assert episodes.actions[episodes.transitions()].tolist() == taken
    assert episodes.frames.shape == (14, 3, 64, 64)
    assert (episodes.manifest["policy"], episodes.manifest["env"]) == ("policy", "Counter")


def test_a_number_of_frames_cuts_the_last_episode(tmp_path):
    assert open_store(collect(Counter(), tmp_path / "a", CollectConfig(frames=10))).lengths.tolist() == [7, 3]
    assert open_store(collect(Counter(), tmp_path / "b", CollectConfig(frames=8))).lengths.tolist() == [7]
    assert open_store(
        collect(Counter(), tmp_path / "c", CollectConfig(episodes=2, max_length=4))
    ).lengths.tolist() == [4, 4]


def test_the_same_seed_collects_the_same_data(tmp_path):
    def hashes(name, seed):
        env = make_env("jepa_wm/Gridworld-v0")
        config = CollectConfig(episodes=2, max_length=20, seed=seed, repeat_action_prob=0.5)
        return open_store(collect(env, tmp_path / name, config)).manifest["sha256"]

    assert hashes("a", 1) == hashes("b", 1) != hashes("c", 2)


@pytest.mark.parametrize("env_id", ["jepa_wm/Gridworld-v0", "jepa_wm/TwoRooms-v0"])
def test_our_environments_collect_with_observations_states_and_names(tmp_path, env_id):
    seen = []
    path = collect(
        make_env(env_id),
        tmp_path / "set",
        CollectConfig(frames=30, size=0),
        progress=lambda n: seen.append(n),
    )
    episodes = open_store(path)
    assert episodes.state_names == ("x", "y")
    assert episodes.frames.shape[1:] == ((3, 64, 64) if "Grid" in env_id else (2, 65, 65))
    assert (episodes.space.noop == 0) == ("Grid" in env_id)
    assert seen == [30]


def test_two_channel_frames_are_resized_channel_by_channel(tmp_path):
    path = collect(make_env("jepa_wm/TwoRooms-v0"), tmp_path / "set", CollectConfig(frames=3, size=32))
    frames = open_store(path).frames
    assert frames.shape == (3, 2, 32, 32)
    assert frames[0, 1].max() > 150  # a wall of 3 px, averaged in pairs


@pytest.mark.parametrize(("fit", "bars"), [("letterbox", True), ("crop", False), ("squeeze", False)])
def test_frames_that_are_not_square_are_fitted_as_asked_and_the_store_says_how(tmp_path, fit, bars):
    path = collect(Counter(), tmp_path / "set", CollectConfig(episodes=1, size=16, fit=fit))
    episodes = open_store(path)  # the environment draws 20 x 10 px
    assert (episodes.frames[3, 0, :, :4] == (0 if bars else 3)).all()
    assert episodes.manifest["fit"] == fit


@pytest.mark.parametrize(
    ("env", "says"),
    [
        (Counter(spaces.MultiDiscrete([2, 3])), "MultiDiscrete are not supported"),
        (Counter(spaces.Box(-np.inf, np.inf, (2,), np.float32)), "finite bounds"),
        (Counter(spaces.MultiBinary((2, 2))), "flat"),
        (Counter(picture=False), "gives no image"),
        (Counter(tells="first"), "at every reset and step"),
    ],
)
def test_what_cannot_be_collected_is_said_and_leaves_nothing(tmp_path, env, says):
    with pytest.raises(UserError, match=says):
        collect(env, tmp_path / "set", CollectConfig(episodes=1))
    assert list(tmp_path.iterdir()) == []


def test_an_environment_without_states_gives_none(tmp_path):
    episodes = open_store(collect(Counter(tells="never"), tmp_path / "set", CollectConfig(episodes=1)))
    assert episodes.states is None


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"episodes": 1, "frames": 1},
        {"episodes": -1},
        {"episodes": 1, "max_length": 1},
        {"episodes": 1, "repeat_action_prob": 1.0},
        {"episodes": 1, "size": -1},
        {"episodes": 1, "fit": "stretch"},
        {"episodes": 1, "skip": 0},
    ],
)
def test_impossible_settings_are_refused(options):
    with pytest.raises(UserError):
        CollectConfig(**options)
    with pytest.raises(UserError, match="use 'random'"):
        collect(Counter(), "nowhere", CollectConfig(episodes=1), policy="clever")


def test_an_action_may_last_several_steps(tmp_path):
    episodes = open_store(collect(Counter(), tmp_path / "set", CollectConfig(episodes=2, skip=4)))
    assert episodes.states[:, 0].tolist() == [0, 4, 6, 0, 4, 6]  # the environment ends at 6
    assert episodes.manifest["skip"] == 4


def test_some_actions_may_be_drawn_oftener(tmp_path):
    env = make_env("jepa_wm/Gridworld-v0")
    weights = {"RIGHT": 8.0, "0": 0.0}
    config = CollectConfig(frames=600, size=0, max_length=600, action_weights=weights)
    episodes = open_store(collect(env, tmp_path / "set", config))
    share = np.bincount(episodes.actions[episodes.transitions()], minlength=5) / len(episodes.transitions())
    assert share[0] == 0
    assert share[4] == pytest.approx(8 / 11, abs=0.07)
    assert episodes.manifest["action_weights"] == weights


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ({"rigth": 2.0}, "did you mean 'right'"),
        ({"7": 2.0}, "there is no action '7'"),
        ({"up": -1.0}, "a weight is 0 or more"),
        (dict.fromkeys(("noop", "up", "down", "left", "right"), 0.0), "no action is left"),
    ],
)
def test_impossible_weights_are_refused(tmp_path, weights, says):
    config = CollectConfig(frames=10, action_weights=weights)
    with pytest.raises(UserError, match=says):
        collect(make_env("jepa_wm/Gridworld-v0"), tmp_path / "set", config)
    with pytest.raises(UserError, match="are for discrete actions"):
        collect(make_env("jepa_wm/TwoRooms-v0"), tmp_path / "set", config)
    assert not list(tmp_path.iterdir())


def test_buttons_keep_their_names():
    env = Counter(spaces.MultiBinary(2))
    env.action_names = ("A", "B")
    assert action_space_of(env).names == ("A", "B")


@pytest.mark.parametrize("name", GENERATORS)
def test_generated_data_sets_are_stored_with_their_origin(tmp_path, name):
    path = generate(GENERATORS[name], tmp_path / "set", env=name, episodes=3, length=5, seed=4)
    episodes = open_store(path, verify=True)
    assert episodes.bounds.tolist() == [[0, 5], [5, 5], [10, 5]]
    assert (episodes.manifest["env"], episodes.manifest["seed"], episodes.manifest["policy"]) == (
        name,
        4,
        "random",
    )
    with pytest.raises(UserError, match="already exists"):
        generate(GENERATORS[name], tmp_path / "set", env=name)
    with pytest.raises(UserError, match="no option colour; it takes episodes"):
        generate(GENERATORS[name], tmp_path / "other", env=name, colour=1)


def test_generated_pictures_equal_collected_ones():
    env = Gridworld()
    frame, info = env.reset(seed=0)
    data = GENERATORS["gridworld"](episodes=20)
    same = np.flatnonzero((data["states"] == info["state"]).all(1))[0]
    assert (data["frames"][same] == frame.transpose(2, 0, 1)).all()
