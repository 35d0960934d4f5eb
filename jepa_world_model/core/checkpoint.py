"""Checkpoints that are whole or absent: written beside, renamed into place, verified, never unpickled.

A checkpoint is a folder `step-00001000/` with model.safetensors, optimizer.safetensors, average.safetensors (where
the weights are averaged), state.json (no tensors) and manifest.json (checksums of the others, shapes of the weights).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from jepa_world_model.core.average import Average
from jepa_world_model.core.errors import UserError
from jepa_world_model.core.run import require_space, sync_folder, writing

FORMAT, VERSION = "jepa-wm-checkpoint", 1
MODEL, OPTIMIZER, AVERAGE = "model.safetensors", "optimizer.safetensors", "average.safetensors"
STATE, MANIFEST = "state.json", "manifest.json"


# ---- saving ----


def save_checkpoint(
    folder: str | os.PathLike[str],
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    extra: Mapping[str, Any],
    keep: int = 3,
    *,
    average: Mapping[str, Tensor] | None = None,
    protect: Collection[int] = (),
) -> Path:
    """Write the checkpoint of a step and delete all but the `keep` saved last; returns its folder.

    `extra` is plain JSON. keep 0 deletes none; checkpoints of the steps in `protect` stay and do not count. average:
    averaged weights. A crash at any moment leaves the checkpoints before it as they were.
    Errors: UserError when the disk has no room or the folder cannot be written.
    """
    if keep < 0:
        raise ValueError(f"keep must be 0 (all) or more, got {keep}")
    folder = Path(folder)
    moments, groups = _split_optimizer(optimizer)
    parts = {MODEL: _on_host(model.state_dict()), OPTIMIZER: moments}
    if average is not None:
        parts[AVERAGE] = _on_host(average)
    state = json.dumps({"step": step, "extra": dict(extra), "optimizer": groups}).encode()
    size = sum(tensor.nbytes for tensors in parts.values() for tensor in tensors.values())
    require_space(folder, int(1.02 * size) + len(state) + 1_000_000)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        final = _write(folder, step, parts, state)
    prune(folder, keep, protect)
    return final


def _write(folder: Path, step: int, parts: Mapping[str, dict[str, Tensor]], state: bytes) -> Path:
    """Draft, checksums, sync, rename."""
    draft, final = folder / f".draft-{os.getpid()}", folder / f"step-{step:08d}"
    _clear_leftovers(folder)
    serial = max((_serial(path) for path in _all(folder)), default=0) + 1
    draft.mkdir()
    try:
        for name, tensors in parts.items():
            _save_tensors(tensors, draft / name)
        (draft / STATE).write_bytes(state)
        files = {name: _sha256(draft / name) for name in (*parts, STATE)}
        shapes = {name: [str(tensor.dtype)[6:], *tensor.shape] for name, tensor in parts[MODEL].items()}
        manifest = {"format": FORMAT, "version": VERSION, "step": step, "serial": serial}
        (draft / MANIFEST).write_text(json.dumps(manifest | {"sha256": files, "weights": shapes}, indent=1))
        for path in draft.iterdir():
            _sync_file(path)
        sync_folder(draft)
        _put_in_place(draft, final)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return final


def prune(folder: str | os.PathLike[str], keep: int, protect: Collection[int] = ()) -> None:
    """Delete all but the `keep` checkpoints saved last and those of the steps in `protect`; keep 0 deletes none."""
    spared = {f"step-{step:08d}" for step in protect}
    for old in [path for path in _all(Path(folder)) if path.name not in spared][keep:] if keep else ():
        shutil.rmtree(old, ignore_errors=True)


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
        # The library keeps the system's number in its words alone; as an OSError it gets the sentence of `writing`.
        number = re.search(r"os error (\d+)", str(problem))
        if number:
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from problem
        raise UserError(f"cannot write {path.name} in {path.parents[1]}: {problem}") from problem


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
        files = set(manifest["sha256"]) - {AVERAGE}
        known = manifest["format"] == FORMAT and files == {MODEL, OPTIMIZER, STATE}
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
    path: str | os.PathLike[str],
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    average: Average | None = None,
) -> dict[str, Any]:
    """Put a checkpoint into model, optimizer and average, bit for bit; returns `extra`, with `step` beside it.

    Hyperparameters of the optimizer stay those it was built with: they belong to the configuration.
    Errors: UserError for a damaged checkpoint or one of another model, before anything is changed.
    """
    path = Path(path)
    state, weights = _read_state(path), _read_tensors(path, MODEL)
    require_same(f"checkpoint {path} is of another model", weights, model.state_dict())
    moments = None
    if optimizer is not None:
        moments = _optimizer_state(path, state["optimizer"], optimizer, whole=True)
    if average is not None:
        average.load_state_dict(read_average(path, needed=True))
    _copy_weights(weights, model)
    if moments is not None:
        optimizer.load_state_dict(moments)
    return {**state["extra"], "step": state["step"]}


def load_common(
    path: str | os.PathLike[str],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Average | None = None,
) -> dict[str, Any]:
    """As `load_checkpoint`, for a model of which the checkpoint holds only some child modules, or more of them.

    A child module (parameter group) is taken whole or not at all. What the model has besides stays as it is, with an
    optimizer that knows nothing of it yet. An average that the checkpoint has not starts at the weights.
    Errors: UserError as `load_checkpoint`; for a module that both have, in other shapes.
    """
    path = Path(path)
    state, weights, own = _read_state(path), _read_tensors(path, MODEL), model.state_dict()
    shared = {name.partition(".")[0] for name in weights} & {name.partition(".")[0] for name in own}
    common = lambda tensors: {n: t for n, t in tensors.items() if n.partition(".")[0] in shared}
    weights = common(weights)
    require_same(f"checkpoint {path} holds other shapes", weights, common(own))
    moments = _optimizer_state(path, state["optimizer"], optimizer, whole=False)
    averaged = None if average is None else common(read_average(path) or weights)
    _copy_weights(weights, model)
    optimizer.load_state_dict(moments)
    if average is not None:
        average.load_state_dict(average.values | {n: t for n, t in averaged.items() if n in average.values})
    return {**state["extra"], "step": state["step"]}


def read_extra(path: str | os.PathLike[str]) -> dict[str, Any]:
    """`extra` of a checkpoint with `step` beside it, without its weights."""
    state = _read_state(Path(path))
    return {**state["extra"], "step": state["step"]}


def read_average(path: str | os.PathLike[str], *, needed: bool = False) -> dict[str, Tensor] | None:
    """The averaged weights of a verified checkpoint; None where it holds none, or UserError if they are `needed`."""
    if (Path(path) / AVERAGE).is_file():
        return _read_tensors(Path(path), AVERAGE)
    if needed:
        raise UserError(f"checkpoint {path} holds no averaged weights; go on without --ema, or begin a fork")
    return None


def _copy_weights(weights: Mapping[str, Tensor], model: nn.Module) -> None:
    own = model.state_dict()
    with torch.no_grad():
        for name, tensor in weights.items():
            own[name].copy_(tensor)


def _read_state(path: Path) -> dict[str, Any]:
    """state.json of a checkpoint, after its checksums were found to hold."""
    verify_checkpoint(path)
    try:
        state = json.loads((path / STATE).read_text())
        if isinstance(state["extra"], dict) and state["step"] == int(state["step"]):
            return {"optimizer": None, **state}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise UserError(f"checkpoint {path}: {STATE} is damaged")


def _read_tensors(path: Path, name: str) -> dict[str, Tensor]:
    try:
        return load_file(path / name)
    except (OSError, SafetensorError, ValueError, KeyError) as problem:
        raise UserError(f"checkpoint {path}: {name} cannot be read ({problem})") from None


def _optimizer_state(path: Path, saved: Any, optimizer: torch.optim.Optimizer, *, whole: bool) -> Any:
    """What optimizer.load_state_dict takes: saved moments under the present hyperparameters."""
    if saved is None:
        raise UserError(f"checkpoint {path} holds no optimizer; it can be evaluated but not trained on")
    now, entries = optimizer.state_dict(), {}
    try:
        places = _places(path, saved["param_groups"], now["param_groups"], whole)
        values = {**_read_tensors(path, OPTIMIZER), **saved["plain"]}
        parsed = [(int(key.partition("/")[0]), key.partition("/")[2], value) for key, value in values.items()]
    except (KeyError, TypeError, AttributeError, ValueError) as problem:
        if isinstance(problem, UserError):
            raise
        raise UserError(f"checkpoint {path}: the state of its optimizer is damaged") from None
    parameters = [parameter for part in optimizer.param_groups for parameter in part["params"]]
    for number, name, value in parsed:
        if number not in places:
            continue
        parameter = parameters[places[number]]
        if isinstance(value, Tensor) and value.ndim and value.shape != parameter.shape:
            raise UserError(
                f"checkpoint {path}: the optimizer's {name} of parameter {number} is {tuple(value.shape)}, "
                f"the parameter is {tuple(parameter.shape)}"
            )
        if isinstance(value, Tensor) and value.ndim:
            # In the memory layout of the parameter, as the optimizer itself makes it: kernels rely on that.
            value = torch.empty_like(parameter, dtype=value.dtype, device="cpu").copy_(value)
        entries.setdefault(places[number], {})[name] = value
    return {"state": entries, "param_groups": now["param_groups"]}


def _places(path: Path, saved: list[dict], now: list[dict], whole: bool) -> dict[int, int]:
    """Number of a parameter when saved -> its number now, by the name of its part and its place there."""
    parts = [
        {part.get("name", str(number)): part["params"] for number, part in enumerate(groups)}
        for groups in (saved, now)
    ]
    counts = [{name: len(numbers) for name, numbers in part.items()} for part in parts]
    both = [name for name in counts[0] if name in counts[1]]
    if any(counts[0][name] != counts[1][name] for name in both) or (
        whole and list(counts[0].items()) != list(counts[1].items())
    ):
        raise UserError(f"checkpoint {path} has other parameter groups: saved {counts[0]}, here {counts[1]}")
    return {a: b for name in both for a, b in zip(parts[0][name], parts[1][name], strict=True)}


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
