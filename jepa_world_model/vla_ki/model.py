"""The model in two stages: the VLM once, then the action expert once over the prefix's keys and values."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.graph import unknown
from jepa_world_model.vla_ki.flow import time_embedding
from jepa_world_model.vla_ki.gemma import GEMMA, KV, Gemma, init_linear
from jepa_world_model.vla_ki.masks import attention_mask, positions, suffix_mask, suffix_positions
from jepa_world_model.vla_ki.siglip import SIGLIP, Siglip


@dataclass(frozen=True, kw_only=True)
class KIConfig:
    """Sizes of a vision-language-action model, and whether its action gradient stops at the barrier."""

    vision: str = "tiny"  # a variant of `siglip.SIGLIP`
    vlm: str = "tiny"  # a variant of `gemma.GEMMA`
    expert: str = "tiny_expert"  # a variant with the same depth, heads, kv_heads and head_dim as the VLM
    vocab_size: int = 704  # text and FAST ids together; PaliGemma 257152
    fast_skip: int = 0  # ids at the end of the vocabulary that FAST leaves alone; PaliGemma 1152, openpi 128
    prompt_length: int = 23  # tokens of instruction and state, visible to the action expert
    answer_length: int = 12  # FAST tokens or a text answer
    cameras: int = 1  # 1 to 3
    horizon: int = 8  # actions a chunk
    action_dim: int = 4  # width of the expert's action vector; real dimensions beyond the data's are padding
    knowledge_insulation: bool = True  # cut the action gradient at the keys and values; adds no parameter
    checkpointing: bool = False  # recompute every layer in the backward pass: less memory, a third more time

    def __post_init__(self) -> None:
        for name, known in ((self.vision, SIGLIP), (self.vlm, GEMMA), (self.expert, GEMMA)):
            if name not in known:
                raise UserError(unknown("model variant", name, known))
        vlm, expert = GEMMA[self.vlm], GEMMA[self.expert]
        for name in ("depth", "heads", "kv_heads", "head_dim"):
            if getattr(vlm, name) != getattr(expert, name):
                raise UserError(
                    f"the expert {self.expert!r} must share {name} with the VLM {self.vlm!r}: "
                    f"{getattr(expert, name)} against {getattr(vlm, name)}"
                )
        for name in ("vocab_size", "prompt_length", "answer_length", "horizon", "action_dim"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 1 <= self.cameras <= 3:
            raise UserError(f"cameras must be 1 to 3, got {self.cameras}")

    @property
    def image_tokens(self) -> int:
        """Tokens of all cameras."""
        return SIGLIP[self.vision].num_tokens * self.cameras

    @property
    def visible(self) -> int:
        """Columns of the prefix that the action expert reads: images and prompt, never the answer."""
        return self.image_tokens + self.prompt_length


_PI05 = KIConfig(
    vision="so400m/14",
    vlm="gemma_2b",
    expert="gemma_300m",
    vocab_size=257152,
    fast_skip=1152,
    prompt_length=200,
    answer_length=256,
    cameras=3,
    horizon=50,
    action_dim=32,
    knowledge_insulation=False,
)


def _like(base: KIConfig, **changes: object) -> KIConfig:
    return KIConfig(**{**vars(base), **changes})


PRESETS = {
    "pi05": _PI05,
    "pi05_ki": _like(_PI05, knowledge_insulation=True),
    "pi05_droid_ki": _like(_PI05, knowledge_insulation=True, horizon=15, fast_skip=128),
    "tiny_ki": KIConfig(),
}


class Vision(nn.Module):
    """Images to tokens of the VLM's width; image tokens are not scaled."""

    def __init__(self, cfg: KIConfig) -> None:
        super().__init__()
        self.tower = Siglip(SIGLIP[cfg.vision], checkpointing=cfg.checkpointing)
        self.projector = nn.Linear(SIGLIP[cfg.vision].width, GEMMA[cfg.vlm].width)

    def forward(self, images: Tensor) -> Tensor:
        """Shapes: images [B,C,3,H,W] in [-1, 1] -> [B, C*tokens, width]; all cameras in one call."""
        tokens = self.projector(self.tower(images.flatten(0, 1)))
        return tokens.unflatten(0, images.shape[:2]).flatten(1, 2)


