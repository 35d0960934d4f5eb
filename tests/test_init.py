"""The package's front door: light to open, and everything behind it is what it says."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import jepa_world_model as jwm

HEAVY = {
    "torch", "numpy", "scipy", "matplotlib", "wandb", "torchvision", "tyro", "tqdm", "gymnasium", "safetensors", "einops",
    "huggingface_hub", "tensorboard", "transformers", "mujoco", "pyarrow", "PIL",
}  # fmt: skip


@pytest.mark.parametrize("line", [
    "import jepa_world_model",
    "import jepa_world_model as m; dir(m)",
    "from jepa_world_model.cli import main; main(['--help'])",
    "from jepa_world_model.cli import main; main(['--version'])",
])  # fmt: skip
def test_opening_the_package_imports_no_heavy_library(line):
    code = f"import sys; {line}; print('\\nMODULES', *{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = set(done.stdout.rpartition("MODULES")[2].split())
    assert "jepa_world_model" in loaded
    assert not loaded & HEAVY


@pytest.mark.parametrize("name", jwm.__all__)
def test_every_public_name_is_there_and_stays(name):
    found = getattr(jwm, name)
    assert name in dir(jwm)
    assert getattr(jwm, name) is found
    assert vars(jwm)[name] is found


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'lod'"):
        jwm.lod  # noqa: B018
    assert not hasattr(jwm, "nothing")


def test_what_type_checkers_see_is_what_is_imported_on_use():
    tree = ast.parse(Path(jwm.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen == {name: f"jepa_world_model.{home}" for name, home in jwm._HOME.items()}
    assert set(jwm.__all__) == {*jwm._HOME, "__version__"}
