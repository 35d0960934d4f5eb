from __future__ import annotations

import numpy as np
import pytest

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.video import read_video, write_video

pytest.importorskip("av")
pytestmark = pytest.mark.extra


@pytest.mark.parametrize("size", [(32, 48), (33, 47)])
def test_lossless_video_keeps_every_pixel_of_noise(tmp_path, size):
    frames = np.random.default_rng(0).integers(0, 256, (25, *size, 3), np.uint8)
    write_video(tmp_path / "a.mp4", frames, fps=10)
    np.testing.assert_array_equal(np.stack(list(read_video(tmp_path / "a.mp4"))), frames)


@pytest.mark.parametrize("size", [(32, 48), (33, 47)])
def test_lossy_video_is_smaller_and_close(tmp_path, size):
    ramp = np.linspace(0, 200, size[1])[None, :, None] + np.zeros((*size, 3))
    frames = np.stack([(ramp + t).astype(np.uint8) for t in range(25)])
    write_video(tmp_path / "a.mp4", frames, fps=10)
    write_video(tmp_path / "b.mp4", frames, fps=29.97, crf=18)
    found = np.stack(list(read_video(tmp_path / "b.mp4")))
    assert found.shape == frames.shape
    assert 0 < np.abs(found.astype(int) - frames).mean() < 4
    assert (tmp_path / "b.mp4").stat().st_size < (tmp_path / "a.mp4").stat().st_size


def test_a_missing_or_damaged_file_gives_one_sentence(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        list(read_video(tmp_path / "a.mp4"))
    write_video(tmp_path / "a.mp4", np.zeros((5, 16, 16, 3), np.uint8), fps=10)
    whole = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cannot be decoded|holds no video") as caught:
        list(read_video(tmp_path / "a.mp4"))
    assert "\n" not in str(caught.value)
