"""Published weights into the model: one table of name patterns, a report of all that does not fit."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from jepa_world_model.core.errors import UserError

FORMAT = "jepa-wm-vla-1"
EMBEDDING = "vlm.embed_tokens.weight"
GROUPS = ("vision", "vlm", "expert")

# Old and new PaliGemma files, openpi and lerobot checkpoints differ in what stands before these names.
_WRAP = r"^(?:model\.)?(?:paligemma_with_expert\.)?"
_PALIGEMMA = _WRAP + r"(?:paligemma\.)?(?:model\.)?"
_TOWER = _PALIGEMMA + r"vision_tower\.(?:vision_model\.)?"
_LANGUAGE = _PALIGEMMA + r"language_model\.(?:model\.)?"
RULES: tuple[tuple[str, str], ...] = (
    (_WRAP + r"gemma_expert\.model\.(layers\.|norm\.)", r"expert.decoder.\1"),
    (_WRAP + r"(action_in_proj\.|action_out_proj\.|time_mlp_in\.|time_mlp_out\.)", r"expert.\1"),
    (_TOWER + r"embeddings\.(patch_embedding\.|position_embedding\.)", r"vision.tower.\1"),
    (_TOWER + r"encoder\.(layers\.)", r"vision.tower.\1"),
    (_TOWER + r"(post_layernorm\.)", r"vision.tower.\1"),
    (_PALIGEMMA + r"multi_modal_projector\.linear\.", r"vision.projector."),
    (_LANGUAGE + r"(layers\.|norm\.)", r"vlm.decoder.\1"),
    (_LANGUAGE + r"embed_tokens\.weight$", EMBEDDING),
)
_HEAD = re.compile(
    _PALIGEMMA + r"(?:language_model\.)?lm_head\.weight$"
)  # the embedding under its other name
_UNUSED = re.compile(
    _WRAP + r"gemma_expert\.(?:lm_head|model\.embed_tokens)\.weight$"
)  # text parts of the expert
_RULES = tuple((re.compile(pattern), target) for pattern, target in RULES)


@dataclass
class LoadReport:
    """What happened to each name of the file and of the model."""

    loaded: list[str] = field(default_factory=list)  # names of the model
    missing: list[str] = field(default_factory=list)  # names of the model that the file does not have
    unexpected: list[str] = field(default_factory=list)  # names of the file that the model does not have
    misshaped: list[str] = field(default_factory=list)  # "name: file [..] model [..]"
    skipped: list[str] = field(default_factory=list)  # names of the file in groups that were not asked for
    notes: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Every wanted parameter came from the file, and nothing was left over."""
        return not (self.missing or self.unexpected or self.misshaped)

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} tensors loaded"]
        for kind in ("missing", "unexpected", "misshaped", "skipped"):
            if names := getattr(self, kind):
                more = f" and {len(names) - 6} more" if len(names) > 6 else ""
                lines.append(f"{len(names)} {kind}: {', '.join(names[:6])}{more}")
        return "; ".join(lines + self.notes)


def canonical(name: str) -> str | None:
    """The model's name for a tensor of any published layout; None where there is none."""
    for pattern, target in _RULES:
        if pattern.match(name):
            return pattern.sub(target, name)
    return EMBEDDING if _HEAD.match(name) else None


def load_weights(
    model: nn.Module, path: str | Path, *, groups: Collection[str] = GROUPS, strict: bool = True
) -> LoadReport:
    """Copy a safetensors file or folder (sharded or not) of any known layout into `groups` of the model.

    The model's dtype stays: bf16 files fill fp32 master weights exactly; a cast that loses bits is noted.
    Errors: UserError unless everything fits; with strict=False what does not fit is only in the report. A
    file whose embedding and head are both absent, or differ, is refused in either case: it would run on with
    random language.
    """
    report = LoadReport()
    with torch.no_grad():
        _copy(model, Path(path), frozenset(groups), report)
    if strict and not report.complete:
        raise UserError(f"{path} does not fit the model: {report}")
    return report


def _copy(model: nn.Module, path: Path, groups: frozenset[str], report: LoadReport) -> None:
    wanted = {name: p for name, p in model.state_dict(keep_vars=True).items() if name.split(".")[0] in groups}
    open_tensors, ours = {}, False
    for file, tag in _files(path):
        ours |= tag
        open_tensors |= _names(file)
    pairs, head = _resolve(open_tensors, ours, groups, report)
    if head is not None and EMBEDDING in wanted:
        _tie(pairs, head, report)
    if EMBEDDING in wanted and EMBEDDING not in pairs:
        raise UserError(
            f"{path} holds neither the text embedding nor the head that is tied to it; a model with a random "
            "embedding ignores language, so this file is refused"
        )
    _refuse_pi0(pairs, wanted, path)
    for name, read in pairs.items():
        if name not in wanted:
            report.unexpected.append(name)
        else:
            _assign(name, read(), wanted[name], report)
    report.missing += sorted(set(wanted) - set(pairs))


