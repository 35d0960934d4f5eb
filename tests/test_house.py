"""The rules of the house: who may import whom, how long a file may be, what has no place in it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "jepa_world_model"
FILES = sorted((ROOT / PACKAGE).rglob("*.py"))
FLOORS = {
    "core": 0, "data": 1, "envs": 1, "models": 1, "model_config": 1, "latents": 2, "losses": 3, "planning": 3,
    "diagnostics": 4, "experiment": 5, "commands": 6, "cli": 6,
}  # fmt: skip
CORE_LIBRARIES = {"torch", "numpy", "safetensors"}
LAZY = {
    "wandb", "matplotlib", "torchvision", "tyro", "ale_py", "transformers", "tokenizers", "sentencepiece", "pyarrow",
    "av", "mujoco", "tqdm", "scipy", "h5py", "minari", "minigrid", "gym_pusht", "gymnasium_robotics", "pandas",
    "huggingface_hub", "tensorboard", "stable_worldmodel",
}  # fmt: skip


def part(path: Path) -> str:
    """The first name below the package: its room, or the file itself."""
    return path.relative_to(ROOT / PACKAGE).parts[0].removesuffix(".py")


def floor(name: str) -> int:
    """The floor of a room."""
    return FLOORS[name]


def imports(tree: ast.AST, top_level_only: bool = False):
    """Absolute names of everything imported."""
    nodes = ast.iter_child_nodes(tree) if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports inside the package are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_imported(path: Path) -> set[str]:
    names = (name.split(".") for name in imports(ast.parse(path.read_text())))
    return {name[1] for name in names if (name[0] == PACKAGE and len(name) > 1 and (ROOT / PACKAGE / name[1]).exists())
            or (name[0] == PACKAGE and len(name) > 1 and (ROOT / PACKAGE / f"{name[1]}.py").exists())}  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_import_from_lower_floors_only(path):
    room = part(path)
    if room in ("__init__", "cli"):
        pytest.skip("the top of the house imports every floor")
    for other in rooms_imported(path) - {room}:
        if room == "vla_ki":
            assert other == "core", f"{path} is a sibling and may import core only, not {other}"
        elif (room, other) != ("models", "model_config"):
            assert other != "vla_ki", f"{path} imports the sibling pipeline"
            assert floor(other) < floor(room), f"{path} (floor {floor(room)}) imports {other}"


@pytest.mark.parametrize("path", [f for f in FILES if part(f) == "core"], ids=lambda p: p.name)
def test_core_needs_torch_numpy_and_the_standard_library_only(path):
    import sys

    for name in imports(ast.parse(path.read_text()), top_level_only=True):
        top = name.split(".")[0]
        assert top in CORE_LIBRARIES | {PACKAGE} or top in sys.stdlib_module_names, (
            f"{path.name} imports {name}"
        )


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_slow_and_optional_libraries_are_imported_where_they_are_used(path):
    assert not {n.split(".")[0] for n in imports(ast.parse(path.read_text()), top_level_only=True)} & LAZY


@pytest.mark.parametrize(
    "path", [*FILES, ROOT / "jepa_world_model_trainer.py"], ids=lambda p: str(p.relative_to(ROOT))
)
def test_sizes_and_docstrings(path):
    text = path.read_text()
    limit = 120 if path.name == "jepa_world_model_trainer.py" else 400
    assert text.count("\n") <= limit, f"{path}: {text.count(chr(10))} lines, at most {limit}"
    tree = ast.parse(text)
    assert ast.get_docstring(tree) is not None, f"{path} has no docstring"
    nested = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        for child in ast.walk(node)
        if child is not node
    }
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            lines = node.end_lineno - node.lineno + 1
            if not isinstance(node, ast.ClassDef):
                assert lines <= 60, f"{path}: {node.name} has {lines} lines, at most 60"
            public = not node.name.startswith("_") and node not in nested
            overrides = node.name in ("forward", "setup_context", "backward")  # torch's own meaning
            assert not public or overrides or ast.get_docstring(node), f"{path}: {node.name} has no docstring"


@pytest.mark.parametrize(
    "path", [f for f in FILES if part(f).startswith(("losses", "latent"))], ids=lambda p: p.name
)
def test_losses_and_latents_stop_gradients_through_the_barrier_only(path):
    text = path.read_text()
    assert not re.search(r"\.detach\(|no_grad|stop_gradient|\.item\(\)|\.cpu\(\)|requires_grad", text)
    if path.name != "image_distance.py":  # hardness is a constant by definition
        assert "barrier" not in text, f"{path.name}: barriers stand in the table and the contracts"


def test_no_print_outside_sinks_and_commands():
    for path in FILES:
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        printing = any(isinstance(n.func, ast.Name) and n.func.id == "print" for n in calls)
        allowed = part(path) in ("cli", "vla_ki", "diagnostics") or path.name in (
            "log.py",
            "track.py",
            "config.py",
            "engine.py",
        )
        assert not printing or allowed or floor(part(path)) >= 5, f"{path} prints"


def test_no_comment_of_a_setting_hides_from_the_help():
    # `name: int = (\n    0  # what it is\n)`: the formatter makes that of a long line, and --help does not find the words
    for path in FILES:
        hidden = re.search(r"^ {4}\w+: [^=\n]+ = \(\n {8}.+  # ", path.read_text(), re.M)
        assert not hidden, f"{path}: {hidden[0].strip()}: put the comment above"
