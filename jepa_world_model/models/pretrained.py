"""Models as folders that others can use: config.json, model.safetensors and a card, on disk or on the Hugging Face Hub.

The layout and the three names (save_pretrained, from_pretrained, push_to_hub) are the Hub's convention. Its mixin class
is not inherited from: it would be imported with every model, and write neither checks nor our card.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from jepa_world_model import __version__
from jepa_world_model.core.checkpoint import require_same
from jepa_world_model.core.errors import UserError
from jepa_world_model.core.extras import require
from jepa_world_model.core.run import atomic_write, require_space, writing
from jepa_world_model.core.toml import from_dict
from jepa_world_model.model_config import ModelConfig

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
FORMAT, VERSION = "jepa-world-model", 1


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A released model, read: what to build and what to put into it."""

    model: ModelConfig
    groups: tuple[str, ...]
    weights: dict[str, Tensor]
    about: dict[str, Any]  # the whole of config.json
    folder: Path


def write_pretrained(
    folder: str | os.PathLike[str],
    model: nn.Module,
    cfg: ModelConfig,
    *,
    card: str = "",
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write the three files; each is whole or absent, and config.json comes last.

    card: the model card; empty: one that names the parts. extra: plain JSON beside the format's own keys.
    Errors: UserError for a place that cannot be written or has no room.
    """
    from safetensors.torch import save

    folder = Path(folder)
    # Copies: tied weights are stored under every name, and other devices hold no bytes to write.
    weights = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in model.state_dict().items()}
    about = {
        "format": FORMAT, "version": VERSION, "package_version": __version__,
        "groups": [name for name, _ in model.named_children()],
        # A released model brings its backbone's weights along: the file it once started from is nobody else's.
        "model": dataclasses.asdict(dataclasses.replace(cfg, backbone_weights="")),
    }  # fmt: skip
    if twice := sorted(set(about) & set(extra or {})):
        raise ValueError(f"extra holds {', '.join(twice)}, which the format itself writes")
    require_space(folder, sum(tensor.nbytes for tensor in weights.values()) + 1_000_000)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / WEIGHTS, save(weights, metadata={"format": "pt"}))
    atomic_write(folder / CARD, card or plain_card(model))
    atomic_write(folder / CONFIG, json.dumps(about | dict(extra or {}), indent=2) + "\n")
    return folder


def plain_card(model: nn.Module) -> str:
    """A model card that tells the parts and their sizes."""
    rows = [
        f"| {name} | {sum(p.numel() for p in part.parameters()):,} |" for name, part in model.named_children()
    ]
    return "\n".join([
        front_matter(), "# A JEPA world model", "", "| part | parameters |", "|---|---|", *rows, "",
        "```python", "from jepa_world_model import WorldModel", "",
        'model = WorldModel.from_pretrained("<this folder, or its name on the Hub>")', "```", "",
    ])  # fmt: skip


def front_matter() -> str:
    """What the Hub reads at the head of a card."""
    tags = ("jepa", "world-model", "pytorch")
    return "\n".join(["---", f"library_name: {FORMAT}", "tags:", *(f"- {tag}" for tag in tags), "---", ""])


def read_pretrained(
    source: str | os.PathLike[str], *, revision: str | None = None, local_files_only: bool = False
) -> Pretrained:
    """A released model from its folder or, where there is no such folder, from the Hub ("owner/name").

    Errors: UserError for a folder without the two files, a file that is damaged, or a Hub that does not give it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(source) if Path(source).is_dir() else fetch(str(source), revision, local_files_only)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(f"{folder} is no released model: it holds no {name}; save_pretrained writes one")
    try:
        about = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        known, version = about["format"] == FORMAT, int(about["version"])
        groups, model = tuple(map(str, about["groups"])), dict(about["model"])
    except (ValueError, KeyError, TypeError) as problem:
        raise UserError(
            f"{folder / CONFIG} describes no world model ({type(problem).__name__}: {problem})"
        ) from None
    if not known or version > VERSION:
        raise UserError(
            f"{folder / CONFIG} is of format {about['format']!r} {version}; known here is {FORMAT!r} up to {VERSION}"
        )
    try:
        weights = load_file(folder / WEIGHTS)
    except SafetensorError as problem:
        raise UserError(f"{folder / WEIGHTS} is damaged ({problem}); fetch or write it again") from None
    return Pretrained(from_dict(ModelConfig, model, str(folder / CONFIG)), groups, weights, about, folder)


def check(read: Pretrained, own: Mapping[str, Tensor]) -> None:
    """Errors: UserError that names in what the weights differ from a model's own."""
    require_same(f"{read.folder / WEIGHTS} is of another model", read.weights, own)


def fill(model: nn.Module, read: Pretrained) -> None:
    """Put released weights into a model of the same parts. Errors: UserError that names what differs."""
    check(read, model.state_dict())
    model.load_state_dict(read.weights)


# The Hub


def hub() -> ModuleType:
    """huggingface_hub. Errors: UserError that names the extra."""
    return require("huggingface_hub", "models of the Hugging Face Hub", "hub")


def fetch(
    name: str,
    revision: str | None = None,
    local_files_only: bool = False,
    files: Sequence[str] = (CONFIG, WEIGHTS, CARD),
) -> Path:
    """The folder of a model of the Hub, downloaded when it is not in the cache. Errors: UserError in one sentence."""
    if name.count("/") != 1 or name.startswith((".", "/")) or name.endswith("/"):
        raise UserError(f"there is no folder {name}; a model of the Hub is named owner/name")
    library = hub()
    try:
        return Path(
            library.snapshot_download(
                name,
                revision=revision,
                local_files_only=local_files_only,
                allow_patterns=list(files),
            )
        )
    except (
        OSError,
        ValueError,
        library.errors.HfHubHTTPError,
    ) as problem:  # offline, absent, private, misspelt
        why = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
        raise UserError(
            f"there is no folder {name}, and the Hugging Face Hub did not give it: {why}"
        ) from None


def require_login() -> ModuleType:
    """huggingface_hub, logged in. Errors: UserError that says how."""
    library = hub()
    if library.get_token() is None:
        raise UserError(
            "not logged in to the Hugging Face Hub: run `hf auth login`, or set HF_TOKEN, and try again"
        )
    return library


def upload(folder: Path, name: str, *, private: bool = False, message: str = "Upload model") -> str:
    """Put a released folder on the Hub as "owner/name"; returns its address.

    Errors: UserError when nobody is logged in, or the Hub refuses.
    """
    library = require_login()
    try:
        api = library.HfApi()
        api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=str(folder), commit_message=message)
    except (OSError, ValueError, library.errors.HfHubHTTPError) as problem:
        why = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
        raise UserError(f"the Hugging Face Hub did not take {name}: {why}") from None
    return f"https://huggingface.co/{name}"
