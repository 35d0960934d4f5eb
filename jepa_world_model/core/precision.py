"""What number format to compute in."""

from __future__ import annotations

import torch


def resolve_precision(name: str, device: torch.device) -> str:
    """The precision of a name; "auto" is bf16 where the machine multiplies it natively, fp32 elsewhere."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    native = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("amx_tile", "avx512_bf16"))
    return "bf16" if device.type == "cpu" and any(ask() for ask in native if ask) else "fp32"