def _resolve(
    tensors: dict[str, Callable[[], Tensor]], ours: bool, groups: frozenset[str], report: LoadReport
) -> tuple[dict[str, Callable[[], Tensor]], Callable[[], Tensor] | None]:
    """Readers by the model's names, and the reader of the tied head where the file has one."""
    pairs: dict[str, Callable[[], Tensor]] = {}
    head = None
    for name, read in tensors.items():
        target = name if ours else canonical(name)
        if not ours and _HEAD.match(name):
            head = read
        elif _UNUSED.match(name):
            report.skipped.append(name)
        elif target is None:
            report.unexpected.append(name)
        elif target.split(".")[0] not in groups:
            report.skipped.append(name)
        else:
            pairs[target] = read
    return pairs, head


def _tie(pairs: dict[str, Callable[[], Tensor]], head: Callable[[], Tensor], report: LoadReport) -> None:
    if EMBEDDING not in pairs:
        pairs[EMBEDDING] = head
        report.notes.append("the embedding came from the head that is tied to it")
        return
    embedding, other = pairs[EMBEDDING](), head()
    rows = min(len(embedding), len(other))
    if not torch.equal(embedding[:rows], other[:rows]):
        raise UserError(
            "the file's head differs from its embedding; this model ties them, so it cannot hold both"
        )


def _refuse_pi0(pairs: dict, wanted: dict, path: Path) -> None:
    """A modulated model cannot take an expert with plain norms: told by the tensors, never by the path."""
    needs = any(name.endswith("norm.dense.weight") for name in wanted)
    norms = [name for name in pairs if name.startswith("expert.decoder.") and "norm." in name]
    if needs and norms and not any(name.endswith(".dense.weight") for name in norms):
        raise UserError(
            f"the expert in {path} has plain norms (pi0), this model modulates them by time (pi0.5); "
            "load the rest with groups=('vision', 'vlm')"
        )


def _assign(name: str, value: Tensor, parameter: Tensor, report: LoadReport) -> None:
    if name == EMBEDDING and value.dim() == 2 and len(value) > len(parameter):
        report.notes.append(f"embedding cut from {len(value)} to {len(parameter)} rows")
        value = value[: len(parameter)]
    if value.shape != parameter.shape:
        report.misshaped.append(f"{name}: file {list(value.shape)} model {list(parameter.shape)}")
        return
    if torch.finfo(value.dtype).bits > torch.finfo(parameter.dtype).bits:
        report.notes.append(f"{name}: {value.dtype} rounded to {parameter.dtype}")
    parameter.copy_(value)
    report.loaded.append(name)


def _files(path: Path) -> Iterator[tuple[Path, bool]]:
    """Every safetensors file of a path, and whether it bears our own format tag."""
    if path.is_dir():
        index = path / "model.safetensors.index.json"
        if index.is_file():
            shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        else:
            shards = ["model.safetensors"]
        files = [path / shard for shard in shards]
    else:
        files = [path]
    for file in files:
        if not file.is_file():
            raise UserError(
                f"{file} does not exist; give a .safetensors file or a folder with model.safetensors"
            )
        try:
            with safe_open(file, "pt") as opened:
                tag = (opened.metadata() or {}).get("format")
        except SafetensorError as error:
            raise UserError(f"{file} is not a whole safetensors file: {error}") from None
        yield file, tag == FORMAT


def _names(file: Path) -> dict[str, Callable[[], Tensor]]:
    """A reader for each tensor; nothing is read before it is called, so memory holds one tensor at a time."""

    def reader(name: str) -> Callable[[], Tensor]:
        def read() -> Tensor:
            with safe_open(file, "pt") as opened:
                return opened.get_tensor(name)

        return read

    with safe_open(file, "pt") as opened:
        return {name: reader(name) for name in opened.keys()}  # noqa: SIM118  (not a dict)


def save_weights(model: nn.Module, path: str | Path) -> None:
    """The model's own layout: its names, its dtypes, a format tag."""
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(tensors, str(path), metadata={"format": FORMAT})


def read_quantiles(path: str | Path) -> dict[str, tuple[Tensor, Tensor]]:
    """(q01, q99) of each feature, from the normaliser state beside a lerobot checkpoint.

    Errors: UserError where the file has no quantiles.
    """
    found = {}
    for file, _ in _files(Path(path)):
        tensors = _names(file)
        for name, read in tensors.items():
            if name.endswith(".q01") and f"{name[:-4]}.q99" in tensors:
                found[name[:-4]] = (read(), tensors[f"{name[:-4]}.q99"]())
    if not found:
        raise UserError(f"{path} holds no pairs of `.q01` and `.q99`")
    return found
