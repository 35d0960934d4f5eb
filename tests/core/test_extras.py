from __future__ import annotations

import sys

import pytest

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.extras import require


def test_what_is_there_is_imported():
    assert require("os.path", "tests", "data").join("a", "b") == "a/b"


def test_what_is_missing_is_named_with_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match=r"^HDF5 files need the package `h5py`: .*jepa-world-model\[data\]'$"):
        require("h5py", "HDF5 files", "data")
