"""Start the encoder so that z has mean 0 and variance 1 over the data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SMALLEST = 1e-4  # a feature that varies less over the frames is not blown up further


@torch.no_grad()
def calibrate(encoder: nn.Module, frames: Tensor) -> None:
    """Rescale the encoder's readout so that every feature of z has mean 0 and standard deviation 1 over these frames.

    Shapes: frames [N,C,H,W] in [0, 1]. Frames of one scene differ little, so an untouched start gives a z that is nearly
    constant: losses on z are then orders of magnitude below those on h, and the predictor learns everything else first.
    Source: Salimans and Kingma 2016, Weight Normalization (data-dependent initialisation).
    """
    readout, on_sphere = encoder.readout, encoder.readout.z_norm
    readout.z_norm = False
    z = encoder(frames)
    readout.z_norm = on_sphere
    mean, deviation = z.mean(0), z.std(0).clamp(min=SMALLEST)
    layers = [getattr(readout, name) for name in ("flat", "point") if hasattr(readout, name)]
    layers[0].bias.sub_(mean)
    layers[0].bias.div_(deviation)
    for layer in layers:
        layer.weight.div_(deviation[:, None])
