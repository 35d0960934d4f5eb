"""Vision-language-action models with knowledge insulation: one latent table, one cut edge."""

from __future__ import annotations
