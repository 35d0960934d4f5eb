"""Video files as frames: written to the last pixel or smaller, read in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.extras import require


def _av(extra: str) -> Any:
    return require("av", "video files", extra)


def write_video(
    path: Path, frames: Iterable[np.ndarray], *, fps: float, crf: int = 0, extra: str = "data"
) -> None:
    """An H.264 file of frames [H,W,3] uint8; `crf` 0 keeps every pixel, 12 to 28 is smaller and lossy.

    Lossless files hold RGB, which ffmpeg, PyAV and OpenCV read; most browsers play the lossy ones only.
    """
    av = _av(extra)
    with av.open(str(path), "w") as container:
        rate = Fraction(fps).limit_denominator(1000)
        stream = container.add_stream("libx264" if crf else "libx264rgb", rate=rate)
        for number, frame in enumerate(frames):
            if number == 0:
                stream.height, stream.width = frame.shape[:2]
                even = frame.shape[0] % 2 == 0 == frame.shape[1] % 2  # colour at half the resolution needs it
                stream.pix_fmt = ("yuv420p" if even else "yuv444p") if crf else "rgb24"
                quality = {"crf": str(crf)} if crf else {"qp": "0", "preset": "veryfast"}
                stream.options = {**quality, "g": "20", "threads": "1"}
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def read_video(path: Path, extra: str = "data") -> Iterator[np.ndarray]:
    """The frames of a file one by one, [H,W,3] uint8. Errors: UserError when it is missing or damaged."""
    av = _av(extra)
    if not path.is_file():
        raise UserError(f"the video {path} does not exist")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise UserError(f"{path} holds no video stream")
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24")
    except (
        av.FFmpegError,
        UnicodeDecodeError,
        MemoryError,
    ) as error:  # names inside are decoded as they come
        raise UserError(f"the video {path} cannot be decoded: {error or 'it is too large'}") from None
