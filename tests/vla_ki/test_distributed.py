"""A training that moves from one process to two, one of them without robot rows, whose model is cut in parts."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file

from jepa_world_model.core.log import read_metrics
from jepa_world_model.vla_ki.train import train_main
from tests.distributed.processes import free_port, needs_gloo, once
from tests.vla_ki.tiny import flags, words

for package in ("tokenizers", "pyarrow", "av"):
    pytest.importorskip(package)
pytestmark = [pytest.mark.extra, needs_gloo]
# One robot row a batch: the second process has none. An evaluation between two steps, on averaged weights.
MIX = {
    "data.vqa_share": 0.75,
    "ema": 0.5,
    "eval_every": 3,
    "eval_episodes": 0,
    "checkpoint_every": 0,
    "eval_rows": 2,
}
RELATIVE = 1e-5  # sums in fp32 in another order


def resume(rank: int, port: int, folder: str) -> None:
    """Go on with a run as one of two processes."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    assert train_main(words({"resume": folder, "steps": 4})) == 0


@pytest.fixture(scope="module")
def runs(place, tmp_path_factory) -> tuple[Path, Path]:
    """Four steps on one process; two on one and two on two."""

    def make(folder: Path) -> None:
        train_main(flags(place, name="on-one", **MIX))
        train_main(flags(place, name="moved", steps=2, **MIX))
        mp.spawn(resume, args=(free_port(), str(place / "runs" / "moved")), nprocs=2)
        (folder / "where").write_text(str(place / "runs"))

    where = Path((once(tmp_path_factory, "ki-runs", make) / "where").read_text())
    return where / "on-one", where / "moved"


def rows(folder: Path) -> dict[int, dict[str, float]]:
    return {int(row["step"]): row for row in read_metrics(folder / "metrics.jsonl")}


def test_the_numbers_do_not_depend_on_the_number_of_processes(runs):
    one, moved = (rows(folder) for folder in runs)
    assert one.keys() == moved.keys() == {1, 2, 3, 4}
    for step in (3, 4):
        for name, value in one[step].items():
            if not name.startswith("time") and name != "eval/vlm_drift":  # counted from where a process began
                assert math.isclose(moved[step][name], value, rel_tol=RELATIVE, abs_tol=1e-6), (step, name)
        assert moved[step]["eval/vlm_drift"] >= 0


@pytest.mark.parametrize("file", ["model", "optimizer", "average"])
def test_what_is_saved_is_whole_and_the_same(runs, file):
    name = f"checkpoints/step-00000004/{file}.safetensors"
    one, moved = (load_file(folder / name) for folder in runs)
    assert one.keys() == moved.keys()
    for key, tensor in one.items():
        assert moved[key].shape == tensor.shape
        # Absolute for what is 0 but for rounding: the bias of a key, which no attention depends on.
        assert torch.allclose(moved[key], tensor, rtol=1e-4, atol=2e-5), key
