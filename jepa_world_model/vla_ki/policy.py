"""The model at work: actions by Euler steps over a cache filled once, and greedy answers to questions."""

from __future__ import annotations

import torch
from torch import Tensor

from jepa_world_model.vla_ki.batch import KIBatch
from jepa_world_model.vla_ki.flow import integrate
from jepa_world_model.vla_ki.gemma import KV
from jepa_world_model.vla_ki.model import KIConfig, Vla, run_prefix, to_float
from jepa_world_model.vla_ki.text import EOS


@torch.no_grad()
def prefill(model: Vla, cfg: KIConfig, batch: KIBatch) -> tuple[Tensor, KV, Tensor]:
    """The VLM over images and prompt alone: hidden states, keys and values, and valid columns [B,P]."""
    width = cfg.prompt_length
    tokens = model.vision(to_float(batch.images))
    return run_prefix(
        model.vlm,
        tokens,
        batch.image_mask,
        batch.ids[:, :width],
        batch.token_mask[:, :width],
        batch.ar_mask[:, :width],
    )


@torch.no_grad()
def sample_actions(
    model: Vla, cfg: KIConfig, batch: KIBatch, generator: torch.Generator, *, steps: int = 10
) -> Tensor:
    """Normalised action chunks [B,T,A]: one VLM pass, then `steps` passes of the expert over its cache."""
    _, kv, visible = prefill(model, cfg, batch)
    shape = (batch.B, 1, cfg.horizon, cfg.action_dim)
    noise = torch.randn(shape, generator=generator, device=generator.device)
    return integrate(lambda x, t: model.expert(x, t, kv, visible), noise, steps)[:, 0]


@torch.no_grad()
def generate(
    model: Vla, cfg: KIConfig, batch: KIBatch, *, length: int, stop_early: bool = True
) -> list[list[int]]:
    """Greedy answers of at most `length` tokens, cut before the end mark; the batch's own are not read.

    stop_early: not before all is written when off, for processes that must make the same number of passes.
    """
    hidden, kv, visible = prefill(model, cfg, batch)
    valid, last = visible, hidden[:, -1]  # the prompt is right-aligned: its last token is the last column
    answers: list[Tensor] = []
    done = torch.zeros(batch.B, dtype=torch.bool, device=last.device)
    for _ in range(length):
        token = model.vlm.logits(last).argmax(-1)  # [B]
        answers.append(token)
        done |= token == EOS
        if stop_early and bool(done.all()):
            break
        valid = torch.cat([valid, torch.ones_like(valid[:, :1])], 1)
        position = valid.long().sum(1, keepdim=True) - 1
        out, own = model.vlm.decoder(model.vlm.embed(token[:, None]), position, valid[:, None], past=kv)
        kv = tuple(
            (torch.cat([k, a], 2), torch.cat([v, b], 2)) for (k, v), (a, b) in zip(kv, own, strict=True)
        )
        last = out[:, 0]
    rows = torch.stack(answers, 1).tolist()
    return [row[: row.index(EOS)] if EOS in row else row for row in rows]
