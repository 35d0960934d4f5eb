"""Released models: what is written is what is read; what is not whole, known or allowed is one sentence."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from jepa_world_model import ModelConfig, WorldModel
from jepa_world_model.core.errors import UserError
from tests.models.build import small

GROUPS = ("encoder", "decoder", "predictor", "h_to_z", "z_to_h")


@pytest.fixture
def model() -> WorldModel:
    torch.manual_seed(0)
    return WorldModel(small(), GROUPS)


def test_a_model_comes_back_with_its_parts_its_sizes_and_every_bit(model, tmp_path):
    folder = model.save_pretrained(tmp_path / "m", extra={"action_space": {"kind": "discrete"}})
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    torch.manual_seed(1)
    back = WorldModel.from_pretrained(folder)
    assert back.cfg == model.cfg
    assert [name for name, _ in back.named_children()] == [name for name, _ in model.named_children()]
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), back.state_dict().values(), strict=True)
    )
    assert not back.training
    about = json.loads((folder / "config.json").read_text())
    assert about["action_space"] == {"kind": "discrete"}
    assert about["model"]["z_dim"] == 12


@pytest.mark.parametrize("changes", [{"spectral_norm": True}, {"keypoints": 0}, {"z_norm": True}])
def test_every_kind_of_model_comes_back(changes, tmp_path):
    model = WorldModel(small(**changes), GROUPS)
    back = WorldModel.from_pretrained(model.save_pretrained(tmp_path))
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), back.state_dict().values(), strict=True)
    )


def test_the_file_a_backbone_started_from_is_not_asked_of_others(model, tmp_path):
    cfg = ModelConfig(**{**vars(model.cfg), "backbone": "resnet18", "backbone_weights": "/home/me/w.pt"})
    model.cfg = cfg
    model.save_pretrained(tmp_path)
    assert "/home/me" not in (tmp_path / "config.json").read_text()


def test_writing_again_replaces_and_own_keys_cannot_be_taken(model, tmp_path):
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    model.save_pretrained(tmp_path, card="# mine\n")
    back = WorldModel.from_pretrained(tmp_path)
    assert torch.equal(next(back.parameters()), next(model.parameters()))
    assert (tmp_path / "README.md").read_text() == "# mine\n"
    with pytest.raises(ValueError, match="extra holds groups"):
        model.save_pretrained(tmp_path, extra={"groups": []})


def test_the_plain_card_tells_every_part(model, tmp_path):
    text = (model.save_pretrained(tmp_path) / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: jepa-world-model\ntags:\n- jepa\n")
    count = sum(parameter.numel() for parameter in model.encoder.parameters())
    assert f"| encoder | {count:,} |" in text
    assert all(f"| {name} |" in text for name in GROUPS)


def damage(folder: Path, name: str, text: str | None) -> None:
    """Change a file of a released model, or take it away."""
    if text is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(text)


@pytest.mark.parametrize(("name", "text", "words"), [
    ("config.json", None, "holds no config.json"),
    ("model.safetensors", None, "holds no model.safetensors"),
    ("config.json", "{", "describes no world model"),
    ("config.json", "{}", "describes no world model"),
    ("config.json", '{"format": "diffusers", "version": 1, "groups": [], "model": {}}', "of format 'diffusers' 1"),
    ("config.json", '{"format": "jepa-world-model", "version": 9, "groups": [], "model": {}}', "known here is"),
    ("config.json", '{"format": "jepa-world-model", "version": 1, "groups": [], "model": {"z_dum": 3}}', "mean z_dim"),
    ("model.safetensors", "short", "is damaged"),
])  # fmt: skip
def test_what_is_not_whole_or_known_is_one_sentence(model, tmp_path, name, text, words):
    model.save_pretrained(tmp_path)
    damage(tmp_path, name, text)
    with pytest.raises(UserError, match=words):
        WorldModel.from_pretrained(tmp_path)


def test_weights_of_another_model_name_what_differs(model, tmp_path):
    model.save_pretrained(tmp_path)
    WorldModel(small(hidden_dim=8), GROUPS).save_pretrained(tmp_path / "other")
    (tmp_path / "other" / "model.safetensors").replace(tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"of another model.*saved float32\[8, 27\], model float32\[16, 27\]"):
        WorldModel.from_pretrained(tmp_path)


# The Hub, without a network


class FakeHub:
    """huggingface_hub as far as it is used, with a folder in the place of the network."""

    def __init__(self, folder: Path, token: str | None, fail: Exception | None = None) -> None:
        self.folder, self.token, self.fail, self.calls = folder, token, fail, []
        self.errors = type("errors", (), {"HfHubHTTPError": RuntimeError})

    def get_token(self) -> str | None:
        return self.token

    def HfApi(self) -> FakeHub:
        return self

    def create_repo(self, name: str, **options: object) -> None:
        if self.fail:
            raise self.fail
        self.calls.append((name, options))

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> None:
        self.calls.append((repo_id, sorted(path.name for path in Path(folder_path).iterdir())))

    def snapshot_download(self, name: str, **options: object) -> str:
        if self.fail:
            raise self.fail
        self.calls.append((name, options))
        return str(self.folder)


def test_a_name_of_the_hub_is_fetched_from_there(model, tmp_path, monkeypatch):
    model.save_pretrained(tmp_path)
    hub = FakeHub(tmp_path, None)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    back = WorldModel.from_pretrained("me/model", revision="v2", local_files_only=True)
    assert torch.equal(next(back.parameters()), next(model.parameters()))
    ((name, options),) = hub.calls
    assert name == "me/model"
    assert options["revision"] == "v2"
    assert options["local_files_only"]


def test_what_the_hub_refuses_is_one_sentence(model, monkeypatch, tmp_path):
    monkeypatch.setitem(
        sys.modules, "huggingface_hub", FakeHub(tmp_path, "t", OSError("no such repo\nlong trace"))
    )
    with pytest.raises(
        UserError,
        match=r"there is no folder me/model, and the Hugging Face Hub did not give it: no such repo$",
    ):
        WorldModel.from_pretrained("me/model")
    with pytest.raises(UserError, match=r"did not take me/model: no such repo$"):
        model.push_to_hub("me/model")
    with pytest.raises(UserError, match="a model of the Hub is named owner/name"):
        WorldModel.from_pretrained("./nothing/here")


def test_uploading_asks_for_a_login_first(model, tmp_path, monkeypatch):
    hub = FakeHub(tmp_path, None)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    with pytest.raises(UserError, match="hf auth login"):
        model.push_to_hub("me/model")
    assert hub.calls == []
    hub.token = "t"
    assert model.push_to_hub("me/model", private=True) == "https://huggingface.co/me/model"
    assert hub.calls == [
        ("me/model", {"private": True, "exist_ok": True}),
        ("me/model", ["README.md", "config.json", "model.safetensors"]),
    ]


def test_without_the_library_the_extra_is_named(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install 'jepa-world-model\[hub\]'"):
        model.push_to_hub("me/model")


@pytest.mark.extra
def test_the_real_library_offline_gives_one_sentence(tmp_path, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="the Hugging Face Hub did not give it"):
        WorldModel.from_pretrained("nobody/nothing", local_files_only=True)
