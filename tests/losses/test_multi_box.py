"""The distance by C: what it stands for, in every corner, and what happens where it is not to be had.

Its values and gradients are held to a slow twin in test_image_distance.py, both ways.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from jepa_world_model.core.errors import UserError
from jepa_world_model.experiment import begin, run
from jepa_world_model.losses import multi_box
from jepa_world_model.losses.image_distance import MultiBoxConfig, multi_box_of
from jepa_world_model.models import soft_argmax
from tests.losses.test_image_distance import pictures
from tests.losses.world import make_batch, make_task
from tests.reference import image_distance as slow

MISSING = multi_box.ROUTINE.missing()
by_c = pytest.mark.skipif(bool(MISSING), reason=MISSING)
DEFAULT = ((8, 16, 16), (4, 8, 8), (2.0, 2.0, 2.0), (1 / 3, 1 / 3, 1 / 3), 100.0)


@pytest.fixture
def forgotten(monkeypatch):
    """The library is looked for again."""
    for module in (multi_box, soft_argmax):
        monkeypatch.setattr(module, "ROUTINE", dataclasses.replace(module.ROUTINE))
        monkeypatch.setitem(begin.BY_C, module.ROUTINE.source.stem, module.ROUTINE)


def by_torch(monkeypatch, difference, options=None):
    with monkeypatch.context() as patch:
        patch.setattr(multi_box, "serves", lambda _: False)
        value = multi_box_of(difference, options)
        return value, torch.autograd.grad(value, difference)[0]


def test_what_is_expected_of_the_probe_is_what_the_slow_twin_finds():
    place = np.arange(2 * 3 * 9 * 10, dtype=np.float32)
    pictures = np.sin(1.7 * place).astype(np.float32).reshape(2, 3, 9, 10)
    options = MultiBoxConfig(
        kernels=(4, 3), strides=(2, 3), betas=(2.0, 1.0), lambdas=(0.5, 1.0), max_hardness=5.0
    )
    for number in (0, 1):
        one = pictures[number : number + 1]
        assert slow.multi_box(one, 0 * one, options, multi_box.TINY) == pytest.approx(
            multi_box.ROUTINE.expected[number], rel=1e-5
        )


@by_c
@pytest.mark.parametrize("shape", [(3, 64, 64), (5, 3, 64, 64), (2, 4, 1, 33, 20), (0, 3, 16, 16)])
def test_any_leading_dimensions(monkeypatch, shape):
    d = pictures(*shape).requires_grad_()
    value = multi_box_of(d)
    (slopes,) = torch.autograd.grad(value, d)
    assert slopes.shape == d.shape
    if d.numel():
        want = by_torch(monkeypatch, d.detach().reshape(-1, *shape[-3:]).requires_grad_())
        torch.testing.assert_close(value, want[0], rtol=1e-5, atol=0)
        torch.testing.assert_close(slopes.reshape(want[1].shape), want[1], rtol=1e-5, atol=1e-9)


@by_c
def test_a_view_is_what_it_shows(monkeypatch):
    whole = pictures(2, 6, 3, 20, 24)
    view = whole[:, 1::2].transpose(-1, -2).requires_grad_()
    (slopes,) = torch.autograd.grad(multi_box_of(view), view)
    value, same = by_torch(monkeypatch, view)
    torch.testing.assert_close(multi_box_of(view), value, rtol=1e-5, atol=0)
    torch.testing.assert_close(slopes, same, rtol=1e-5, atol=1e-9)


@by_c
def test_the_bits_do_not_depend_on_the_number_of_threads(at_threads):
    d = pictures(7, 3, 40, 40)
    first, *others = at_threads(lambda: multi_box.multi_box(d, *DEFAULT, True), 1, 2, 3)
    assert all(torch.equal(a, b) for one in others for a, b in zip(one, first, strict=True))


@by_c
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(bad):
    d = pictures(2, 3, 16, 16)
    d[1, 2, 3, 4] = bad
    distances, slopes = multi_box.multi_box(d, *DEFAULT, True)
    assert distances[0].isfinite()
    assert not distances[1].isfinite()
    assert slopes[0].isfinite().all()
    assert not slopes[1].isfinite().all()


@by_c
def test_no_gradient_is_made_unless_it_is_wanted():
    distances, slopes = multi_box.multi_box(pictures(2, 3, 16, 16), *DEFAULT, False)
    assert distances.shape == (2,)
    assert slopes.numel() == 0


@by_c
def test_an_operator_that_torch_can_trace():
    torch.library.opcheck(
        multi_box.multi_box, (pictures(2, 3, 16, 16), *DEFAULT, True), test_utils=("test_schema", "test_faketensor")
    )  # fmt: skip


@by_c
def test_other_types_and_devices_are_not_served():
    assert multi_box.serves(torch.zeros(1, 3, 8, 8))
    assert not multi_box.serves(torch.zeros(1, 3, 8, 8, dtype=torch.float64))
    assert not multi_box.serves(torch.zeros(1, 3, 8, 8, device="meta"))


def test_without_a_compiler_it_is_torch_and_the_run_says_so(monkeypatch, tmp_path, forgotten):
    d = pictures(2, 3, 16, 16).requires_grad_()
    want = by_torch(monkeypatch, d)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler")
    found = multi_box_of(d)
    assert torch.equal(found, want[0])
    assert torch.equal(torch.autograd.grad(found, d)[0], want[1])
    (sentence,) = run._slower(make_task({"recon_multi_box": 1.0, "jepa": 1.0}))
    assert "recon_multi_box, key points by torch" in sentence
    assert "there is no C compiler here (no-such-compiler)" in sentence
    with pytest.raises(UserError, match="no C compiler"):
        multi_box.multi_box(d.detach(), *DEFAULT, True)


@by_c
def test_a_library_that_finds_something_else_is_not_believed(monkeypatch, tmp_path, forgotten):
    wrong = tmp_path / "multi_box.c"
    text = multi_box.ROUTINE.source.read_text()
    assert text.count("0.25f * (") == 1
    wrong.write_text(text.replace("0.25f * (", "0.26f * ("))
    monkeypatch.setattr(multi_box.ROUTINE, "source", wrong)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "compiled to something else here" in multi_box.ROUTINE.missing()
    assert not multi_box.serves(torch.zeros(1, 3, 8, 8))


@by_c
def test_losses_on_pictures_are_found_by_c_here_and_nothing_is_said(monkeypatch):
    task, shapes, own = (
        make_task({"recon_multi_box": 1.0, "pixel_delta_multi_box": 1.0}),
        [],
        multi_box.multi_box,
    )
    monkeypatch.setattr(multi_box, "multi_box", lambda d, *rest: (shapes.append(d.shape), own(d, *rest))[1])
    batch = make_batch()
    task.terms(batch)
    assert shapes == [batch.frames.shape, (batch.B, batch.T - 1, *batch.frames.shape[2:])]
    assert run._slower(task) == []
