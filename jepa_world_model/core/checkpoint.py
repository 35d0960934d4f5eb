"""Checkpoints that are whole or absent: written beside, renamed into place, verified, never unpickled.

A checkpoint is a folder `step-00001000/` with model.safetensors, optimizer.safetensors, state.json (no
tensors) and manifest.json (checksums of the others, shapes of the weights).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.run import require_space, sync_folder, writing

FORMAT, VERSION = "jepa-wm-checkpoint", 1
MODEL, OPTIMIZER, STATE, MANIFEST = (
    "model.safetensors",
    "optimizer.safetensors",
    "state.json",
    "manifest.json",
)


# ---- saving ----


def save_checkpoint(
    folder: str | os.PathLike[str],
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    extra: Mapping[str, Any],
    keep: int = 3,
) -> Path:
    """Write the checkpoint of a step and delete all but the `keep` saved last; returns its folder.

    `extra` is plain JSON. A crash at any moment leaves the checkpoints before it as they were.
    Errors: UserError when the disk has no room or the folder cannot be written.
    """
    if keep < 1:
        raise ValueError(f"keep must be at least 1, got {keep}")
    folder = Path(folder)
    weights = _on_host(model.state_dict())
    moments, groups = _split_optimizer(optimizer)
    state = json.dumps({"step": step, "extra": dict(extra), "optimizer": groups}).encode()
    size = sum(tensor.nbytes for tensor in (*weights.values(), *moments.values()))
    require_space(folder, int(1.02 * size) + len(state) + 1_000_000)
    draft, final = folder / f".draft-{os.getpid()}", folder / f"step-{step:08d}"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(folder)
        serial = max((_serial(path) for path in _all(folder)), default=0) + 1
        draft.mkdir()
        try:
            _save_tensors(weights, draft / MODEL)
            _save_tensors(moments, draft / OPTIMIZER)
            (draft / STATE).write_bytes(state)
            files = {name: _sha256(draft / name) for name in (MODEL, OPTIMIZER, STATE)}
            shapes = {name: [str(tensor.dtype)[6:], *tensor.shape] for name, tensor in weights.items()}
            manifest = {"format": FORMAT, "version": VERSION, "step": step, "serial": serial}
            (draft / MANIFEST).write_text(
                json.dumps(manifest | {"sha256": files, "weights": shapes}, indent=1)
            )
            for path in draft.iterdir():
                _sync_file(path)
            sync_folder(draft)
            _put_in_place(draft, final)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    for old in _all(folder)[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def _on_host(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    """Copies on the CPU, each with memory of its own: tied weights are stored under every name."""
    odd = [name for name, value in tensors.items() if not isinstance(value, Tensor)]
    if odd:
        raise TypeError(f"a checkpoint holds tensors only; the model's state has others: {', '.join(odd)}")
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}


def _split_optimizer(optimizer: torch.optim.Optimizer | None) -> tuple[dict[str, Tensor], Any]:
    """(tensors by `<parameter number>/<name>`, the rest as plain JSON)."""
    if optimizer is None:
        return {}, None
    state = optimizer.state_dict()
    flat = {
        f"{number}/{name}": value for number, entry in state["state"].items() for name, value in entry.items()
    }
    tensors = {name: value for name, value in flat.items() if isinstance(value, Tensor)}
    plain = {name: value for name, value in flat.items() if not isinstance(value, Tensor)}
    return _on_host(tensors), {"param_groups": state["param_groups"], "plain": plain}


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(tensors, path)
    except SafetensorError as problem:
        raise UserError(f"cannot write {path.name}: {problem}; is the disk full?") from problem


def _put_in_place(draft: Path, final: Path) -> None:
    """Rename the draft to its name; one that is there already steps aside first and goes after."""
    aside = final.with_name(f".replaced-{final.name}")
    if final.exists():
        os.rename(final, aside)
    os.rename(draft, final)
    sync_folder(final.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _clear_leftovers(folder: Path) -> None:
    """Drafts that a crash left half written, and checkpoints that had stepped aside for a new one."""
    _bring_back(folder)
    for path in (*folder.glob(".replaced-*"), *folder.glob(".draft-*")):
        shutil.rmtree(path)


def _bring_back(folder: Path) -> None:
    """A checkpoint that had stepped aside when a crash came returns to its name."""
    for path in folder.glob(".replaced-*"):
        home = folder / path.name.removeprefix(".replaced-")
        if not home.exists():
            os.rename(path, home)


def _sync_file(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


# ---- finding ----


def _all(folder: Path) -> list[Path]:
    """Every checkpoint of a folder, the one saved last first (not the highest step, after a rewind)."""
    found = [path for path in folder.glob("step-*") if path.is_dir()]
    return sorted(found, key=lambda path: (_serial(path), path.name), reverse=True)


def _serial(path: Path) -> int:
    """The running number a checkpoint was saved under; 0 when its manifest cannot be read."""
    try:
        return int(_read_manifest(path)["serial"])
    except (UserError, KeyError, TypeError, ValueError):
        return 0


def latest_checkpoint(folder: str | os.PathLike[str]) -> Path | None:
    """The checkpoint saved last whose checksums hold; None when there is none at all.

    A damaged one is passed over with a warning. Errors: UserError when every one is damaged.
    """
    folder = Path(folder)
    _bring_back(folder)
    # One without a readable manifest may be the newest: it is looked at first, so that its loss is told.
    candidates = sorted(_all(folder), key=lambda path: _serial(path) == 0, reverse=True)
    for path in candidates:
        try:
            verify_checkpoint(path)
            return path
        except UserError as problem:
            warnings.warn(f"passing over a damaged checkpoint: {problem}", stacklevel=2)
    if candidates:
        raise UserError(
            f"all {len(candidates)} checkpoints in {folder} are damaged; restore one or start a new run"
        )
    return None


def verify_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The manifest of a checkpoint whose files are all what they were when saved; UserError otherwise."""
    path = Path(path)
    manifest = _read_manifest(path)
    for name, expected in manifest["sha256"].items():
        try:
            found = _sha256(path / name)
        except OSError as problem:
            raise UserError(f"checkpoint {path}: {name} cannot be read ({problem.strerror})") from None
        if found != expected:
            raise UserError(f"checkpoint {path}: {name} is not what was saved (its checksum differs)")
    return manifest


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        known = manifest["format"] == FORMAT and manifest["sha256"].keys() == {MODEL, OPTIMIZER, STATE}
        version = int(manifest["version"])
    except FileNotFoundError:
        raise UserError(f"{path} is no checkpoint: it has no {MANIFEST}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"checkpoint {path}: {MANIFEST} is damaged") from None
    if not known or version > VERSION:
        raise UserError(
            f"checkpoint {path}: format {version} is not known here; the newest known is {VERSION}"
        )
    return manifest


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


# ---- loading ----


def load_checkpoint(
    path: str | os.PathLike[str], model: nn.Module, optimizer: torch.optim.Optimizer | None = None
) -> dict[str, Any]:
    """Put a checkpoint into the model and the optimizer, bit for bit; returns `extra`, with `step` beside it.

    Hyperparameters of the optimizer stay those it was built with: they belong to the configuration.
    Errors: UserError for a damaged checkpoint or one of another model, before anything is changed.
    """
    path = Path(path)
    verify_checkpoint(path)
    state = json.loads((path / STATE).read_text())
    weights, own = load_file(path / MODEL), model.state_dict()
    require_same(f"checkpoint {path} is of another model", weights, own)
    moments = None
    if optimizer is not None:
        moments = _optimizer_state(path, state["optimizer"], load_file(path / OPTIMIZER), optimizer)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(weights[name])
    if moments is not None:
        optimizer.load_state_dict(moments)
    return {**state["extra"], "step": state["step"]}


def read_extra(path: str | os.PathLike[str]) -> dict[str, Any]:
    """`extra` of a checkpoint with `step` beside it, without its weights."""
    verify_checkpoint(path)
    state = json.loads((Path(path) / STATE).read_text())
    return {**state["extra"], "step": state["step"]}


def _optimizer_state(
    path: Path, saved: Any, tensors: dict[str, Tensor], optimizer: torch.optim.Optimizer
) -> Any:
    """What optimizer.load_state_dict takes: saved moments under the present hyperparameters."""
    if saved is None:
        raise UserError(f"checkpoint {path} holds no optimizer; it can be evaluated but not trained on")
    now = optimizer.state_dict()
    counts = [
        {part.get("name", str(number)): len(part["params"]) for number, part in enumerate(groups)}
        for groups in (saved["param_groups"], now["param_groups"])
    ]
    if list(counts[0].items()) != list(counts[1].items()):
        raise UserError(f"checkpoint {path} has other parameter groups: saved {counts[0]}, here {counts[1]}")
    parameters = [parameter for part in optimizer.param_groups for parameter in part["params"]]
    entries: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **saved["plain"]}.items():
        number, _, name = key.partition("/")
        parameter = parameters[int(number)]
        if isinstance(value, Tensor) and value.ndim and value.shape != parameter.shape:
            raise UserError(
                f"checkpoint {path}: the optimizer's {name} of parameter {number} is {tuple(value.shape)}, "
                f"the parameter is {tuple(parameter.shape)}"
            )
        if isinstance(value, Tensor) and value.ndim:
            # In the memory layout of the parameter, as the optimizer itself makes it: kernels rely on that.
            value = torch.empty_like(parameter, dtype=value.dtype, device="cpu").copy_(value)
        entries.setdefault(int(number), {})[name] = value
    return {"state": entries, "param_groups": now["param_groups"]}


def require_same(what: str, saved: Mapping[str, Tensor], own: Mapping[str, Tensor], most: int = 8) -> None:
    """UserError that names the keys in which two sets of tensors differ, with both shapes."""

    def told(tensor: Tensor) -> str:
        return f"{str(tensor.dtype)[6:]}{list(tensor.shape)}"

    differences = [f"{name} missing in the checkpoint" for name in own if name not in saved]
    differences += [f"{name} unknown to the model" for name in saved if name not in own]
    differences += [
        f"{name} saved {told(saved[name])}, model {told(own[name])}"
        for name in own
        if name in saved and told(saved[name]) != told(own[name])
    ]
    if differences:
        rest = f"; and {len(differences) - most} more" if len(differences) > most else ""
        raise UserError(
            f"{what}: {'; '.join(differences[:most])}{rest}; use the configuration it was trained with"
        )
