"""Exported programs: the same numbers as the model, for any number of rows, and without this package."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from jepa_world_model import WorldModel
from jepa_world_model.core.errors import UserError
from jepa_world_model.models.programs import export_programs, programs
from tests.models.build import small

GROUPS = ("encoder", "decoder", "predictor", "h_to_z", "z_to_h", "p_action_delta_projector")
CFG = small(image_size=16, encoder_schedule=(8, 8), decoder_schedule=(8, 8))  # tracing costs time by layer


def model() -> WorldModel:
    torch.manual_seed(0)
    return WorldModel(CFG, GROUPS).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("programs")
    names = [path.stem for path in export_programs(place, model(), CFG)]
    assert names == ["encoder", "start", "step", "pose", "decoder"]
    return place


def rows(like: torch.Tensor, count: int) -> torch.Tensor:
    """Random input of another number of rows."""
    generator = torch.Generator().manual_seed(count)
    shape = (count, *like.shape[1:])
    if like.dtype == torch.uint8:
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return torch.randn(shape, generator=generator)


@pytest.mark.parametrize("name", ["encoder", "start", "step", "pose", "decoder"])
@torch.no_grad()
def test_a_program_gives_the_numbers_of_the_model_for_any_number_of_rows(folder, name):
    own, like = programs(model(), CFG)[name]
    program = torch.export.load(folder / f"{name}.pt2").module()
    for count in (1, 2, 7):
        inputs = tuple(rows(one, count) for one in like)
        found, expected = program(*inputs), own(*inputs)
        # Kernels may be chosen anew for a program; here they are the same, so this holds with room to spare.
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_step_is_the_predictor_and_its_read_out(folder):
    world = model()
    z, h, a = (torch.randn(3, width) for width in (CFG.z_dim, CFG.state_dim, CFG.action_dim))
    next_z, next_h = torch.export.load(folder / "step.pt2").module()(z, h, a)
    torch.testing.assert_close(next_h, world.predictor(z, h, a))
    torch.testing.assert_close(next_z, world.h_to_z(next_h))


def test_a_run_without_memory_exports_a_step_that_reads_no_h():
    without = programs(model(), CFG, memory=False)
    assert "start" not in without
    step = without["step"][0]
    z, a = torch.randn(2, CFG.z_dim), torch.randn(2, CFG.action_dim)
    first, second = (step(z, torch.full((2, CFG.state_dim), value), a)[1] for value in (0.0, 5.0))
    assert torch.equal(first, second)


@torch.no_grad()
def test_a_program_runs_where_this_package_is_not(folder, monkeypatch):
    frames = rows(programs(model(), CFG)["encoder"][1][0], 3)
    expected = model().encoder(frames.float() / 255)
    for name in [name for name in sys.modules if name.partition(".")[0] == "jepa_world_model"]:
        monkeypatch.setitem(sys.modules, name, None)  # importing it now fails
    program = torch.export.load(folder / "encoder.pt2").module()
    torch.testing.assert_close(program(frames), expected, atol=1e-5, rtol=1e-5)


def test_a_model_without_parts_to_export_is_refused(tmp_path):
    bare = WorldModel(CFG, ("temporal_distance",))
    with pytest.raises(UserError, match="no program to export"):
        export_programs(tmp_path / "none", bare, CFG)
    assert not (tmp_path / "none").exists()
