"""Vision-language-action models with knowledge insulation: one latent table, one cut edge `kv -> velocity`."""

from __future__ import annotations
