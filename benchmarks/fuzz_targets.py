"""What `fuzz.py` damages: small files of every kind that is read, and who reads them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzz_edits import words
from hypothesis import strategies as st
from kill import FLAGS

import jepa_world_model_trainer as trainer
from jepa_world_model.core.checkpoint import load_checkpoint
from jepa_world_model.core.log import read_metrics
from jepa_world_model.core.optim import build_optimizer
from jepa_world_model.core.toml import leaves
from jepa_world_model.data.batch import ActionSpace
from jepa_world_model.data.sources import FORMATS, ReadOptions, WriteOptions, open_episodes
from jepa_world_model.data.store import StoreWriter, open_store
from jepa_world_model.diagnostics.report import write_report
from jepa_world_model.experiment import TrainConfig, read_config
from jepa_world_model.experiment.load import load
from jepa_world_model.models.world_model import WorldModel

ROOT = Path(__file__).parents[1]
Files = dict[str, bytes | None]


@dataclass(frozen=True)
class Target:
    """Files and the command that reads them, or a strategy of inputs without files."""

    read: Callable[[Any], object]  # called with the folder, or with what the strategy has drawn
    folder: Path = Path()
    files: Mapping[str, bytes] = field(default_factory=dict)
    mend: Callable[[Files], None] | None = None  # puts checksums right after an edit
    strategy: st.SearchStrategy | None = None


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# ---- settings ----


def config(place: Path) -> Target:
    """A configuration file: all settings of the defaults, each in its line, and a shipped one beside it."""
    from jepa_world_model.core.config import to_toml

    files = {"all.toml": to_toml(TrainConfig()).encode()}
    for path in sorted((ROOT / "configs").glob("*.toml"))[:4]:
        files[path.name] = path.read_bytes()

    def read(folder: Path) -> None:
        # The first file that was touched is not known here: every one is read, and the first refusal ends it.
        for name in files:
            read_config(["--config", str(folder / name)], prog="trainer", description="")

    return Target(read, place / "configs", files)


def flags(place: Path) -> Target:
    """Flags of the trainer."""
    known = ["--config", "--fork", *("--" + path.replace("_", "-") for path, _ in leaves(TrainConfig))]
    return Target(lambda argv: read_config(argv, prog="trainer", description=""), strategy=words(known))


# ---- data sets ----


def noise(place: Path, size: int = 32) -> Path:
    """A store of three short episodes of random pictures."""
    rng = np.random.default_rng(0)
    space = ActionSpace(kind="discrete", dim=3, names=("rest", "left", "right"), noop=0)
    writer = StoreWriter(place / "noise", frame_shape=(3, size, size), space=space, state_names=("x", "y"),
                         env="Noise-v0", seed=0, policy="random")  # fmt: skip
    with writer:
        for length in (9, 2, 6):
            writer.add(rng.integers(0, 256, (length, 3, size, size), np.uint8), rng.integers(3, size=length),
                       rng.normal(size=(length, 2)).astype(np.float32))  # fmt: skip
    return place / "noise"


def data(name: str) -> Callable[[Path], Target]:
    """A data set of this format, opened and read to its end."""

    def make(place: Path) -> Target:
        made, out = place / "made", "set.h5" if name == "hdf5" else "set"
        made.mkdir()
        store = noise(place)
        if name == "store":
            shutil.copytree(store, made / out)
        else:
            FORMATS[name].write(open_store(store), made / out, WriteOptions())

        def read(folder: Path) -> None:
            shutil.rmtree(place / "cache", ignore_errors=True)
            episodes = open_episodes(folder / out, ReadOptions(format=name), cache_dir=place / "cache")
            np.asarray(episodes.frames).sum()

        return Target(read, place / "here", contents(made))

    return make


# ---- runs and models ----


def tiny_run(place: Path) -> Path:
    """A run of six steps with everything a run leaves."""
    place.mkdir(exist_ok=True)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = trainer.main([
            *FLAGS, "--steps", "6", "--checkpoint-every", "3", "--name", "run", "--output-dir", str(place / "runs"),
            "--data.cache-dir", str(place / "data"), "--no-diagnostics",
        ])  # fmt: skip
    assert code == 0
    return place / "runs/run"


def _tiny_task(run: Path) -> tuple[Any, torch.optim.Optimizer, Any]:
    from jepa_world_model.core.average import Average
    from jepa_world_model.experiment.build import no_decay

    loaded = load(run, device="cpu")
    task = loaded.task
    task.model.requires_grad_(True)
    return task, build_optimizer(task.groups, loaded.cfg.optim, no_decay), Average(task.model, 0.9)


def checkpoint(place: Path) -> Target:
    """The checkpoints of a run (two, and the best), some damaged: what is loaded is one of them as saved, or nothing."""
    run = tiny_run(place)
    whole = [
        _weights(run / "checkpoints" / name)
        for name in sorted(path.name for path in (run / "checkpoints").glob("step-*"))
    ]

    def read(folder: Path) -> None:
        shutil.copyfile(run / "config.toml", folder / "config.toml")
        shutil.copyfile(run / "actions.json", folder / "actions.json")
        model = load(folder, device="cpu").model.state_dict()
        assert any(all(torch.equal(model[k], v) for k, v in saved.items()) for saved in whole), (
            "damage was loaded"
        )

    files = {f"checkpoints/{name}": content for name, content in contents(run / "checkpoints").items()}
    return Target(read, place / "here", files)


def _weights(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return {**load_file(path / "model.safetensors"), **load_file(path / "average.safetensors")}


def checkpoint_with_checksums(place: Path) -> Target:
    """One checkpoint whose checksums were put right after the damage, loaded with optimizer and average."""
    run = tiny_run(place)
    task, optimizer, average = _tiny_task(run)

    def mend(files: Files) -> None:
        try:
            manifest = json.loads(files["manifest.json"])
            for name in manifest["sha256"]:
                manifest["sha256"][name] = hashlib.sha256(files[name]).hexdigest()
            files["manifest.json"] = json.dumps(manifest).encode()
        except (KeyError, TypeError, ValueError):
            pass  # what is wrong with it is the input

    def read(folder: Path) -> None:
        load_checkpoint(folder, task.model, optimizer, average)

    return Target(read, place / "here", contents(run / "checkpoints/step-00000006"), mend)


def run_folder(place: Path) -> Target:
    """The files of a run besides its checkpoints: loaded, its metrics read, its report written."""
    run = tiny_run(place)

    def read(folder: Path) -> None:
        if not (folder / "checkpoints").exists():
            (folder / "checkpoints").symlink_to(run / "checkpoints")
        load(folder, device="cpu")
        read_metrics(folder / "metrics.jsonl")
        write_report(folder)

    files = {
        n: c for n, c in contents(run).items() if not n.startswith(("checkpoints", "figures", "report", "."))
    }
    return Target(read, place / "here", files)


def released(place: Path) -> Target:
    """A released model."""
    loaded = load(tiny_run(place), device="cpu")
    loaded.model.save_pretrained(place / "released")
    return Target(
        lambda folder: WorldModel.from_pretrained(folder), place / "here", contents(place / "released")
    )


# ---- the vision-language-action pipeline ----


def _tokenizer() -> Any:
    from jepa_world_model.vla_ki.fast import FastTokenizer

    rng = np.random.default_rng(0)
    chunks = np.cumsum(rng.normal(size=(200, 10, 3)) * 0.2, 1).clip(-1, 1)
    return FastTokenizer.fit(chunks, vocab_size=512)


def fast_ids(place: Path) -> Target:
    """Sequences of FAST ids, decoded both ways: `pad` takes anything, `strict` refuses in a sentence."""
    tokenizer = _tokenizer()
    ids = st.one_of(
        st.integers(0, 520), st.integers(-5, 2**40), st.sampled_from([2**31, 2**63, -(2**63), 2**80])
    )

    def read(drawn: list[list[int]]) -> None:
        actions, ok = tokenizer.decode(drawn, 10, 3, mode="pad")
        assert np.isfinite(actions).all(), "pad gave numbers that are not finite"
        assert actions.shape == (len(drawn), 10, 3), "pad gave another shape"
        tokenizer.decode(drawn, 10, 3)
        assert ok.all(), "strict took what pad marked"

    return Target(read, strategy=st.lists(st.lists(ids, max_size=40), min_size=1, max_size=3))


def fast_file(place: Path) -> Target:
    """The file of a FAST tokenizer."""
    from jepa_world_model.vla_ki.fast import FastTokenizer

    _tokenizer().save(place / "fast.json")

    def read(folder: Path) -> None:
        FastTokenizer.load(folder / "fast.json").decode([[1, 2, 3]], 10, 3, mode="pad")

    return Target(read, place / "here", {"fast.json": (place / "fast.json").read_bytes()})


def robot_folder(place: Path) -> Target:
    """A LeRobot folder of demonstrations, as `ki-train` reads it."""
    from jepa_world_model.vla_ki.lerobot import RobotData, read_lerobot, write_lerobot

    rng = np.random.default_rng(0)
    made = RobotData(
        name="own", fps=10.0, tasks=("push", "pull"), states=rng.normal(size=(12, 3)).astype(np.float32),
        actions=rng.normal(size=(12, 2)).astype(np.float32), bounds=np.array([[0, 6], [6, 6]]), task=np.arange(12) // 6,
        cameras={"observation.images.top": rng.integers(0, 256, (12, 3, 32, 32), np.uint8)},
    )  # fmt: skip
    write_lerobot(place / "made", made)

    def read(folder: Path) -> None:
        robot = read_lerobot(folder, image_size=32)
        assert all(len(frames) == len(robot.states) for frames in robot.cameras.values())

    return Target(read, place / "here", contents(place / "made"))


TARGETS: dict[str, Callable[[Path], Target]] = {
    "config": config, "flags": flags,
    **{name: data(name) for name in ("store", "trajectories", "hdf5", "minari", "lerobot", "video")},
    "checkpoint": checkpoint, "checkpoint_with_checksums": checkpoint_with_checksums, "run_folder": run_folder,
    "released": released, "fast_ids": fast_ids, "fast_file": fast_file, "robot_folder": robot_folder,
}  # fmt: skip
