"""Checkpoints: bit-exact, whole or absent, verified, and clear about what does not fit."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from jepa_world_model.core import checkpoint
from jepa_world_model.core.average import Average
from jepa_world_model.core.checkpoint import (
    latest_checkpoint,
    load_checkpoint,
    load_common,
    read_average,
    read_extra,
    save_checkpoint,
    verify_checkpoint,
)
from jepa_world_model.core.errors import UserError
from jepa_world_model.core.optim import OptimConfig, build_optimizer
from jepa_world_model.core.rng import Streams, seed_everything


class Model(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1).to(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, width)
        self.tied = nn.Linear(4, width, bias=False)
        self.tied.weight = self.head.weight
        self.unused = nn.Linear(2, 2)  # never gets a gradient, so the optimizer has no state for it

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.norm(self.conv(x)).mean((2, 3))
        return self.head(features) + self.tied(features)


def build(seed: int, width: int = 4) -> tuple[Model, torch.optim.AdamW]:
    seed_everything(seed)
    model = Model(width)
    groups = {
        name: dict(child.named_parameters()) for name, child in model.named_children() if name != "tied"
    }
    return model, build_optimizer(groups, OptimConfig(lr=0.01))


def train(model: Model, optimizer: torch.optim.AdamW, first: int, last: int) -> None:
    for step in range(first, last):
        x = torch.randn(5, 3, 6, 6, generator=Streams(0).torch("data", step))
        optimizer.zero_grad(set_to_none=True)
        model(x).square().mean().backward()
        optimizer.step()


def bits(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    found = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for number, entry in optimizer.state_dict()["state"].items():
        found |= {f"{number}/{name}": tensor.clone() for name, tensor in entry.items()}
    return found


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) and first[name].dtype == second[name].dtype for name in first
    )


def test_training_goes_on_bit_for_bit_from_a_checkpoint(tmp_path: Path):
    model, optimizer = build(0)
    train(model, optimizer, 0, 5)
    at_five = bits(model, optimizer)
    path = save_checkpoint(tmp_path, 5, model, optimizer, {"best": 0.1 + 0.2, "note": "é"})
    train(model, optimizer, 5, 10)

    other, other_optimizer = build(1)
    assert load_checkpoint(path, other, other_optimizer) == {"best": 0.1 + 0.2, "note": "é", "step": 5}
    assert same(bits(other, other_optimizer), at_five)
    assert other.tied.weight is other.head.weight
    moment = other_optimizer.state[other.conv.weight]["exp_avg"]
    assert moment.stride() == other.conv.weight.stride()
    train(other, other_optimizer, 5, 10)
    assert same(bits(other, other_optimizer), bits(model, optimizer))


def test_hyperparameters_stay_those_of_the_present_configuration(tmp_path: Path):
    model, optimizer = build(0)
    train(model, optimizer, 0, 1)
    path = save_checkpoint(tmp_path, 1, model, optimizer, {})
    other, other_optimizer = build(0)
    for part in other_optimizer.param_groups:
        part["weight_decay"] = 0.77
    load_checkpoint(path, other, other_optimizer)
    assert all(part["weight_decay"] == 0.77 for part in other_optimizer.param_groups)


def test_weights_alone_are_enough_to_evaluate_and_not_to_train(tmp_path: Path):
    model, optimizer = build(0)
    path = save_checkpoint(tmp_path, 3, model, None, {"a": [1]})
    other, other_optimizer = build(1)
    assert load_checkpoint(path, other) == {"a": [1], "step": 3}
    assert torch.equal(other.head.weight, model.head.weight)
    assert read_extra(path) == {"a": [1], "step": 3}
    with pytest.raises(UserError, match="holds no optimizer"):
        load_checkpoint(path, other, other_optimizer)
    save_checkpoint(tmp_path, 4, model, optimizer, {})  # before its first step an optimizer has no state
    load_checkpoint(tmp_path / "step-00000004", other, other_optimizer)


def test_nothing_is_ever_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model, optimizer = build(0)
    train(model, optimizer, 0, 1)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("pickle was used")

    for module, name in [
        (torch, "load"),
        (torch, "save"),
        (pickle, "loads"),
        (pickle, "load"),
        (pickle, "Unpickler"),
    ]:
        monkeypatch.setattr(module, name, refuse)
    load_checkpoint(save_checkpoint(tmp_path, 1, model, optimizer, {}), model, optimizer)


def test_only_the_last_few_are_kept_and_the_newest_always(tmp_path: Path):
    model, optimizer = build(0)
    for step in (10, 20, 30, 40):
        save_checkpoint(tmp_path, step, model, optimizer, {}, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000030", "step-00000040"]
    # After a rewind, the newest is not the highest step.
    save_checkpoint(tmp_path, 15, model, optimizer, {}, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000015"]
    with pytest.raises(ValueError, match="keep must be 0"):
        save_checkpoint(tmp_path, 50, model, optimizer, {}, keep=-1)


def test_none_is_deleted_with_keep_0_and_protected_steps_stay_beside_the_newest(tmp_path: Path):
    model, _ = build(0)
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, model, None, {}, keep=0)
    assert len(list(tmp_path.iterdir())) == 3
    save_checkpoint(tmp_path, 4, model, None, {}, keep=2, protect=[1])
    assert sorted(int(path.name[5:]) for path in tmp_path.iterdir()) == [1, 3, 4]


def test_averaged_weights_come_back_and_are_asked_for_where_they_are_needed(tmp_path: Path):
    model, optimizer = build(0)
    average = Average(model, 0.9)
    train(model, optimizer, 0, 3)
    average.update(model)
    path = save_checkpoint(tmp_path, 3, model, optimizer, {}, average=average.state_dict())
    other, _ = build(1)
    fresh = Average(other, 0.9)
    load_checkpoint(path, other, None, fresh)
    assert same(fresh.state_dict(), average.state_dict())
    assert same(read_average(path), average.state_dict())
    bare = save_checkpoint(tmp_path, 4, model, optimizer, {})
    assert read_average(bare) is None
    with pytest.raises(UserError, match="no averaged weights"):
        load_checkpoint(bare, other, None, fresh)
    content = bytearray((path / "average.safetensors").read_bytes())
    content[-1] ^= 1
    (path / "average.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="checksum"):
        load_checkpoint(path, other)


@pytest.mark.parametrize("file", ["state.json", "optimizer.safetensors", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"step": 1, "extra": 3}', b"\xff" * 40])
def test_nonsense_with_a_fitting_checksum_is_refused_in_one_sentence(
    tmp_path: Path, file: str, content: bytes
):
    model, optimizer = build(0)
    train(model, optimizer, 0, 1)
    path = save_checkpoint(tmp_path, 1, model, optimizer, {})
    (path / file).write_bytes(content)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["sha256"][file] = hashlib.sha256(content).hexdigest()
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError) as problem:
        load_checkpoint(path, model, optimizer)
    assert "\n" not in str(problem.value)


def test_a_checkpoint_of_fewer_and_other_modules_gives_what_both_have(tmp_path: Path):
    model, optimizer = build(0)
    train(model, optimizer, 0, 3)
    path = save_checkpoint(tmp_path, 3, model, optimizer, {"a": 1})
    seed_everything(1)
    other = Model()
    del other.unused
    other.fresh = nn.Linear(3, 3)
    groups = {
        name: dict(child.named_parameters()) for name, child in other.named_children() if name != "tied"
    }
    other_optimizer = build_optimizer(groups, OptimConfig(lr=0.01))
    fresh = other.fresh.weight.detach().clone()
    assert load_common(path, other, other_optimizer) == {"a": 1, "step": 3}
    assert torch.equal(other.head.weight, model.head.weight)
    assert torch.equal(other.fresh.weight, fresh)
    assert other.fresh.weight not in other_optimizer.state
    moments = [o.state[m.head.weight]["exp_avg"] for m, o in ((model, optimizer), (other, other_optimizer))]
    assert torch.equal(*moments)
    wide, wide_optimizer = build(2, width=7)
    with pytest.raises(UserError, match=r"head.weight saved float32\[4, 4\], model float32\[7, 4\]"):
        load_common(path, wide, wide_optimizer)


def test_the_latest_is_the_one_saved_last_and_the_same_step_can_be_saved_again(tmp_path: Path):
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "none") is None
    model, _ = build(0)
    for step in (10, 20, 5):
        save_checkpoint(tmp_path, step, model, None, {"try": 1})
    assert latest_checkpoint(tmp_path).name == "step-00000005"
    path = save_checkpoint(tmp_path, 10, model, None, {"try": 2})
    assert latest_checkpoint(tmp_path) == path
    assert read_extra(path)["try"] == 2
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]
)
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path, name: str, damage: str):
    model, optimizer = build(0)
    train(model, optimizer, 0, 1)
    good = save_checkpoint(tmp_path, 1, model, optimizer, {})
    bad = save_checkpoint(tmp_path, 2, model, optimizer, {})
    content = bytearray((bad / name).read_bytes())
    if damage == "remove":
        (bad / name).unlink()
    else:
        content[len(content) // 2] ^= 255
        (bad / name).write_bytes(content if damage == "flip" else content[: len(content) // 2])
    with pytest.raises(UserError, match="step-00000002"):
        verify_checkpoint(bad)
    before = bits(model, optimizer)
    with pytest.raises(UserError, match="step-00000002"):
        load_checkpoint(bad, model, optimizer)
    assert same(before, bits(model, optimizer))
    with pytest.warns(UserWarning, match="passing over a damaged checkpoint"):
        assert latest_checkpoint(tmp_path) == good


def test_when_all_are_damaged_the_user_is_told(tmp_path: Path):
    model, _ = build(0)
    (save_checkpoint(tmp_path, 1, model, None, {}) / "state.json").write_text("{}")
    with pytest.warns(UserWarning, match="damaged"), pytest.raises(UserError, match="all 1 checkpoints"):
        latest_checkpoint(tmp_path)


@pytest.mark.parametrize("moment", ["save_file", "rename", "fsync"])
def test_a_failure_while_saving_leaves_what_was_there_and_no_draft(tmp_path: Path, monkeypatch, moment: str):
    model, optimizer = build(0)
    train(model, optimizer, 0, 1)
    first = save_checkpoint(tmp_path, 1, model, optimizer, {})

    def full(*_: object) -> None:
        if moment == "save_file":
            raise SafetensorError("No space left on device (os error 28)")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint if moment == "save_file" else os, moment, full)
    with pytest.raises(UserError, match="disk"):
        save_checkpoint(tmp_path, 2, model, optimizer, {})
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert latest_checkpoint(tmp_path) == first


def test_what_a_crash_left_behind_is_cleared_and_a_checkpoint_that_stepped_aside_returns(tmp_path: Path):
    model, _ = build(0)
    path = save_checkpoint(tmp_path, 1, model, None, {})
    os.rename(path, tmp_path / ".replaced-step-00000001")  # killed between the two renames
    (tmp_path / ".draft-123").mkdir()
    (tmp_path / ".draft-123" / "model.safetensors").write_bytes(b"half")
    assert latest_checkpoint(tmp_path) == path  # looking is enough: no save is needed first
    save_checkpoint(tmp_path, 2, model, None, {})
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]


def test_a_disk_without_room_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch):
    model, _ = build(0)
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match="not enough room"):
        save_checkpoint(tmp_path / "checkpoints", 1, model, None, {})
    assert list(tmp_path.iterdir()) == []


def test_another_model_is_refused_with_the_keys_that_differ_and_nothing_changes(tmp_path: Path):
    model, optimizer = build(0)
    path = save_checkpoint(tmp_path, 1, model, optimizer, {})
    wide, wide_optimizer = build(1, width=7)
    del wide.unused
    wide.extra = nn.Linear(2, 2)
    before = bits(wide, wide_optimizer)
    with pytest.raises(UserError) as problem:
        load_checkpoint(path, wide, wide_optimizer)
    message = str(problem.value)
    assert "head.weight saved float32[4, 4], model float32[7, 4]" in message
    assert "extra.bias missing in the checkpoint" in message
    assert "unused.weight unknown to the model" in message
    assert "\n" not in message
    assert same(before, bits(wide, wide_optimizer))


def test_a_long_list_of_differences_is_capped(tmp_path: Path):
    path = save_checkpoint(tmp_path, 1, nn.Sequential(*(nn.Linear(1, 1) for _ in range(10))), None, {})
    with pytest.raises(UserError, match="and 12 more"):
        load_checkpoint(path, nn.Sequential())
    with pytest.raises(UserError, match=r"0\.weight saved float32\[1, 1\], model float64\[1, 1\]"):
        load_checkpoint(path, nn.Sequential(*(nn.Linear(1, 1) for _ in range(10))).double())


def test_other_parameter_groups_are_refused_before_the_weights_change(tmp_path: Path):
    model, optimizer = build(0)
    path = save_checkpoint(tmp_path, 1, model, optimizer, {})
    other, _ = build(1)
    fewer = build_optimizer({"conv": dict(other.conv.named_parameters())}, OptimConfig())
    before = bits(other, fewer)
    with pytest.raises(UserError, match="other parameter groups"):
        load_checkpoint(path, other, fewer)
    assert same(before, bits(other, fewer))


def test_a_folder_that_is_no_checkpoint_and_a_newer_format_are_named(tmp_path: Path):
    model, _ = build(0)
    with pytest.raises(UserError, match="is no checkpoint"):
        load_checkpoint(tmp_path, model)
    path = save_checkpoint(tmp_path, 1, model, None, {})
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["weights"]["head.weight"] == ["float32", 4, 4]
    (path / "manifest.json").write_text(json.dumps(manifest | {"version": 99}))
    with pytest.raises(UserError, match="format 99 is not known here; the newest known is 1"):
        load_checkpoint(path, model)


def test_a_full_disk_while_tensors_are_written_is_told_as_everywhere_else(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise checkpoint.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(UserError, match="the disk is full; free some space"):
        checkpoint.save_checkpoint(tmp_path / "checkpoints", 1, torch.nn.Linear(1, 1), None, {})
    assert not list((tmp_path / "checkpoints").iterdir())
