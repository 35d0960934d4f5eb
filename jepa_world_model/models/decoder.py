"""The decoder: the frame that a state stands for."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from jepa_world_model.model_config import ModelConfig
from jepa_world_model.models.fused import relu_of
from jepa_world_model.models.layers import initialised, recomputed

SEED = 32  # channels of the map that a state is written on; each costs Dz * S^2 weights


def depth_to_space(x: Tensor, size: int) -> Tensor:
    """Maps twice as high and wide from four times as many channels, cut to `size`.

    Shapes: [N,4C,S,S] -> [N,C,size,size] with size 2S or 2S-1. The channels of a cell stay together, so that
    maps in channels_last layout are copied row by row, which torch's own pixel_shuffle cannot do.
    """
    n, _, s, _ = x.shape
    cells = x.permute(0, 2, 3, 1).unflatten(-1, (2, 2, -1))  # [N,S,S,2,2,C]
    maps = cells.permute(0, 1, 3, 2, 4, 5).reshape(n, 2 * s, 2 * s, -1)
    return maps[:, :size, :size].permute(0, 3, 1, 2)


def to_pixels(x: Tensor, size: int) -> Tensor:
    """The same, laid out in memory as frames are: channel by channel."""
    n, _, s, _ = x.shape
    # Channels apart first: of both copies the one back is then three times as fast, forward and backward two thirds.
    cells = x.contiguous().unflatten(1, (2, 2, -1))  # [N,2,2,C,S,S]
    return cells.permute(0, 3, 4, 1, 5, 2).reshape(n, -1, 2 * s, 2 * s)[..., :size, :size]


class Decoder(nn.Module):
    """States to frames: convolutions on small maps, doubled by depth-to-space.

    Shapes: z [...,Dz] -> [...,C,H,W], in the frames' range [0, 1] as far as it has learned it; not clamped,
    so that no pixel loses its gradient. No convolution runs at full resolution: the last one paints the four
    pixels of each cell. Maps finer than a quarter of the frame are only painted from, not mixed.
    """

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        widths, self.checkpointing = cfg.decoder_schedule, cfg.checkpointing
        self.sizes = cfg.decoder_sizes[::-1]  # coarse to fine
        self.seed = nn.Linear(cfg.z_dim, SEED * self.sizes[0] ** 2)
        self.first = initialised(nn.Conv2d(SEED, widths[0], 3, padding=1))
        self.mixes = nn.ModuleList(initialised(nn.Conv2d(w, w, 3, padding=1)) for w in widths[:-1])
        self.doublings = nn.ModuleList(initialised(nn.Conv2d(a, 4 * b, 1)) for a, b in pairwise(widths))
        self.paint = nn.Conv2d(widths[-1], 4 * cfg.in_channels, 3, padding=1)
        nn.init.constant_(self.paint.bias, 0.5)

    def forward(self, z: Tensor) -> Tensor:
        x = recomputed(self._painted, z.reshape(-1, z.shape[-1]), wanted=self.checkpointing)
        return x.reshape(*z.shape[:-1], *x.shape[1:])

    def _painted(self, rows: Tensor) -> Tensor:
        """Frames [N,C,H,W] of states [N,Dz]."""
        coarse = self.sizes[0]
        x = torch.relu(self.seed(rows)).view(rows.shape[0], coarse, coarse, -1).permute(0, 3, 1, 2)
        x = relu_of(self.first, x)
        for mix, double, size in zip(self.mixes, self.doublings, self.sizes[1:-1], strict=True):
            x = x + relu_of(mix, x)
            x = depth_to_space(relu_of(double, x), size)
        return to_pixels(self.paint(x), self.sizes[-1])
