"""`jepa-wm gradients`: which loss moves which module, declared and measured, for any configuration."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence

import torch

from jepa_world_model.core.barrier import reach
from jepa_world_model.core.config import load_config
from jepa_world_model.core.proof import ReachTable, difference, jittered, measure
from jepa_world_model.data.batch import ActionSpace, Batch
from jepa_world_model.experiment.build import build_task
from jepa_world_model.experiment.config import TrainConfig
from jepa_world_model.latents import NAMED_GATES
from jepa_world_model.losses import LOSSES, LossWeights


def main(argv: Sequence[str]) -> int:
    """Print the reach table of a configuration. Returns 0, or 1 when declared and measured differ."""
    parser = argparse.ArgumentParser(
        prog="jepa-wm gradients", description=__doc__, epilog="All other flags are those of `jepa-wm train`."
    )
    parser.add_argument(
        "--format", choices=("text", "markdown", "json"), default="text", help="of what is printed"
    )
    parser.add_argument("--all-gates", action="store_true", help="prove every loss under every gate setting")
    own, rest = parser.parse_known_args(argv)
    cfg = load_config(TrainConfig, rest, prog="jepa-wm gradients")
    if own.all_gates:
        return _print_all_gates(cfg, own.format)
    cfg = with_actions(cfg)
    table = measure(build_task(cfg), synthetic_batch(cfg))
    print(render(table, own.format))
    for fault in table.faults():
        print(f"fault: {fault}", file=sys.stderr)
    return 1 if table.faults() else 0


def render(table: ReachTable, form: str) -> str:
    """The table as text, markdown or JSON."""
    if form == "json":
        return json.dumps(table.to_json(), indent=1)
    text = table.to_markdown() if form == "markdown" else table.to_text()
    return "\n".join([text, *(f"note: {warning}" for warning in table.warnings())])


def with_actions(cfg: TrainConfig) -> TrainConfig:
    """The configuration with a width of actions, where it leaves that to the data: routing does not depend on it."""
    model = dataclasses.replace(cfg.model, action_dim=cfg.model.action_dim or 5)
    return dataclasses.replace(cfg, model=model)


def synthetic_batch(cfg: TrainConfig, windows: int = 3) -> Batch:
    """Random frames and discrete actions of the configured sizes: the routing follows from declarations, not from data."""
    generator = torch.Generator().manual_seed(cfg.seed)
    size, steps, width = cfg.model.image_size, cfg.seq_len - 1, cfg.model.action_dim
    shape = (windows, cfg.seq_len, cfg.model.in_channels, size, size)
    ids = torch.randint(width, (windows, steps), generator=generator)
    return Batch(
        frames=torch.randint(256, shape, generator=generator, dtype=torch.uint8),
        actions=torch.nn.functional.one_hot(ids, width).float(),
        action_id=ids,
        noop=ids == 0,
        episode=torch.arange(windows),
        start=torch.zeros(windows, dtype=torch.int64),
        state=None,
        space=ActionSpace(kind="discrete", dim=width, noop=0),
    ).validate()


def gate_settings(cfg: TrainConfig) -> Iterator[tuple[str, TrainConfig]]:
    """Every named gate open and closed, alone and together, for each way to start h."""
    everything = LossWeights(**dict.fromkeys(LOSSES, 1.0))
    for h_init, shut in itertools.product(
        ("z_to_h", "zero"), itertools.product((True, False), repeat=len(NAMED_GATES))
    ):
        named = dict(zip(NAMED_GATES, shut, strict=True))
        title = ", ".join(f"{name}={value}" for name, value in named.items()) + f", h_init={h_init}"
        model = {name: named.pop(name) for name in list(named) if hasattr(cfg.model, name)} | {
            "h_init": h_init
        }
        yield (
            title,
            dataclasses.replace(
                cfg, loss_weights=everything, model=dataclasses.replace(cfg.model, **model), gates={}, **named
            ),
        )


def prove_all_gates(cfg: TrainConfig) -> tuple[dict[str, list[str]], int]:
    """Faults by gate setting, and the number of (loss, setting) pairs held against autograd.

    Named gates in every combination: derived, structural and numeric. Then every single edge cut, and every closed one
    opened, on its own: derived and structural.
    """
    cfg, faults, pairs = with_actions(cfg), {}, 0
    for title, setting in gate_settings(cfg):
        table = measure(build_task(setting), synthetic_batch(setting))
        faults[title], pairs = table.faults(), pairs + len(table.derived)
    base = dataclasses.replace(cfg, loss_weights=LossWeights(**dict.fromkeys(LOSSES, 1.0)))
    for edge, keep in base.edge_gates().items():
        flipped = dataclasses.replace(base, gates=base.gates | {edge: 1.0 if keep == 0 else 0.0})
        task = build_task(flipped)
        twin = task.with_model(jittered(task.model, task.streams.torch("proof")))
        measured = reach(twin.terms(synthetic_batch(flipped)), twin.groups, numeric=False)
        rows = [
            difference(name, "structural", groups, measured[name].structural)
            for name, groups in task.derived().items()
        ]
        faults[f"{edge} {'opened' if keep == 0 else 'cut'}"] = [line for row in rows for line in row]
        pairs += len(measured)
    return faults, pairs


def _print_all_gates(cfg: TrainConfig, form: str) -> int:
    start = time.monotonic()
    faults, pairs = prove_all_gates(cfg)
    bad = {title: lines for title, lines in faults.items() if lines}
    if form == "json":
        print(json.dumps({"settings": len(faults), "pairs": pairs, "faults": bad}, indent=1))
    else:
        print(
            f"{pairs} pairs of loss and gate setting in {len(faults)} settings, {time.monotonic() - start:.1f} s"
        )
        for title, lines in faults.items():
            print(f"{'FAIL' if lines else 'ok  '}  {title}")
            for line in lines:
                print(f"      {line}")
    return 1 if bad else 0
