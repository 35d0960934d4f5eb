"""What several rooms test against: a tiny run, trained once, that no test changes for good."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of four steps on the embedded gridworld, with checkpoints after two and four."""
    from tests.experiment.test_run import run

    place = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        flags = ["--steps", "4", "--name", "a", "--checkpoint-every", "2", "--no-report"]
        assert run(*flags, "--data.cache-dir", str(place / "datasets")) == 0
    return place / "runs" / "a"


@pytest.fixture
def at_threads():
    """Of a function: what it finds with each of these numbers of threads."""
    before = torch.get_num_threads()
    yield lambda function, *counts: [(torch.set_num_threads(n), function())[1] for n in counts]
    torch.set_num_threads(before)
