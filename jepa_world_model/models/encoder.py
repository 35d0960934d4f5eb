"""The encoder: a frame's state z, position included."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jepa_world_model.model_config import ModelConfig
from jepa_world_model.models.layers import to_sphere

SQUEEZED = 16  # channels of the flattened map


class SpatialSoftArgmax(nn.Module):
    """Where each heat map is hottest, as coordinates: the mean position under a softmax over the map.

    Shapes: [N,K,S,S] -> [N,2K], x then y in [-1, 1]. A shift of the map's content shifts the coordinates alike, also to
    places that training never showed, which a flattened map cannot do.
    """

    def __init__(self, keypoints: int, size: int) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.ones(keypoints, 1))
        axis = torch.linspace(-1, 1, size) if size > 1 else torch.zeros(1)
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        self.register_buffer("grid", torch.stack([x.flatten(), y.flatten()], 1), persistent=False)  # [S*S,2]

    def forward(self, heat: Tensor) -> Tensor:
        share = (heat.flatten(2).float() * self.sharpness).softmax(-1)  # [N,K,S*S]
        return (share @ self.grid).transpose(1, 2).flatten(1)


class Readout(nn.Module):
    """A feature map as z: key points for position, the squeezed and flattened map for everything else.

    In fp32 whatever the autocast: z is compared, differenced and probed, and costs next to nothing here.
    """

    def __init__(self, cfg: ModelConfig, channels: int, size: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, SQUEEZED, 1)
        self.flat = nn.Linear(SQUEEZED * size * size, cfg.z_dim)
        if cfg.keypoints:
            self.heat = nn.Conv2d(channels, cfg.keypoints, 1)
            self.where = SpatialSoftArgmax(cfg.keypoints, size)
            self.point = nn.Linear(2 * cfg.keypoints, cfg.z_dim, bias=False)
        self.has_points, self.z_norm = cfg.keypoints > 0, cfg.z_norm

    def forward(self, features: Tensor) -> Tensor:
        flat = torch.relu(self.squeeze(features)).flatten(1)
        heat = self.heat(features) if self.has_points else None
        with torch.autocast(features.device.type, enabled=False):
            z = self.flat(flat.float())
            if heat is not None:
                z = z + self.point(self.where(heat))
        return to_sphere(z) if self.z_norm else z


class Encoder(nn.Module):
    """Frames to states: a stride-2 convolution a halving, one more at the end, then the readout.

    Shapes: x [N,C,H,W] in [0, 1] -> z [N,Dz]. No normalisation over the batch: a row depends on its own frame alone.
    """

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        widths = (cfg.in_channels, *cfg.encoder_schedule)
        pairs = zip(widths[:-1], widths[1:], strict=True)
        self.halvings = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairs)
        self.last = nn.Conv2d(widths[-1], widths[-1], 3, padding=1)
        self.readout = Readout(cfg, widths[-1], cfg.encoder_sizes[-1])
        for conv in (*self.halvings, self.last):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - 0.5).contiguous(memory_format=torch.channels_last)
        for conv in self.halvings:
            x = torch.relu_(conv(x))
        x = x + torch.relu_(self.last(x))
        return self.readout(x)
