"""The decoder: the frame that a state stands for."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_world_model.model_config import ModelConfig


class Decoder(nn.Module):
    """States to frames: convolutions on small maps, doubled by depth-to-space.

    Shapes: z [...,Dz] -> [...,C,H,W], in the frames' range [0, 1] as far as it has learned it; not clamped,
    so that no pixel loses its gradient. The full resolution is touched once, by the last depth-to-space.
    """

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        widths = cfg.decoder_schedule
        self.sizes = cfg.decoder_sizes[::-1]  # coarse to fine
        self.seed = nn.Linear(cfg.z_dim, widths[0] * self.sizes[0] ** 2)
        self.mixes = nn.ModuleList(nn.Conv2d(w, w, 3, padding=1) for w in widths[:-1])
        self.doublings = nn.ModuleList(nn.Conv2d(a, 4 * b, 1) for a, b in pairwise(widths))
        self.paint = nn.Conv2d(widths[-1], 4 * cfg.in_channels, 3, padding=1)
        for conv in (*self.mixes, *self.doublings):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)
        nn.init.constant_(self.paint.bias, 0.5)

    def forward(self, z: Tensor) -> Tensor:
        rows = z.reshape(-1, z.shape[-1])
        coarse = self.sizes[0]
        x = torch.relu(self.seed(rows)).view(len(rows), coarse, coarse, -1).permute(0, 3, 1, 2)  # NHWC inside
        for mix, double, size in zip(self.mixes, self.doublings, self.sizes[1:], strict=False):
            x = x + torch.relu_(mix(x))
            x = torch.relu(F.pixel_shuffle(double(x), 2)[..., :size, :size])
        x = F.pixel_shuffle(self.paint(x), 2)[..., : self.sizes[-1], : self.sizes[-1]]
        return x.reshape(*z.shape[:-1], *x.shape[1:])
