"""What insulation costs: ratios of step times, taken in turns, and the time to one chunk of actions.

Command: python benchmarks/vla_costs.py [--size tiny mid] [--batch 32] [--threads 1] [--rounds 30] [--precision bf16]
[--compile] [--out FILE]

A step is forward, backward, clipping and AdamW on random robot rows. Five kinds take turns; a figure is the median of
the ratios turn by turn. "Twice" runs the backbone once
for the tokens and once for the actions, which is how two losses on two inputs are commonly written; it does not insulate.
--compile: also the insulated step as `ki-train --compile` makes it.
`mid` has the proportions of the published models: an expert of a sixth of the VLM, four prefix tokens to an action token.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from flags import flags_of
from timing import clock_for, interleaved, ratio

from jepa_world_model.core.barrier import clip_grad_groups
from jepa_world_model.core.compiled import Compiled
from jepa_world_model.core.optim import OptimConfig, build_optimizer
from jepa_world_model.core.task import Task
from jepa_world_model.vla_ki.batch import KIBatch, collate
from jepa_world_model.vla_ki.flow import integrate
from jepa_world_model.vla_ki.gemma import GEMMA, GemmaConfig
from jepa_world_model.vla_ki.model import KIConfig, Vla
from jepa_world_model.vla_ki.policy import prefill
from jepa_world_model.vla_ki.prompt import Tokens
from jepa_world_model.vla_ki.siglip import SIGLIP, SiglipConfig
from jepa_world_model.vla_ki.table import GRAPH, LOSSES, Settings, setting_gates

SIGLIP["mid"] = SiglipConfig(width=192, depth=6, mlp=768, heads=6, patch=8)
GEMMA["mid"] = GemmaConfig(width=384, depth=6, mlp=1536, heads=4, head_dim=64)
GEMMA["mid_expert"] = GemmaConfig(width=128, depth=6, mlp=512, heads=4, head_dim=64)
SIZES = {
    "tiny": KIConfig(),
    "mid": KIConfig(
        vision="mid", vlm="mid", expert="mid_expert", cameras=3, prompt_length=48, vocab_size=2048
    ),
}


def random_batch(cfg: KIConfig, rows: int, device: torch.device) -> KIBatch:
    """Robot rows of random content, every column used."""
    rng, length = np.random.default_rng(0), cfg.prompt_length + cfg.answer_length
    answer = np.broadcast_to(np.arange(length) >= cfg.prompt_length, (rows, length)).copy()
    size = SIGLIP[cfg.vision].image_size
    batch = collate(
        cfg,
        Tokens(
            rng.integers(4, cfg.vocab_size, (rows, length)), np.ones((rows, length), bool), answer, answer
        ),
        rng.integers(0, 256, (rows, cfg.cameras, 3, size, size), dtype=np.uint8),
        np.ones((rows, cfg.cameras), bool),
        rng.uniform(-1, 1, (rows, cfg.horizon, 2)).astype(np.float32),
        np.ones((rows, cfg.horizon), bool),
        np.ones(rows, bool),
    )
    return batch.to(device)


class Step:
    """One kind of training step, with a model and an optimizer of its own."""

    def __init__(
        self,
        cfg: KIConfig,
        batch: KIBatch,
        precision: str,
        kinds: list[dict],
        samples: int,
        compiled: bool = False,
    ) -> None:
        device = batch.ids.device
        torch.manual_seed(0)
        model = Vla(cfg).to(device)
        autocast = partial(torch.autocast, device.type, torch.bfloat16, enabled=precision == "bf16")
        self.batch = batch
        self.tasks = [
            Task(
                model, GRAPH, LOSSES, weights=kind["weights"], gates=setting_gates(kind["setting"], 1.0),
                settings=Settings(model=cfg, flow_samples=samples), autocast=autocast,
            )
            for kind in kinds
        ]  # fmt: skip
        self.optimizer = build_optimizer(self.tasks[0].groups, OptimConfig(lr=1e-4))
        self.program = Compiled(self.tasks[0], say=print) if compiled else None

    def __call__(self) -> None:
        """Once; several tasks add their gradients."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.program:
            self.program(self.batch, 0)
        else:
            sum(task.total(task.terms(self.batch))[0] for task in self.tasks).backward()
        clip_grad_groups(self.tasks[0].groups, 1.0)
        self.optimizer.step()


