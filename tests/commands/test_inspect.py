from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image

from jepa_world_model.cli import main
from jepa_world_model.data.sources import FORMATS, WriteOptions
from tests.data.build import SPACES, noisy_store


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", SPACES)
def test_text_page_sheet_and_json_tell_the_same(here, capsys, kind):
    noisy_store(here / "noise<1>", kind=kind, lengths=(9, 12, 20))
    assert main(["inspect", "noise<1>", "--page", "a.html", "--sheet", "a.png"]) == 0
    text = capsys.readouterr().out
    assert "noise<1>: store" in text
    assert "warning: tiny episodes: 1 of 3" in text
    page = (here / "a.html").read_text()
    assert "tiny episodes: 1 of 3" in page
    assert "noise&lt;1&gt;" in page
    assert "noise<1>" not in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)  # self-contained
    with Image.open(here / "a.png") as sheet:
        assert np.asarray(sheet).shape[2] == 4
    assert main(["inspect", "noise<1>", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["format"], found["episodes"], found["action_kind"]) == ("store", 3, kind)
    assert found["warnings"][0].startswith("tiny episodes")


@pytest.mark.extra
def test_other_formats_are_decoded_into_the_cache_that_training_uses(here, capsys):
    pytest.importorskip("h5py")
    noisy_store(here / "store", size=(16, 32))
    assert main(["convert", "store", "set.h5", "--to", "hdf5"]) == 0
    capsys.readouterr()
    assert main(["inspect", "set.h5", "--data.size", "8"]) == 0
    out = capsys.readouterr().out
    assert "set.h5: hdf5" in out
    assert "data     set.h5: 3 episodes" in out
    assert [p.name[:6] for p in (here / "datasets").iterdir()] == ["set.h5"]


@pytest.mark.extra
@pytest.mark.parametrize("format", ["trajectories", "hdf5", "minari", "lerobot", "video"])
def test_a_truncated_file_of_any_format_ends_with_2_and_one_sentence(here, capsys, format):
    for package in ("h5py", "minari", "pyarrow", "av"):
        pytest.importorskip(package)
    place = here / ("set.h5" if format == "hdf5" else "set")
    FORMATS[format].write(noisy_store(here / "store"), place, WriteOptions())
    largest = max((p for p in [place, *place.rglob("*")] if p.is_file()), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-2000])
    assert main(["inspect", str(place)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert place.name in error


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["nowhere"], "does not exist"),
        (["store", "--page", "a.pdf"], "must end in .html"),
        (["store", "--sheet", "none/a.png"], "a folder that exists"),
        (["store", "--data.size", "-1"], "size is -1"),
        (["store", "--rows", "0"], "is empty"),
    ],
)
def test_mistakes_end_with_2_and_one_sentence(here, capsys, flags, says):
    noisy_store(here / "store")
    assert main(["inspect", *flags]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
