"""LeRobotDataset folders of the package `lerobot` itself, read by us, and ours, read by it.

Command, in an environment that has lerobot beside this package: python benchmarks/lerobot_files.py [--out DIR]

Three ways, each compared value by value: pictures inside its tables, its videos (lossy: the greatest difference is told),
and a lossless folder of ours. Its own video reader does not load beside every torch, so frames are decoded by PyAV for it,
at the time stamps that it asks for. Exits 1 where anything but a lossy pixel differs.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from flags import flags_of

from jepa_world_model.data.batch import ActionSpace
from jepa_world_model.data.sources import FORMATS, ReadOptions, WriteOptions, open_episodes
from jepa_world_model.data.store import StoreWriter, open_store
from jepa_world_model.models.backbone import import_torchvision

LENGTHS, SIDE, CAMERA = (7, 5, 6), 96, "observation.images.top"


def columns(grey: bool) -> dict[str, np.ndarray]:
    """Frames [N,H,W,3] (noise, or one grey a frame, which a codec keeps), actions [N,2] and states [N,3]."""
    rng, count = np.random.default_rng(0), sum(LENGTHS)
    shape = (count, SIDE, SIDE, 3)
    levels = np.arange(count, dtype=np.uint8)[:, None, None, None] * 12
    frames = np.broadcast_to(levels, shape).copy() if grey else rng.integers(0, 256, shape, np.uint8)
    numbers = rng.normal(size=(count, 5)).astype(np.float32)
    return {CAMERA: frames, "action": numbers[:, :2], "observation.state": numbers[:, 2:]}


def theirs(root: Path, made: dict[str, np.ndarray], videos: bool) -> Path:
    """A data set that lerobot writes."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    kind = "video" if videos else "image"
    features = {
        CAMERA: {"dtype": kind, "shape": (SIDE, SIDE, 3), "names": ["height", "width", "channels"]},
        "action": {"dtype": "float32", "shape": (2,), "names": ["dx", "dy"]},
        "observation.state": {"dtype": "float32", "shape": (3,), "names": ["a", "b", "c"]},
    }
    data = LeRobotDataset.create("local/made", fps=10, root=root, features=features, use_videos=videos)
    start = 0
    for length in LENGTHS:
        for row in range(start, start + length):
            data.add_frame({name: values[row] for name, values in made.items()} | {"task": "push"})
        data.save_episode()
        start += length
    if hasattr(data, "finalize"):
        data.finalize()
    return root


def read_by_us(root: Path, cache: Path, made: dict[str, np.ndarray]) -> tuple[int, bool]:
    """The greatest difference of a pixel, and whether lengths, actions and states are equal."""
    found = open_episodes(root, ReadOptions(), cache_dir=cache)
    rows = found.transitions()
    pixels = np.abs(np.asarray(found.frames).astype(int) - made[CAMERA].transpose(0, 3, 1, 2)).max()
    same = tuple(found.lengths) == LENGTHS and np.array_equal(found.states, made["observation.state"])
    return int(pixels), same and np.array_equal(found.actions[rows], made["action"][rows])


def ours(place: Path, made: dict[str, np.ndarray]) -> Path:
    """The same data, written by us without loss."""
    space = ActionSpace(kind="continuous", dim=2, low=(-9.0, -9.0), high=(9.0, 9.0))
    frames, start = made[CAMERA].transpose(0, 3, 1, 2), 0
    with StoreWriter(
        place / "store", frame_shape=frames.shape[1:], space=space, state_names=("a", "b", "c")
    ) as writer:
        for length in LENGTHS:
            rows = slice(start, start + length)
            writer.add(frames[rows], made["action"][rows], made["observation.state"][rows])
            start += length
    FORMATS["lerobot"].write(open_store(place / "store"), place / "ours", WriteOptions())
    return place / "ours"


def read_by_them(root: Path, made: dict[str, np.ndarray]) -> tuple[int, bool]:
    """The same, through lerobot's own class."""
    from lerobot.datasets import lerobot_dataset

    lerobot_dataset.decode_video_frames = _decoded
    data = lerobot_dataset.LeRobotDataset(f"local/{root.name}", root=root)
    camera = next(name for name in data.meta.features if "images" in name)
    rows = [data[row] for row in range(len(data))]
    pixels = max(
        int(np.abs((row[camera].reshape(-1, SIDE, SIDE).numpy() * 255).round() - frame).max())
        for row, frame in zip(rows, made[CAMERA].transpose(0, 3, 1, 2), strict=True)
    )
    actions = np.stack([row["action"].numpy() for row in rows])
    between = np.delete(np.arange(len(actions)), np.cumsum(LENGTHS) - 1)  # no action follows the last frame
    same = np.array_equal(actions[between], made["action"][between])
    return pixels, data.num_episodes == len(LENGTHS) and same


def _decoded(path: Any, stamps: list[float], tolerance_s: float, *_: Any, **__: Any) -> torch.Tensor:
    with av.open(str(path)) as container:
        frames = [
            (float(frame.time), frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)
        ]
    chosen = []
    for stamp in stamps:
        time, frame = min(frames, key=lambda one: abs(one[0] - stamp))
        if abs(time - stamp) > tolerance_s:
            raise ValueError(f"no frame within {tolerance_s} s of {stamp} in {path}")
        chosen.append(torch.from_numpy(frame).permute(2, 0, 1).float() / 255)
    return torch.stack(chosen)


def main() -> int:
    """Write and read all three; 0 when they agree."""
    parser = flags_of(__doc__)
    parser.add_argument("--out", type=Path, help="keep the files here; it must not exist yet")
    given = parser.parse_args()
    good = True
    import_torchvision()  # lerobot imports it, and it may need the mend
    with tempfile.TemporaryDirectory() as temporary:
        place = given.out or Path(temporary, "sets")
        place.mkdir(parents=True)
        noise, grey = columns(grey=False), columns(grey=True)
        for name, allowed, look in (
            (
                "its pictures, read by us",
                0,
                lambda: read_by_us(theirs(place / "a", noise, False), place / "ca", noise),
            ),
            (
                "its videos, read by us",
                2,
                lambda: read_by_us(theirs(place / "b", grey, True), place / "cb", grey),
            ),
            ("ours, read by it", 0, lambda: read_by_them(ours(place, noise), noise)),
        ):
            pixels, same = look()
            good &= same and pixels <= allowed
            print(
                f"{name:<26} pixels differ by at most {pixels} of 255, the rest is {'equal' if same else 'NOT EQUAL'}"
            )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
