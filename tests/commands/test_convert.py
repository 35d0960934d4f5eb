from __future__ import annotations

import pytest

from jepa_world_model.cli import main
from tests.data.build import noisy_store

pytestmark = pytest.mark.extra


def test_the_command_says_that_nothing_was_lost(tmp_path, capsys):
    pytest.importorskip("h5py")
    noisy_store(tmp_path / "store")
    assert main(["convert", f"{tmp_path}/store", f"{tmp_path}/set.h5", "--to", "hdf5"]) == 0
    out = capsys.readouterr().out
    assert "3 episodes, 17 frames" in out
    assert "store -> hdf5" in out
    assert "lossless: the first episode was read back equal" in out


def test_the_command_says_what_was_lost(tmp_path, capsys):
    pytest.importorskip("av")
    noisy_store(tmp_path / "store")
    flags = ["--to", "video", "--crf", "23", "--size", "16", "--fit", "crop", "--from", "store"]
    assert main(["convert", f"{tmp_path}/store", f"{tmp_path}/set", *flags]) == 0
    assert "LOSSY (crf 23): pixels of the first episode are off by" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--to", "hdf5"], "must end in .h5"),
        (["--to", "video", "--crf", "99"], "use 0 for lossless"),
        (["--to", "store", "--fit", "stretch"], "use letterbox"),
        (["--to", "store", "--data.camera", "top"], "no cameras to choose from"),
    ],
)
def test_mistakes_end_with_2_and_one_sentence(tmp_path, capsys, flags, says):
    pytest.importorskip("h5py")
    noisy_store(tmp_path / "store")
    assert main(["convert", f"{tmp_path}/store", f"{tmp_path}/set", *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert says in error
    assert error.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["store"]
