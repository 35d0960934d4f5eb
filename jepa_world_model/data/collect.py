"""Collect: fill a store by stepping a Gymnasium environment."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.graph import unknown
from jepa_world_model.data.batch import ActionSpace
from jepa_world_model.data.frames import check_fit, fit_frame
from jepa_world_model.data.spaces import from_zero, is_image, read_space
from jepa_world_model.data.store import StoreWriter, write_arrays

Policy = Callable[
    [np.ndarray, np.random.Generator], Any
]  # observation, generator -> action of the environment


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """How much is collected, at which size, and how the random policy moves."""

    episodes: int = 0  # episodes to collect; 0: as many as `frames` needs
    frames: int = 0  # frames to collect, the last episode cut there; 0: as many as `episodes` have
    # steps of the environment that an action lasts; above 1 where a single step moves hardly a pixel
    skip: int = 1
    max_length: int = 500  # frames after which an episode is cut, though the environment goes on
    seed: int = 0  # of the environment's first reset and of the policy
    size: int = 64  # px, square that frames are resized to; 0 keeps their size
    # how a frame that is not square becomes one: "letterbox" (bars), "crop" or "squeeze"
    fit: str = "letterbox"
    # chance that the random policy repeats its last action; near 1 hardly turns
    repeat_action_prob: float = 0.0
    # discrete only: how much oftener than the others an action is drawn, by name or number; 1 where not given
    action_weights: dict[str, float] = field(default_factory=dict)
    press_prob: float = 0.3  # multi_binary only: chance of each button in a new random action

    def __post_init__(self) -> None:
        if (self.episodes > 0) == (self.frames > 0) or min(self.episodes, self.frames) < 0:
            raise UserError(
                f"episodes is {self.episodes} and frames is {self.frames}; set exactly one above 0"
            )
        if self.skip < 1:
            raise UserError(f"skip is {self.skip}; an action lasts 1 step of the environment or more")
        if self.max_length < 2 or self.frames == 1:
            raise UserError("an episode of 1 frame holds no action; use max_length and frames of 2 or more")
        if self.size < 0 or self.seed < 0:
            raise UserError(f"size is {self.size} and seed is {self.seed}; both must be 0 or more")
        check_fit(self.fit)
        if not (0 <= self.repeat_action_prob < 1 and 0 <= self.press_prob <= 1):
            raise UserError(
                f"repeat_action_prob {self.repeat_action_prob} must lie in [0, 1) and press_prob "
                f"{self.press_prob} in [0, 1]"
            )


def action_space_of(env: gymnasium.Env) -> ActionSpace:
    """The action space of an environment, with names and the no-op where it tells them."""
    return read_space(env.action_space, _action_names(env))


def _action_names(env: gymnasium.Env) -> tuple[str, ...]:
    if callable(meanings := getattr(env.unwrapped, "get_action_meanings", None)):
        return tuple(str(name) for name in meanings())
    return _names(env, "action_names")


def random_policy(env: gymnasium.Env, config: CollectConfig) -> Policy:
    """Uniform actions, each repeated with `repeat_action_prob`; button by button for multi_binary actions."""
    space, last = env.action_space, None
    share = _shares(env, config.action_weights)

    def act(observation: np.ndarray, rng: np.random.Generator) -> Any:
        nonlocal last
        if isinstance(space, gymnasium.spaces.Discrete):
            drawn = rng.integers(space.n) if share is None else rng.choice(len(share), p=share)
            new: Any = int(space.start + drawn)
        elif isinstance(space, gymnasium.spaces.MultiBinary):
            new = (rng.random(space.shape) < config.press_prob).astype(space.dtype)
        else:
            new = rng.uniform(space.low, space.high).astype(space.dtype)
        repeats = last is not None and rng.random() < config.repeat_action_prob
        last = last if repeats else new
        return last

    return act


def _shares(env: gymnasium.Env, weights: Mapping[str, float]) -> np.ndarray | None:
    """Probability of each discrete action; None where all are alike. Errors: UserError for what cannot be weighed."""
    if not weights:
        return None
    if not isinstance(env.action_space, gymnasium.spaces.Discrete):
        raise UserError(f"action_weights are for discrete actions; these are {env.action_space}")
    space = action_space_of(env)
    names = [name.lower() for name in space.names or map(str, range(space.dim))]
    share = np.ones(space.dim)
    for name, weight in weights.items():
        at = names.index(name.lower()) if name.lower() in names else int(name) if name.isdecimal() else -1
        if not 0 <= at < space.dim:
            raise UserError(f"action_weights: {unknown('action', name, names)}")
        if not (np.isfinite(weight) and weight >= 0):
            raise UserError(f"action_weights: {name} is {weight}; a weight is 0 or more")
        share[at] = weight
    if not share.sum():
        raise UserError("action_weights are all 0, so no action is left to draw; give at least one above 0")
    return share / share.sum()


def collect(
    env: gymnasium.Env,
    out: str | Path,
    config: CollectConfig,
    *,
    policy: Policy | str = "random",
    progress: Callable[[int], None] = lambda frames: None,
) -> Path:
    """Step an environment and store its episodes under `out`.

    Frames are image observations where there are any, else what `render()` returns. State t (`info["state"]`)
    belongs to frame t, action t follows it, and the last observation of an episode is stored, too. `progress`
    is called with the number of frames after each episode.
    """
    if isinstance(policy, str) and policy != "random":
        raise UserError(f"policy is {policy!r}; use 'random' or a function of observation and generator")
    space = action_space_of(env)
    act = random_policy(env, config) if isinstance(policy, str) else policy
    rng = np.random.default_rng([config.seed, 0xC011])
    observation, info = env.reset(seed=config.seed)
    names = _state_names(env, info)
    session = _Session(env, space, act, rng, config, bool(names))
    writer = StoreWriter(
        out,
        frame_shape=frame_of(env, observation, config.size, config.fit).shape,
        space=space,
        state_names=names,
        env=_env_name(env),
        seed=config.seed,
        policy=policy if isinstance(policy, str) else getattr(policy, "__name__", type(policy).__name__),
        about={
            "env_options": _plain(env.spec.kwargs if env.spec else {}),
            "repeat_action_prob": config.repeat_action_prob,
            "fit": config.fit,
            "skip": config.skip,
            "action_weights": dict(config.action_weights),
            "max_length": config.max_length,
            "gymnasium": gymnasium.__version__,
        },
    )
    stored = 0
    with writer:
        while True:
            rest = config.frames - stored if config.frames else config.max_length
            episode = session.episode(observation, info, min(config.max_length, rest))
            writer.add(*episode)
            stored += len(episode[0])
            progress(stored)
            # A rest of one frame holds no action and is left out.
            if len(writer.bounds) == config.episodes or (config.frames and stored >= config.frames - 1):
                return Path(out)
            observation, info = env.reset()


@dataclass(frozen=True)
class _Session:
    env: gymnasium.Env
    space: ActionSpace
    act: Policy
    rng: np.random.Generator
    config: CollectConfig
    has_state: bool

    def episode(
        self, observation: Any, info: Mapping[str, Any], limit: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Frames [L,C,H,W], actions [L-1,...] and states [L,S] of one episode of at most `limit` frames."""
        frames, actions, states = [self._frame(observation)], [], [self._state(info)]
        over = False
        while not over and len(frames) < limit:
            action = self.act(observation, self.rng)
            for _ in range(self.config.skip):
                observation, _, terminated, truncated, info = self.env.step(action)
                if over := bool(terminated or truncated):
                    break
            frames.append(self._frame(observation))
            actions.append(action)
            states.append(self._state(info))
        raw = from_zero(np.asarray(actions), self.env.action_space)
        raw = raw.reshape(len(actions), *self.space.raw_shape)
        return np.stack(frames), raw, np.stack(states) if self.has_state else None

    def _frame(self, observation: Any) -> np.ndarray:
        return frame_of(self.env, observation, self.config.size, self.config.fit)

    def _state(self, info: Mapping[str, Any]) -> np.ndarray | None:
        if not self.has_state:
            return None
        if "state" not in info:
            raise UserError(
                "info has a state at the first reset but not later; give it at every reset and step"
            )
        return np.asarray(info["state"], np.float32).reshape(-1)


