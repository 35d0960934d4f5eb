"""What a run looks like: who reads whom, sampled chunks beside the expert's, arms at work."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from jepa_world_model.core.run import atomic_write
from jepa_world_model.vla_ki.batch import KIBatch
from jepa_world_model.vla_ki.evaluate import Judge
from jepa_world_model.vla_ki.masks import attention_mask, suffix_mask
from jepa_world_model.vla_ki.model import KIConfig
from jepa_world_model.vla_ki.policy import sample_actions
from jepa_world_model.vla_ki.table import visible_mask

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTIONS = "captions.json"
ARMS = 5  # episodes of each kind in the film
CHUNKS = 4  # held-out chunks that are drawn
DRAWS = 3  # samples of each
FRAME_MS = 120
GREEN, RED, QUIET = (38, 128, 91), (196, 55, 44), (245, 246, 248)


@dataclass(frozen=True)
class Shown:
    """A picture of the report."""

    title: str
    look: str  # what to look for
    data: bytes  # of the file
    kind: str  # png or gif


def draw(judge: Judge) -> dict[str, Shown]:
    """Every picture there is, by name. Call it in eval mode and without gradient; all processes must."""
    batch = judge.held_out()
    made = {
        "attention": _attention(judge, batch),
        "chunks": _chunks(judge, batch.rows(liveliest(batch, CHUNKS))),
    }
    if judge.embedded and judge.cfg.flow_weight > 0:
        made["rollouts"] = _film(judge)
    return made


def save(folder: Path, pictures: Mapping[str, Shown]) -> None:
    """Write the files and `captions.json`, from which the report takes them."""
    folder.mkdir(exist_ok=True)
    told = []
    for name, shown in pictures.items():
        file = f"{name}.{shown.kind}"
        atomic_write(folder / file, shown.data)
        told.append({"file": file, "title": shown.title, "look": shown.look})
    atomic_write(folder / CAPTIONS, json.dumps(told, indent=2) + "\n")


def who_reads_whom(cfg: KIConfig, batch: KIBatch) -> np.ndarray:
    """The whole attention of the first row, stage one and stage two: 0 not read, 1 read, 2 read, gradient gated.

    Shapes: [S,S] uint8, S = image, prompt, answer and action tokens.
    """
    one = batch.rows(1)
    seen = visible_mask(one, cfg)
    images = seen[:, : cfg.image_tokens]
    valid = torch.cat([images, one.token_mask], 1)
    ar = torch.cat([torch.zeros_like(images), one.ar_mask], 1)
    first, total = attention_mask(valid, ar)[0], valid.shape[1] + cfg.horizon
    out = torch.zeros(total, total, dtype=torch.uint8)
    out[: len(first), : len(first)] = first
    second = suffix_mask(seen, 1, cfg.horizon)[0].byte()  # [T,P+T]
    out[len(first) :, : cfg.visible] = 2 * second[:, : cfg.visible]
    out[len(first) :, len(first) :] = second[:, cfg.visible :]
    return out.cpu().numpy()


def _attention(judge: Judge, batch: KIBatch) -> Shown:
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

    cfg = judge.cfg.model
    figure = Figure(figsize=(6.4, 6.0), layout="constrained")
    ax = figure.add_subplot()
    ax.imshow(
        who_reads_whom(cfg, batch), cmap=ListedColormap(["#f5f6f8", "#2f66b3", "#dba255"]), vmin=0, vmax=2
    )
    parts = (cfg.image_tokens, cfg.prompt_length, cfg.answer_length, cfg.horizon)
    ends = np.cumsum(parts)
    places, names = ends - np.array(parts) / 2 - 0.5, ["images", "prompt", "answer", "actions"]
    for end in ends[:-1]:
        ax.axhline(end - 0.5, color="white", linewidth=1)
        ax.axvline(end - 0.5, color="white", linewidth=1)
    ax.set_xticks(places, names)
    ax.set_yticks(places, names, rotation=90, va="center")
    ax.tick_params(length=0)
    ax.set_xlabel("is read")
    ax.set_ylabel("reads")
    keep = judge.cfg.gates()["kv->velocity"]
    look = (
        "One robot row. Blue: read. Orange: the keys and values that the action expert reads, through which "
        f"{keep:g} of its gradient passes. Answer tokens are causal and no action token reads them; pale columns "
        "are padding."
    )
    return Shown("Who reads whom", look, _png(figure), "png")


def liveliest(batch: KIBatch, count: int) -> list[int]:
    """The robot rows whose chunks go the longest way, the longest first: an arm that holds still shows little."""
    both = batch.action_mask[:, 1:] & batch.action_mask[:, :-1]
    way = (batch.actions.diff(dim=1).abs() * both).sum((1, 2))[: batch.robots]
    return way.argsort(descending=True, stable=True)[:count].tolist()


def _chunks(judge: Judge, batch: KIBatch) -> Shown:
    from matplotlib.figure import Figure

    generator = judge.streams.torch("pictures", device=judge.task.device)
    model, cfg, norm = judge.task.model, judge.cfg.model, judge.tools.norm.action
    draws = [
        sample_actions(model, cfg, batch, generator, steps=judge.cfg.sampler_steps) for _ in range(DRAWS)
    ]
    dims = min(judge.data.robot.actions.shape[1], 7)
    places = lambda x: norm.restore(x[..., : len(norm.low)].float().cpu().numpy())
    truth, made, real = places(batch.actions), [places(d) for d in draws], _real(batch.action_mask)
    figure = Figure(figsize=(2.6 * batch.B, 1.5 * dims + 0.4), layout="constrained")
    axes = figure.subplots(dims, batch.B, sharex=True, sharey="row", squeeze=False)
    for row, column in np.ndindex(dims, batch.B):
        ax, steps = axes[row, column], np.flatnonzero(real[column])
        ax.plot(steps, truth[column, steps, row], color="#626b78", linewidth=3, alpha=0.5)
        for sample in made:
            ax.plot(steps, sample[column, steps, row], color="#2f66b3", linewidth=1)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8)
        if column == 0:
            ax.set_ylabel(f"action {row}", fontsize=8)
        if row == dims - 1:
            ax.set_xlabel("step of the chunk", fontsize=8)
            ax.xaxis.get_major_locator().set_params(integer=True)
    look = (
        "The held-out rows that move most, one a column. Grey: what the demonstration did. "
        f"Blue: {DRAWS} sampled chunks of the expert, in the units of the data. Samples that spread are "
        "a policy that does not know."
    )
    return Shown("Sampled chunks beside the demonstration's", look, _png(figure), "png")


def _real(mask: Tensor) -> np.ndarray:
    """Steps that exist. Shapes: [B,T,A] -> [B,T]."""
    return mask.any(-1).cpu().numpy()


def _film(judge: Judge) -> Shown:
    from PIL import Image, ImageDraw

    rows, words = [], []
    for name in ("seen", "held_out"):
        sim, pictures = judge.episodes(name, ARMS, watch=True)
        rows.append((np.stack(pictures), sim.success()))  # [T,N,3,64,64], [N]
        words.append([text.removeprefix("reach the ").removesuffix(" target") for text in sim.observe()[2]])
    frames = []
    for t in range(len(rows[0][0])):
        sheet = Image.new("RGB", (ARMS * 140 + 10, 2 * 165 + 10), QUIET)
        pen = ImageDraw.Draw(sheet)
        for row, (film, success) in enumerate(rows):
            for column in range(ARMS):
                x, y = 10 + column * 140, 24 + row * 165
                done = t == len(film) - 1
                if done:
                    pen.rectangle((x - 4, y - 4, x + 131, y + 131), fill=GREEN if success[column] else RED)
                picture = Image.fromarray(film[t, column].transpose(1, 2, 0)).resize(
                    (128, 128), Image.NEAREST
                )
                sheet.paste(picture, (x, y))
                pen.text((x, y - 17), words[row][column], fill=(28, 32, 38))
        frames += [sheet] * (12 if t == len(rows[0][0]) - 1 else 1)
    buffer = io.BytesIO()
    frames[0].save(buffer, "gif", save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0)
    share = [f"{success.mean():.0%}" for _, success in rows]
    look = (
        "The arm in closed loop, told the colour above each picture. Above: colours of the demonstrations "
        f"({share[0]} of these arrive); below: colours that only questions ever named ({share[1]}). "
        "The frame turns green where the tip ends on the named target, else red."
    )
    return Shown("Arms at work", look, buffer.getvalue(), "gif")


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
