"""The encoder: a frame's state z, position included."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_world_model.model_config import ModelConfig
from jepa_world_model.models import soft_argmax
from jepa_world_model.models.backbone import Backbone
from jepa_world_model.models.fused import relu_of
from jepa_world_model.models.layers import initialised, recomputed, to_sphere

SQUEEZED = 16  # channels of the flattened map


class SpatialSoftArgmax(nn.Module):
    """Where each heat map is hottest, as coordinates: the mean position under a softmax over the map.

    Shapes: [N,K,S*S] -> [N,2K], x then y in [-1, 1]. A shift of the map's content shifts the coordinates
    alike, also to places that training never showed, which a flattened map cannot do. Each map is brought to
    mean 0 and size 1 first: without it the softmax of an untrained map is flat, and its point stays put.
    """

    SHARPNESS = 4.0  # to start with; 1: the point hardly moves, above 10: one cell takes it all

    def __init__(self, size: int) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(self.SHARPNESS))
        axis = torch.linspace(-1, 1, size) if size > 1 else torch.zeros(1)
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        self.register_buffer("grid", torch.stack([x.flatten(), y.flatten()], 1), persistent=False)  # [S*S,2]

    def forward(self, heat: Tensor) -> Tensor:
        if soft_argmax.serves(heat):
            return soft_argmax.points_of(heat.transpose(1, 2), self.sharpness, self.grid).flatten(1)
        cells = heat.shape[-1:]
        share = F.layer_norm(heat.float(), cells, self.sharpness.expand(cells), eps=soft_argmax.TINY).softmax(
            -1
        )
        return (share @ self.grid).transpose(1, 2).flatten(1)


class Readout(nn.Module):
    """Feature maps as z: key points of a fine map for position, a squeezed and flattened one for the rest.

    With `flat_readout` off the key points are all there is: what z says of a place then carries over to
    places that no frame showed. Measured on loops (docs/log.md): a linear map from seen cells finds unseen
    ones within 0.1 cells, from the flattened map not at all.
    Shapes: fine [N,C,S,S], last [N,C',S',S'] -> z [N,Dz]. In fp32 whatever the autocast: z is compared,
    differenced and probed, and costs next to nothing here.
    """

    def __init__(self, cfg: ModelConfig, fine: tuple[int, int], last: tuple[int, int]) -> None:
        super().__init__()
        self.has_points, self.has_flat, self.z_norm = cfg.keypoints > 0, cfg.flat_readout, cfg.z_norm
        if self.has_flat:
            self.squeeze = nn.Conv2d(last[0], SQUEEZED, 1)
            self.flat = nn.Linear(SQUEEZED * last[1] ** 2, cfg.z_dim)
        if cfg.keypoints:
            self.heat = nn.Linear(fine[0], cfg.keypoints, bias=False)  # a bias would not move a point
            self.where = SpatialSoftArgmax(fine[1])
            self.point = nn.Linear(2 * cfg.keypoints, cfg.z_dim, bias=not self.has_flat)

    def forward(self, fine: Tensor, last: Tensor) -> Tensor:
        flat = torch.relu(self.squeeze(last)).flatten(1) if self.has_flat else None
        heat = self._heat(fine) if self.has_points else None
        with torch.autocast(last.device.type, enabled=False):
            parts = [] if flat is None else [self.flat(flat.float())]
            if heat is not None:
                parts.append(self.point(self.where(heat)))
            z = sum(parts[1:], parts[0])
        return to_sphere(z) if self.z_norm else z

    def _heat(self, fine: Tensor) -> Tensor:
        """Heat maps [N,K,S*S], each in one piece for torch's softmax, and side by side for ours."""
        if soft_argmax.serves(fine):
            return self.heat(fine.permute(0, 2, 3, 1).flatten(1, 2)).transpose(1, 2)
        return self.heat.weight @ fine.flatten(2)


class Convolutions(nn.Module):
    """A stride-2 convolution a halving, and one more on the last map.

    Shapes: [N,C,H,W] -> the map before the last halving, and the last. With `flat_readout` off both are the
    last halving's: nothing is built that nobody reads.
    """

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        widths = (cfg.in_channels, *cfg.encoder_schedule)
        self.halvings = nn.ModuleList(
            initialised(nn.Conv2d(a, b, 3, stride=2, padding=1)) for a, b in pairwise(widths)
        )
        self.is_flat = cfg.flat_readout
        if self.is_flat:
            self.last = initialised(nn.Conv2d(widths[-1], widths[-1], 3, padding=1))
        self.last_shape = (widths[-1], cfg.encoder_sizes[-1])
        finer = self.is_flat and len(widths) > 2
        self.fine_shape = (widths[-2], cfg.encoder_sizes[-2]) if finer else self.last_shape

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maps = []
        for conv in self.halvings:
            maps.append(x := relu_of(conv, x))
        if not self.is_flat:
            return x, x
        x = x + relu_of(self.last, x)
        return (maps[-2] if len(maps) > 1 else x), x


class Encoder(nn.Module):
    """Frames to states: convolutions, then the readout.

    Shapes: x [N,C,H,W] in [0, 1] -> z [N,Dz]. No norm over the batch: a row depends on its own frame alone.
    """

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.trunk = Backbone(cfg) if cfg.backbone else Convolutions(cfg)
        self.checkpointing = cfg.checkpointing
        self.readout = Readout(cfg, self.trunk.fine_shape, self.trunk.last_shape)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - 0.5).contiguous(memory_format=torch.channels_last)
        return self.readout(*recomputed(self.trunk, x, wanted=self.checkpointing))
