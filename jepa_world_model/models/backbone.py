"""A torchvision network in the place of the encoder's own convolutions."""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from jepa_world_model.core.errors import UserError
from jepa_world_model.model_config import ModelConfig

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
LARGEST_STRIDE = 8  # px of the frame a cell of the map that key points are read from
_schemas: list[torch.library.Library] = []  # kept alive: a library that is freed takes its operators along


def import_torchvision() -> ModuleType:
    """torchvision, also where its compiled operators do not fit the installed torch.

    Next to a CPU build of torch the import stops with "operator torchvision::nms does not exist"; with two
    schemas defined first, models and transforms work. Errors: UserError when it is not installed.
    """
    try:
        return importlib.import_module("torchvision")
    except ImportError:
        raise UserError(
            "model.backbone needs torchvision; pip install torchvision, or leave it empty"
        ) from None
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    _schemas.append(torch.library.Library("torchvision", "DEF"))
    for schema in SCHEMAS:
        _schemas[-1].define(schema)
    return importlib.import_module("torchvision")


def group_norm(channels: int) -> nn.GroupNorm:
    """A norm within a row, for networks made with one over the batch."""
    return nn.GroupNorm(math.gcd(32, channels), channels)


def _network(name: str) -> nn.Module:
    models = importlib.import_module(import_torchvision().__name__ + ".models")
    try:
        return models.get_model(name, weights=None, norm_layer=group_norm)
    except TypeError:
        raise UserError(
            f"model.backbone {name!r} takes no norm_layer, so its rows would depend on the batch; "
            "use a resnet, mobilenet or efficientnet"
        ) from None
    except ValueError:
        raise UserError(f"torchvision has no model {name!r}; try resnet18 or mobilenet_v3_small") from None


def _stages(network: nn.Module, name: str) -> nn.ModuleList:
    """The network's stages without its pooling and classifier."""
    if isinstance(getattr(network, "features", None), nn.Sequential):
        return nn.ModuleList(network.features)
    if not hasattr(network, "layer4"):
        raise UserError(f"model.backbone {name!r} has no stages to read maps from; use a resnet or mobilenet")
    stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
    return nn.ModuleList([stem, network.layer1, network.layer2, network.layer3, network.layer4])


def _load(network: nn.Module, cfg: ModelConfig) -> None:
    """Weights from a file. Statistics of batch norms, and a classifier of another width, are left out."""
    path = cfg.backbone_weights
    if not Path(path).is_file():
        raise UserError(f"model.backbone_weights: there is no file {path}")
    if path.endswith(".safetensors"):
        from safetensors.torch import load_file

        state = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    own = network.state_dict()
    fitting = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
    missing = [key for key in own if key not in fitting and not key.startswith(("fc.", "classifier."))]
    if missing:
        raise UserError(
            f"model.backbone_weights {path} lacks {missing[0]} in the shape that {cfg.backbone} needs, "
            f"and {len(missing) - 1} more; name a state_dict of that network"
        )
    network.load_state_dict(fitting, strict=False)


def _replace_first(stages: nn.ModuleList, channels: int) -> None:
    """Make the first convolution see `channels`: new weights where that differs."""
    for module in stages.modules():
        for key, child in module.named_children():
            if isinstance(child, nn.Conv2d):
                if child.in_channels != channels:
                    keep = {name: getattr(child, name) for name in ("kernel_size", "stride", "padding")}
                    setattr(
                        module,
                        key,
                        nn.Conv2d(channels, child.out_channels, bias=child.bias is not None, **keep),
                    )
                return


class Backbone(nn.Module):
    """The maps of a torchvision network: one that is fine enough for positions, and the last.

    Shapes: [N,C,H,W] -> two of [N,C',H',W'].
    """

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        network = _network(cfg.backbone)
        if cfg.backbone_weights:
            _load(network, cfg)
        self.stages = _stages(network, cfg.backbone)
        _replace_first(self.stages, cfg.in_channels)
        self.fine_stage, self.fine_shape, self.last_shape = self._measure(cfg)

    def _measure(self, cfg: ModelConfig) -> tuple[int, tuple[int, int], tuple[int, int]]:
        """Which stage is the fine one, and (channels, size) of its map and of the last, by trying."""
        x, shapes = torch.zeros(1, cfg.in_channels, cfg.image_size, cfg.image_size), []
        with torch.no_grad():
            for stage in self.stages:
                x = stage(x)
                shapes.append((x.shape[1], x.shape[2]))
        fine = [i for i, (_, size) in enumerate(shapes) if size * LARGEST_STRIDE >= cfg.image_size]
        chosen = fine[-1] if fine else 0
        return chosen, shapes[chosen], shapes[-1]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        fine = x
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i == self.fine_stage:
                fine = x
        return fine, x
