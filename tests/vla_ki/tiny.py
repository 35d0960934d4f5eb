"""A model that is small enough for tests, and a mixed batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from jepa_world_model.vla_ki.batch import KIBatch, collate
from jepa_world_model.vla_ki.gemma import GEMMA, GemmaConfig
from jepa_world_model.vla_ki.model import KIConfig, Vla
from jepa_world_model.vla_ki.prompt import Tokens
from jepa_world_model.vla_ki.siglip import SIGLIP, SiglipConfig

SIGLIP["test"] = SiglipConfig(width=16, depth=2, mlp=32, heads=2, patch=8, image_size=40)
GEMMA["test"] = GemmaConfig(width=32, depth=4, mlp=64, heads=2, kv_heads=1, head_dim=16)
GEMMA["test_expert"] = GemmaConfig(width=16, depth=4, mlp=32, heads=2, kv_heads=1, head_dim=16)
VARIANTS = {"vision": "test", "vlm": "test", "expert": "test_expert"}
CFG = KIConfig(**VARIANTS, prompt_length=10, answer_length=8, vocab_size=200, horizon=6, action_dim=4)


def tiny_model(cfg: KIConfig = CFG, seed: int = 0) -> Vla:
    """Fresh weights of a seed."""
    torch.manual_seed(seed)
    return Vla(cfg)


def tiny_batch(cfg: KIConfig = CFG, robot: tuple[bool, ...] = (True, True, False), seed: int = 0) -> KIBatch:
    """Rows with prompts and answers of different lengths; 3 real action dimensions; one chunk that ends
    early.
    """
    rng = np.random.default_rng(seed)
    rows, length = len(robot), cfg.prompt_length + cfg.answer_length
    prompt = rng.integers(3, cfg.prompt_length + 1, rows)
    answer = rng.integers(3, cfg.answer_length + 1, rows)
    column = np.arange(length)[None]
    valid = (column >= cfg.prompt_length - prompt[:, None]) & (column < cfg.prompt_length + answer[:, None])
    answers = valid & (column >= cfg.prompt_length)
    ids = np.where(valid, rng.integers(4, cfg.vocab_size, (rows, length)), 0)
    images = rng.integers(0, 256, (rows, cfg.cameras, 3, 40, 40), dtype=np.uint8)
    steps = np.ones((rows, cfg.horizon), bool)
    steps[0, -2:] = False
    return collate(
        cfg,
        Tokens(ids, valid, answers, answers),
        images,
        np.ones((rows, cfg.cameras), bool),
        rng.uniform(-1, 1, (rows, cfg.horizon, cfg.action_dim - 1)),
        steps,
        np.array(robot),
    )


def flags(place: Path, **changes: object) -> list[str]:
    """The command line of a training of a few steps, with its data below `place`."""
    given = {f"model.{k}": v for k, v in VARIANTS.items()} | {
        "steps": 4, "batch_size": 4, "flow_samples": 2, "log_every": 1, "eval_rows": 4, "eval_episodes": 2,
        "eval_every": 0, "checkpoint_every": 2, "sampler_steps": 2, "output_dir": place / "runs",
        "data.cache": place / "datasets", "data.episodes": 8, "data.questions": 40,
        "data.questions_first": 0, "precision": "fp32", "model.vocab_size": 1024,
        "model.answer_length": 20, "data.vqa_share": 0.5,
    }  # fmt: skip
    given |= changes
    return words(given)


def words(given: dict) -> list[str]:
    """Settings as flags; a switch stands alone, with `no-` before it where it is off."""
    out = []
    for name, value in given.items():
        switch = isinstance(value, bool)
        out.append(f"--{'no-' if value is False else ''}{name.replace('_', '-')}")
        out += [] if switch else [str(value)]
    return out