def measured(steps: dict[str, Callable[[], None]], rounds: int, threads: int) -> dict[str, list[float]]:
    """Seconds of every call, taken in turns."""
    return interleaved(steps, turns=rounds, clock=clock_for(threads))


def in_words(times: dict[str, list[float]]) -> str:
    """The median of each."""
    return ", ".join(f"{name} {1e3 * statistics.median(spent):.1f} ms" for name, spent in times.items())


def latency(cfg: KIConfig, args: argparse.Namespace, device: torch.device) -> dict[str, list[float]]:
    """One chunk for one robot: the VLM's pass over the prompt, then ten Euler steps over its cache, in seconds."""
    torch.manual_seed(0)
    model, batch = Vla(cfg).to(device).eval(), random_batch(cfg, 1, device)
    noise = torch.randn(1, 1, cfg.horizon, cfg.action_dim, device=device)
    autocast = partial(torch.autocast, device.type, torch.bfloat16, enabled=args.precision == "bf16")

    @torch.no_grad()
    def first() -> tuple:
        with autocast():
            return prefill(model, cfg, batch)

    _, kv, visible = first()

    @torch.no_grad()
    def euler() -> None:
        with autocast():
            integrate(lambda x, t: model.expert(x, t, kv, visible).float(), noise, 10)

    return measured({"prefill": first, "ten Euler steps": euler}, args.rounds, args.threads)


def compare(size: str, args: argparse.Namespace, device: torch.device) -> dict[str, float]:
    """The ratios of one size, printed and returned."""
    cfg = SIZES[size]
    batch = random_batch(cfg, args.batch, device)
    both = {"fast_ce": 1.0, "flow": 1.0}
    make = lambda kinds, samples=4, **more: Step(cfg, batch, args.precision, kinds, samples, **more)
    insulated = [{"weights": both, "setting": "insulated"}]
    steps = {
        "insulated": make(insulated),
        "joint": make([{"weights": both, "setting": "joint"}]),
        "one sample": make(insulated, 1),
        "no flow": make([{"weights": {"fast_ce": 1.0}, "setting": "insulated"}]),
        "twice": make(
            [
                {"weights": {"fast_ce": 1.0}, "setting": "joint"},
                {"weights": {"flow": 1.0}, "setting": "joint"},
            ]
        ),
    }
    if args.compile:
        steps["compiled"] = make(insulated, compiled=True)
    found = measured(steps, args.rounds, args.threads)
    ratios = {
        name: ratio(found[over], found[under])
        for name, over, under in (
            *((("insulated_over_compiled", "insulated", "compiled"),) if args.compile else ()),
            ("insulated_over_joint", "insulated", "joint"),
            ("four_samples_over_one", "insulated", "one sample"),
            ("twice_over_insulated", "twice", "insulated"),
            ("insulated_over_no_flow", "insulated", "no flow"),
        )
    }
    parameters = sum(p.numel() for p in Vla(cfg).parameters()) / 1e6
    print(
        f"\n{size}: {parameters:.2f}M parameters, {args.batch} rows, {args.precision}, {device}, {args.rounds} turns"
    )
    print(f"  {in_words(found)}")
    for name, (middle, low, high) in ratios.items():
        print(f"  {name} {middle:.3f} (quartiles {low:.3f} to {high:.3f})")
    print(f"  one chunk: {in_words(latency(cfg, args, device))}")
    return {name: middle for name, (middle, _, _) in ratios.items()}


def main() -> None:
    """Measure every size asked for."""
    parser = flags_of(__doc__)
    parser.add_argument("--size", nargs="+", choices=SIZES, default=["tiny", "mid"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--out", type=Path, help="write the ratios of the last size there as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found = {size: compare(size, args, torch.device(args.device)) for size in args.size}
    if args.out:
        args.out.write_text(json.dumps(found[args.size[-1]], indent=1) + "\n")


if __name__ == "__main__":
    main()
