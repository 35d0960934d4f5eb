from __future__ import annotations

import numpy as np
import pytest

from jepa_world_model.core.errors import UserError
from jepa_world_model.data.frames import FITS, check_fit, fit_frame


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    """White, but for its leftmost and rightmost eighth, which are mid-grey."""
    frame = np.full((height, width, channels), 255, np.uint8)
    frame[:, : width // 8] = frame[:, -width // 8 :] = 100
    return frame


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("fit", FITS)
def test_every_fit_gives_a_square_and_leaves_the_right_size_alone(fit, channels):
    frame = picture(16, 32, channels)
    assert fit_frame(frame, 8, fit).shape == (8, 8, channels)
    square = picture(8, 8, channels)
    assert fit_frame(square, 8, fit) is square


def test_letterbox_keeps_all_between_black_bars():
    wide = fit_frame(picture(16, 32), 8, "letterbox")[..., 0]
    assert (wide[:2] == 0).all()
    assert (wide[6:] == 0).all()
    assert wide[2:6].tolist() == [[100, *[255] * 6, 100]] * 4
    tall = fit_frame(picture(32, 16).copy(), 8, "letterbox")[..., 0]
    assert (tall[:, :2] == 0).all()
    assert (tall[:, 2:6] > 0).all()
    assert fit_frame(picture(210, 160), 64, "letterbox")[0, :8, 0].tolist() == [0] * 7 + [100]


def test_crop_keeps_the_middle_square():
    assert (fit_frame(picture(16, 32), 8, "crop") == 255).all()  # the grey ends are outside


def test_squeeze_keeps_all_without_bars():
    assert fit_frame(picture(16, 32), 8, "squeeze")[..., 0].tolist() == [[100, *[255] * 6, 100]] * 8


def test_proportions_survive_all_but_squeeze():
    frame = np.zeros((60, 80, 3), np.uint8)
    frame[20:40, 30:50] = 255  # a square
    for fit, across_over_down in (("letterbox", 1), ("crop", 1), ("squeeze", 0.75)):
        lit = fit_frame(frame, 40, fit)[..., 0] > 127
        assert lit.any(0).sum() / lit.any(1).sum() == pytest.approx(across_over_down, abs=0.12)


def test_a_fit_that_does_not_exist_is_refused():
    with pytest.raises(UserError, match=r"use letterbox .* crop .* or squeeze"):
        check_fit("stretch")