def frame_of(env: gymnasium.Env, observation: Any, size: int, fit: str = "letterbox") -> np.ndarray:
    """The present frame [C,H,W] uint8: the observation where it is an image, else the rendered picture."""
    image = observation if is_image(env.observation_space) else env.render()
    if image is None:
        raise UserError(
            f"{_env_name(env)} gives no image: its observations are {env.observation_space} and render() "
            "returns nothing; make it with render_mode='rgb_array'"
        )
    image = np.asarray(image)
    if image.ndim not in (2, 3) or image.dtype != np.uint8:
        raise UserError(f"{_env_name(env)} gives frames {image.dtype} {image.shape}; uint8 [H,W,C] is needed")
    image = image if image.ndim == 3 else image[:, :, None]
    image = fit_frame(image, size, fit) if size else image
    return np.ascontiguousarray(image.transpose(2, 0, 1))


def _state_names(env: gymnasium.Env, info: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the true state that `info` tells; empty where it tells none."""
    if "state" not in info:
        return ()
    width = len(np.asarray(info["state"]).reshape(-1))
    names = _names(env, "state_names")
    return names if len(names) == width else tuple(f"s{i}" for i in range(width))


def _names(env: gymnasium.Env, attribute: str) -> tuple[str, ...]:
    """Names that the environment or one of its wrappers tells."""
    told = env.get_wrapper_attr(attribute) if env.has_wrapper_attr(attribute) else ()
    return tuple(str(name) for name in told)


def _env_name(env: gymnasium.Env) -> str:
    return env.spec.id if env.spec else type(env.unwrapped).__name__


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as JSON holds them; what it cannot hold, as text."""
    simple = (str, int, float, bool, type(None))
    return {str(k): v if isinstance(v, simple) else repr(v) for k, v in options.items()}


def generate(
    generator: Callable[..., Mapping[str, Any]], out: str | Path, *, env: str, **options: Any
) -> Path:
    """A store under `out` from a generator of arrays, such as those in `jepa_world_model.envs.GENERATORS`."""
    if Path(out).exists():
        raise UserError(f"{out} already exists and is not overwritten; choose another name or move it away")
    if unknown := sorted(set(options) - set(known := inspect.signature(generator).parameters)):
        raise UserError(f"{env} has no option {', '.join(unknown)}; it takes {', '.join(known)}")
    arrays = generator(**options)
    policy = str(arrays.get("about", {}).get("pattern", "generated"))
    return write_arrays(
        out, arrays, env=env, seed=int(options.get("seed", 0)), policy=policy, options=_plain(options)
    )
