"""A world-model run that moves from one process to two and back, started as its users start it."""

from __future__ import annotations

import math
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

import jepa_world_model_trainer as trainer
from jepa_world_model.core.log import read_metrics
from tests.distributed.processes import free_port, needs_gloo, once
from tests.experiment.test_run import TINY

pytestmark = needs_gloo
ROOT = Path(__file__).parents[2]
# Sums in another order differ in their last bits, and six steps of AdamW carry that on.
RELATIVE, WEIGHTS = 1e-4, 1e-5
# A constant rate: a run that is asked for fewer steps must not anneal sooner.
FLAGS = [
    *TINY, "--no-report", "--loss-normalization", "--eval-every", "2", "--optim.schedule", "constant",
]  # fmt: skip


def rows(folder: Path) -> list[dict[str, float]]:
    return [
        {name: value for name, value in row.items() if not name.startswith("time")}
        for row in read_metrics(folder / "metrics.jsonl")
    ]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Path, str]:
    """`whole` on one process, `moved` on one, two and one; and what the two processes printed."""
    here = once(tmp_path_factory, "runs", move)
    return here / "runs", (here / "said.txt").read_text()


def move(here: Path) -> None:
    # As docs/scaling.md says it.
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    line = page.partition("\ntorchrun ")[2].partition("  #")[0].replace("--name two", "--name moved")
    told = shlex.split(line.replace("jepa_world_model_trainer.py", str(ROOT / "jepa_world_model_trainer.py")))
    launch = [sys.executable, "-m", "torch.distributed.run", "--master-port", str(free_port())]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        assert trainer.main([*FLAGS, "--steps", "6", "--name", "whole"]) == 0
        assert trainer.main([*FLAGS, "--steps", "2", "--name", "moved"]) == 0
        done = subprocess.run(
            [*launch, *told, *FLAGS, "--steps", "4", "--resume"],
            env=environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        assert trainer.main([*FLAGS, "--steps", "6", "--name", "moved", "--resume"]) == 0
    (here / "said.txt").write_text(done.stdout + done.stderr)


def test_numbers_of_a_run_do_not_depend_on_the_number_of_its_processes(runs):
    whole, moved = (rows(runs[0] / name) for name in ("whole", "moved"))
    moved = {row["step"]: row for row in moved}
    for row in whole:
        for name, value in row.items():
            if name.startswith(("loss/", "weighted/", "grad_norm/")):
                assert math.isclose(moved[row["step"]][name], value, rel_tol=RELATIVE, abs_tol=1e-6), name
        assert not any(name.startswith("eval/") for name in row) or any(
            name.startswith("eval/") for name in moved[row["step"]]
        )


def test_weights_and_moments_are_the_same_file_whatever_the_number_of_processes(runs):
    for file in ("model.safetensors", "optimizer.safetensors"):
        whole, moved = (
            load_file(runs[0] / name / "checkpoints/step-00000006" / file) for name in ("whole", "moved")
        )
        assert whole.keys() == moved.keys()
        for name, tensor in whole.items():
            gap = float((moved[name].float() - tensor.float()).norm())
            assert gap <= WEIGHTS * max(1.0, float(tensor.float().norm())), f"{name} differs by {gap:.1e}"


def test_the_first_process_alone_writes_and_speaks(runs):
    folder, said = runs
    assert said.count("Which loss moves which module") == 1
    assert said.count("step 3/4") == 1
    assert [row["step"] for row in rows(folder / "moved")] == [1, 2, 3, 4, 5, 6]
    assert sorted(path.name for path in folder.iterdir()) == ["moved", "whole"]
