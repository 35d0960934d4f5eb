"""What several tests of the pipeline share."""

from __future__ import annotations

from pathlib import Path

import pytest

from jepa_world_model.vla_ki.build import make_arm_data
from jepa_world_model.vla_ki.config import KIDataConfig


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a few demonstrations of the embedded arm, written once."""
    for package in ("tokenizers", "pyarrow", "av"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("ki")
    make_arm_data(KIDataConfig(cache=str(folder / "datasets"), episodes=8))
    return folder