class Vlm(nn.Module):
    """Text embedding, decoder, and a head tied to the embedding."""

    def __init__(self, cfg: KIConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(cfg.vocab_size, GEMMA[cfg.vlm].width)
        self.decoder = Gemma(GEMMA[cfg.vlm], checkpointing=cfg.checkpointing)

    def embed(self, ids: Tensor) -> Tensor:
        """Text embeddings times the square root of the width. Shapes: [B,L] -> [B,L,W]."""
        return self.embed_tokens(ids) * math.sqrt(self.embed_tokens.embedding_dim)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores over the vocabulary. Shapes: [...,W] -> [...,V]."""
        return F.linear(hidden, self.embed_tokens.weight)

    def token_ce(self, hidden: Tensor, targets: Tensor, chunk: int = 1024) -> Tensor:
        """Next-token cross entropy of each given position, fp32; recomputed by chunks when there are many.

        Shapes: hidden [M,W], targets [M] -> [M]. Full logits of 2,000 positions over 257,152 ids would take 2
        GB.
        """
        if len(hidden) <= chunk:
            return self._ce(hidden, targets)
        parts = zip(hidden.split(chunk), targets.split(chunk), strict=True)
        return torch.cat([checkpoint(self._ce, h, t, use_reentrant=False) for h, t in parts])

    def _ce(self, hidden: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self.logits(hidden).float(), targets, reduction="none")


class ActionExpert(nn.Module):
    """Noisy chunks to velocities, reading the prefix through keys and values that it is given."""

    def __init__(self, cfg: KIConfig) -> None:
        super().__init__()
        sizes = GEMMA[cfg.expert]
        self.action_in_proj = nn.Linear(cfg.action_dim, sizes.width)
        self.action_out_proj = nn.Linear(sizes.width, cfg.action_dim)
        self.time_mlp_in = nn.Linear(sizes.width, sizes.width)
        self.time_mlp_out = nn.Linear(sizes.width, sizes.width)
        self.decoder = Gemma(sizes, cond_dim=sizes.width, checkpointing=cfg.checkpointing)

    def forward(self, x_t: Tensor, t: Tensor, kv: KV, visible: Tensor) -> Tensor:
        """Velocities of K flow samples at once, which share the prefix and never see each other.

        Shapes: x_t [B,K,T,A], t [B,K], kv of the visible prefix [B,kv_heads,P,head_dim] a layer, visible
        [B,P] bool
        -> [B,K,T,A].
        """
        samples, horizon = x_t.shape[1:3]
        time = time_embedding(t, self.time_mlp_in.in_features)
        cond = F.silu(self.time_mlp_out(F.silu(self.time_mlp_in(time))))  # [B,K,W]
        hidden, _ = self.decoder(
            self.action_in_proj(x_t.flatten(1, 2)).to(x_t.dtype),  # [B,K*T,W]
            suffix_positions(visible, samples, horizon),
            suffix_mask(visible, samples, horizon),
            past=kv,
            cond=cond,
        )
        return self.action_out_proj(hidden).unflatten(1, (samples, horizon))


class Vla(nn.Module):
    """The parameter groups: `vision`, `vlm`, `expert`."""

    def __init__(self, cfg: KIConfig) -> None:
        super().__init__()
        self.vision, self.vlm, self.expert = Vision(cfg), Vlm(cfg), ActionExpert(cfg)
        self.apply(init_linear)
        # As loud as image tokens, once `embed` has scaled them. At 0.02, a quarter of that for small models, answers
        # needed 500 steps for the accuracy that they have after 200 with this.
        nn.init.normal_(self.vlm.embed_tokens.weight, std=GEMMA[cfg.vlm].width ** -0.5)

    def forward(self, work: Callable[[], Any]) -> Any:
        """What `work` returns, with all weights at hand: a sharded model gathers them in its own forward pass."""
        return work()

    @property
    def blocks(self) -> list[nn.Module]:
        """The layers of all three parts, which are most of the parameters."""
        return [*self.vision.tower.layers, *self.vlm.decoder.layers, *self.expert.decoder.layers]


def run_prefix(
    vlm: Vlm, image_tokens: Tensor, image_mask: Tensor, ids: Tensor, token_mask: Tensor, ar_mask: Tensor
) -> tuple[Tensor, KV, Tensor]:
    """Stage one: hidden states [B,S,W], every layer's keys and values, and which columns are valid [B,S].

    Shapes: image_tokens [B,N,W], image_mask [B,C] bool, ids, token_mask, ar_mask [B,L]; S = N + L.
    """
    seen = image_mask.repeat_interleave(image_tokens.shape[1] // image_mask.shape[1], 1)  # [B,N]
    valid = torch.cat([seen, token_mask], 1)
    ar = torch.cat([torch.zeros_like(seen), ar_mask], 1)
    text = vlm.embed(ids)  # its dtype is that of the residual stream: fp32 under autocast
    x = torch.cat([image_tokens.to(text.dtype), text], 1)
    hidden, kv = vlm.decoder(x, positions(valid), attention_mask(valid, ar))
    return hidden, kv, valid


def slice_kv(kv: KV, length: int) -> KV:
    """The first `length` columns of every layer's keys and values."""
    return tuple((k[:, :, :length], v[:, :, :length]) for k, v in kv)


def to_float(images: Tensor) -> Tensor:
    """uint8 pixels to [-1, 1]; an absent camera (zeros) becomes -1."""
    return images.float() / 127.5 - 1


def sizes(cfg: KIConfig) -> dict[str, int]:
    """Parameters of each group, counted on the meta device: nothing is allocated."""
    with torch.device("meta"):
        model = Vla(cfg)
    return {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
