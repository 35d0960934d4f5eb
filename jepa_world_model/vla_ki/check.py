"""`jepa-wm ki-check`: the ten proofs on a configuration of one's own."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from jepa_world_model.core.errors import UserError
from jepa_world_model.vla_ki.build import build, proof_rows
from jepa_world_model.vla_ki.config import read_config
from jepa_world_model.vla_ki.model import PRESETS, sizes
from jepa_world_model.vla_ki.proofs import PROOFS, Kit, ProofError


def check_main(argv: Sequence[str]) -> int:
    """`jepa-wm ki-check [--preset NAME] [--config FILE] [flags]`: 0 when every proof holds, else 1.

    `jepa-wm ki-check --sizes` prints the parameters of every preset instead.
    """
    if list(argv) == ["--sizes"]:
        return print_sizes()
    cfg = read_config(argv, prog="jepa-wm ki-check", description="Prove the barrier, ten ways.")
    if cfg.freeze_vlm or cfg.lora_rank:
        raise UserError("the proofs compare gradients of the whole VLM; leave out freeze_vlm and lora_rank")
    exp = build(cfg)
    kit = Kit(cfg=cfg.model, model=exp.task.model, batch=proof_rows(exp), flow_samples=cfg.flow_samples)
    return report(kit)


def print_sizes() -> int:
    """One line a preset: parameters of vision tower and projector, VLM, action expert."""
    for name, preset in PRESETS.items():
        parts = sizes(preset)
        told = "  ".join(f"{part} {count:>13,}" for part, count in parts.items())
        print(f"{name:<14} {told}  together {sum(parts.values()):>13,}")
    return 0


def report(kit: Kit) -> int:
    """Run every proof, print one line each; the number of failures, at most 1."""
    failed = 0
    for number, proof in enumerate(PROOFS, 1):
        try:
            word, detail = "held", proof(kit)
        except ProofError as error:
            word, detail = "FAILED", str(error)
            failed += 1
        claim = (inspect.getdoc(proof) or "").split("\n")[0].split(". ", 1)[1]
        print(f"{number:>2} {word:<6} {claim}\n          {detail}")
    print(f"{len(PROOFS) - failed} of {len(PROOFS)} proofs hold")
    return int(failed > 0)
