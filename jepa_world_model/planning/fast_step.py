"""The model's step in bfloat16 as planners run it on the CPU: weights cast once, small tensors kept small.

Under autocast every call casts all weights anew and norms go back to fp32, which at a few hundred candidates takes longer
than the products themselves.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_world_model.models.layers import to_sphere
from jepa_world_model.models.world_model import WorldModel


class FastStep:
    """`predictor` and then `h_to_z`, without gradient; h keeps fp32, as in the model.

    Shapes: z [N,Dz], h [N,Dh], a [N,A] -> (z [N,Dz], h [N,Dh]) fp32.
    """

    def __init__(self, model: WorldModel) -> None:
        predictor, reader = model.predictor, model.h_to_z
        self.parts: list[nn.Module] = [predictor, reader]
        self.version = self._version()
        cast = lambda layer: (layer.weight.detach().bfloat16(), _none_or_bf16(layer.bias))
        self.inner, self.outer = cast(predictor.inner), cast(predictor.outer)
        self.lift = predictor.lift.weight.detach().bfloat16().T
        norm = predictor.norm
        self.norm = None if isinstance(norm, nn.Identity) else (norm.normalized_shape, *cast(norm), norm.eps)
        self.read_inner, self.read_outer = cast(reader.inner), cast(reader.outer)
        self.skip, self.z_norm = reader.skip.weight.detach().bfloat16().T, reader.z_norm

    def _version(self) -> tuple[int, ...]:
        return tuple(p._version for part in self.parts for p in part.parameters())

    def is_current(self) -> bool:
        """Whether the model's weights are still those that were cast."""
        return self.version == self._version()

    def __call__(self, z: Tensor, h: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        z = z.bfloat16()
        hidden = F.linear(torch.cat([z, h.bfloat16(), a.bfloat16()], -1), *self.inner)
        if self.norm is not None:
            hidden = F.layer_norm(hidden, *self.norm)
        gate, change = F.linear(F.silu(hidden, inplace=True), *self.outer).chunk(2, -1)
        there = torch.addmm(change, z, self.lift)
        h = torch.lerp(h, there.float(), gate.float().sigmoid_())
        short = h.bfloat16()
        hidden = F.silu(F.linear(short, *self.read_inner), inplace=True)
        z = torch.addmm(F.linear(hidden, *self.read_outer), short, self.skip).float()
        return (to_sphere(z) if self.z_norm else z), h


def _none_or_bf16(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.detach().bfloat16()
