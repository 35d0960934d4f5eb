"""C of our own: compiled once, kept, made anew when damaged, and a clear word where there is no compiler."""

from __future__ import annotations

import ctypes
import shutil

import pytest

from jepa_world_model.core import native
from jepa_world_model.core.errors import UserError

SOURCE = "int twice(int x) { return 2 * x; }\n"

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, native.COMPILERS)), reason="there is no C compiler here"
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CC", raising=False)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "twice.c"
    path.write_text(SOURCE)
    return path


def kept(tmp_path):
    return sorted((tmp_path / "cache" / "jepa_world_model").iterdir())


@needs_compiler
def test_compiled_once_and_found_again(tmp_path, source, monkeypatch):
    assert native.load(source).twice(ctypes.c_int(21)) == 42
    (made,) = kept(tmp_path)
    monkeypatch.setattr(native, "_compile", lambda *_: pytest.fail("compiled a second time"))
    assert native.load(source).twice(ctypes.c_int(4)) == 8
    assert kept(tmp_path) == [made]


@needs_compiler
def test_another_source_or_machine_has_a_library_of_its_own(tmp_path, source, monkeypatch):
    native.load(source)
    source.write_text(SOURCE.replace("2 * x", "3 * x"))
    assert native.load(source).twice(ctypes.c_int(21)) == 63
    monkeypatch.setattr(native, "_machine", lambda: "another processor")
    native.load(source)
    assert len(kept(tmp_path)) == 3


@needs_compiler
def test_a_damaged_library_is_made_anew(tmp_path, source, monkeypatch):
    native.load(source)
    (made,) = kept(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    cut = native._folder() / made.name
    cut.write_bytes(made.read_bytes()[:100])
    assert native.load(source).twice(ctypes.c_int(21)) == 42
    assert cut.stat().st_size == made.stat().st_size


@needs_compiler
def test_flags_a_compiler_does_not_know_are_left_out(source, monkeypatch):
    monkeypatch.setattr(native, "FLAGS", (("-no-such-flag",), ()))
    assert native.load(source).twice(ctypes.c_int(21)) == 42


@needs_compiler
def test_what_does_not_compile_says_so_and_leaves_nothing(tmp_path, source):
    source.write_text("int twice(int x) { return 2 * y; }\n")
    with pytest.raises(UserError, match=r"does not compile twice.c \(.*error.*y"):
        native.load(source)
    assert kept(tmp_path) == []


def test_no_compiler(source, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"there is no C compiler here \(cc, gcc, clang\)"):
        native.load(source)
    monkeypatch.setenv("CC", "no-such-compiler -m64")
    with pytest.raises(UserError, match=r"no C compiler here \(no-such-compiler\)"):
        native.load(source)


@needs_compiler
def test_a_cache_that_cannot_be_written(tmp_path, source):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"twice\.c could not be compiled or loaded"):
        native.load(source)
