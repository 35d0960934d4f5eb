"""One run."""
from __future__ import annotations
def train(cfg):
    """Train."""
