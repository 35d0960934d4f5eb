"""Minari data sets on disk, read and written by Minari itself.

    <folder>/data/metadata.json     spaces, counts and format
    <folder>/data/...               hdf5, arrow or parquet, whichever Minari wrote

Observations are images, or a dictionary that holds some; `state` in that dictionary is taken as the true state.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.extras import require
from jepa_world_model.data.episodes import Episodes
from jepa_world_model.data.sources.recording import (
    Format,
    ReadOptions,
    Recording,
    WriteOptions,
    choose_camera,
    draft,
    episode_rows,
    one_line,
    origin_of,
    with_origin,
)
from jepa_world_model.data.spaces import from_zero, gym_space, is_image, read_space

METADATA = "metadata.json"
ORIGIN = "jepa_wm_origin"  # a key of the metadata; written by `convert`, not needed
WHOLE = "observations"  # what the images are called where the observation is nothing else
SETS = "Minari data sets"


def _data(path: Path) -> Path | None:
    """The folder that holds the metadata; None where this is no Minari data set."""
    for folder in (path / "data", path):
        try:
            if "data_format" in json.loads((folder / METADATA).read_bytes()):
                return folder
        except (OSError, ValueError, TypeError):
            continue
    return None


def files(path: Path) -> list[Path]:
    """Data and metadata."""
    return sorted(p for p in (_data(path) or path).rglob("*") if p.is_file())


class _damage:
    """Whatever Minari and the libraries below it find wrong becomes one sentence."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, UserError) or not isinstance(error, Exception):
            return
        if isinstance(error, ImportError):
            raise UserError(
                f"{self.path} needs a package that is not installed: {one_line(error)}; "
                "pip install 'jepa-world-model[data]'"
            ) from None
        raise UserError(f"{self.path} is not a readable Minari data set ({one_line(error)})") from None


def read(path: Path, options: ReadOptions) -> Recording:
    """The episodes of a data set. Errors: UserError when it has no images, or when Minari cannot read it."""
    storages = require("minari.dataset.minari_storage", SETS, "data")
    folder = _data(path)
    if folder is None:
        raise UserError(f"{path} is no Minari data set: it has no data/{METADATA} that names a data_format")
    with _damage(path):
        storage = storages.MinariStorage.read(folder)
        numbers = list(range(storage.total_episodes))
        if not numbers:
            raise UserError(f"{path} holds no episode; record one, or choose another data set")
        observations = storage.observation_space
        cameras = [name for name, space in _leaves(observations) if is_image(space)]
        camera = choose_camera(cameras, options.camera, str(path))
        state = "state" if "state" in dict(_leaves(observations)) else ""
        actions, states, lengths = [], [], []
        for episode in storage.get_episodes(numbers):  # decodes images too; Minari reads whole episodes only
            actions.append(from_zero(np.asarray(episode["actions"]), storage.action_space))
            lengths.append(len(_leaf(episode["observations"], camera)))
            if state:
                rows = np.asarray(_leaf(episode["observations"], state), np.float32)
                states.append(rows.reshape(len(rows), -1))
        about = {"env": _env(storage.metadata), "policy": storage.metadata.get("algorithm_name")}
    recording = Recording(
        names=[f"{path}, episode {i}" for i in numbers],
        actions=actions,
        lengths=lengths,
        frames=lambda: _frames(path, storage, numbers, camera),
        states=states if state else None,
        state_names=tuple(f"s{i}" for i in range(int(np.prod(states[0].shape[1:])))) if state else (),
        space=read_space(storage.action_space),
        about={k: v for k, v in about.items() if v},
    )
    return with_origin(recording, storage.metadata.get(ORIGIN), f"{folder / METADATA}, {ORIGIN}")


def _frames(path: Path, storage: Any, numbers: list[int], camera: str) -> Iterator[Iterable[np.ndarray]]:
    with _damage(path):
        for episode in storage.get_episodes(numbers):
            images = np.asarray(_leaf(episode["observations"], camera))
            yield [images if images.ndim == 4 else images[..., None]]


def _leaves(space: gymnasium.Space, prefix: str = "") -> Iterator[tuple[str, gymnasium.Space]]:
    """Every space inside a dictionary of spaces, by its dotted name."""
    if isinstance(space, spaces.Dict):
        for name, inner in space.spaces.items():
            yield from _leaves(inner, f"{prefix}{name}.")
    else:
        yield prefix.rstrip(".") or WHOLE, space


def _leaf(observations: Any, name: str) -> Any:
    if isinstance(observations, dict):
        head, _, rest = name.partition(".")
        return _leaf(observations[head], rest)
    return observations


def _env(metadata: dict[str, Any]) -> str:
    try:
        return str(json.loads(metadata["env_spec"])["id"])
    except (KeyError, TypeError, ValueError):
        return str(metadata.get("dataset_id", ""))


def write(episodes: Episodes, out: Path, options: WriteOptions) -> None:
    """A data set that `minari.load_dataset` finds when MINARI_DATASETS_PATH is the folder around it.

    Images are kept to the last pixel, or as JPEG where a crf is set. Errors: UserError when Minari is missing.
    """
    storages = require("minari.dataset.minari_storage", SETS, "data")
    buffers = require("minari.data_collector.episode_buffer", SETS, "data")
    channels, height, width = episodes.frames.shape[1:]
    image = spaces.Box(0, 255, (height, width, channels), np.uint8)
    space: gymnasium.Space = image
    if episodes.states is not None:
        space = spaces.Dict(
            pixels=image, state=spaces.Box(-np.inf, np.inf, episodes.states.shape[1:], np.float32)
        )
    with draft(out) as folder:
        folder.mkdir()
        # Absolute: Minari joins a relative path to itself when it counts bytes.
        storage = storages.MinariStorage.new(
            folder.absolute() / "data", observation_space=space, action_space=gym_space(episodes.space), data_format="hdf5",
            jpeg_encoding=bool(options.crf),
        )  # fmt: skip
        name = re.sub(r"[^-\w]", "_", out.name)
        storage.update_metadata(
            {
                "dataset_id": name if re.search(r"-v\d+$", name) else f"{name}-v0",
                "minari_version": importlib.metadata.version("minari"),
                "algorithm_name": str(episodes.manifest.get("policy") or "recorded"),
                ORIGIN: json.dumps(origin_of(episodes)),
            }
        )
        storage.update_episodes(
            _buffer(buffers, episodes, rows, length) for rows, length in episode_rows(episodes)
        )


def _buffer(buffers: Any, episodes: Episodes, rows: slice, length: int) -> Any:
    images = np.ascontiguousarray(np.asarray(episodes.frames[rows]).transpose(0, 2, 3, 1))
    observations: Any = (
        images if episodes.states is None else {"pixels": images, "state": episodes.states[rows]}
    )
    steps = length - 1
    return buffers.EpisodeBuffer(
        observations=observations,
        actions=np.asarray(episodes.actions[rows])[:steps],
        rewards=[0.0] * steps,  # a data set of ours has none
        terminations=[False] * steps,
        truncations=[i == steps - 1 for i in range(steps)],
    )


MINARI = Format(
    name="minari",
    looks="data/metadata.json of Minari",
    matches=lambda path: path.is_dir() and _data(path) is not None,
    files=files,
    read=read,
    write=write,
)
