"""Edits of files for `fuzz.py`: of their bytes, and of what is in them with the container left whole."""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 70),
    st.sampled_from([10**9, 2**31, 2**63, 10**30, -(2**63)]),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=6),
    st.sampled_from(["", "../..", "0", "auto", "x" * 300]),
    st.lists(st.integers(-2, 9), max_size=4),
    st.just({}),
    st.dictionaries(st.text(max_size=3), st.integers(-2, 9), max_size=2),
)
KINDS = ("flip", "cut", "zero", "insert", "repeat", "missing", "folder", "empty", *["inside"] * 6)


@dataclass(frozen=True)
class Edit:
    """One edit; which file, and where in it, are numbers that fit any set of files."""

    kind: str
    file: int
    at: int  # where in the file, in 10,000ths
    near_head: bool  # within the first 512 bytes
    data: bytes
    path: tuple[int, ...]  # where inside a tree
    value: Any


def edits() -> st.SearchStrategy[list[Edit]]:
    """One to three edits."""
    one = st.builds(
        Edit, kind=st.sampled_from(KINDS), file=st.integers(0, 997), at=st.integers(0, 9999), near_head=st.booleans(),
        data=st.binary(min_size=1, max_size=8), path=st.tuples(*[st.integers(0, 97)] * 4), value=VALUES,
    )  # fmt: skip
    return st.lists(one, min_size=1, max_size=3)


def words(known: Sequence[str]) -> st.SearchStrategy[list[str]]:
    """Flags of a command with values that may not fit."""
    text = VALUES.map(lambda v: v if isinstance(v, str) else json.dumps(v).strip("[]"))
    flag = st.one_of(st.sampled_from(list(known)), st.sampled_from(list(known)).map(lambda f: f[:-1]))
    pair = st.one_of(st.tuples(flag, text), st.tuples(flag), st.tuples(flag, text, text), st.tuples(text))
    clean = lambda pairs: [word.replace("\0", "") for one in pairs for word in one]
    return st.lists(pair, min_size=1, max_size=3).map(clean)


def edited(
    files: Mapping[str, bytes], drawn: Sequence[Edit], mend: Callable[[dict[str, bytes | None]], None] | None
) -> dict[str, bytes | None]:
    """The files after the edits; `mend` puts right what would only be found by a checksum."""
    found: dict[str, bytes | None] = dict(files)
    for edit in drawn:
        names = [name for name, content in found.items() if content is not None]
        if not names:
            break
        name = names[edit.file % len(names)]
        content = found[name]
        if edit.kind == "missing":
            del found[name]
        elif edit.kind == "folder":
            found[name] = None
        else:
            found[name] = _inside(name, content, edit) if edit.kind == "inside" else _of_bytes(content, edit)
    if mend:
        mend(found)
    return found


def _of_bytes(content: bytes, edit: Edit) -> bytes:
    at = edit.at * (min(512, len(content)) if edit.near_head else len(content)) // 10_000
    head, tail, data = content[:at], content[at:], edit.data
    if edit.kind == "flip":
        changed = bytes(a ^ b for a, b in zip(tail, data, strict=False))
        return head + changed + tail[len(changed) :]
    if edit.kind == "cut":
        return head
    if edit.kind == "zero":
        return head + bytes(min(64, len(tail))) + tail[64:]
    if edit.kind == "insert":
        return head + data + tail
    if edit.kind == "repeat":
        return head + tail[:64] + tail
    return b""


# ---- what is in a container ----


def _inside(name: str, content: bytes, edit: Edit) -> bytes:
    """Another value at a place inside; of files nothing is known of, and of those that do not parse, a flipped byte."""
    suffix = name.rpartition(".")[2]
    known = {
        "json": _json, "jsonl": _json_lines, "toml": _toml, "safetensors": _safetensors, "npz": _npz, "npy": _npy,
        "h5": _hdf5, "hdf5": _hdf5, "parquet": _parquet, "png": _png,
    }  # fmt: skip
    try:
        return known[suffix](content, edit)
    except Exception:  # it does not parse any more
        return _of_bytes(content, Edit(**{**edit.__dict__, "kind": "flip"})) if content else b"\0"


def _tree(tree: Any, edit: Edit) -> Any:
    """A tree of JSON with a value replaced, a key gone or a key more, somewhere along the edit's path."""
    *above, last = edit.path[: 1 + edit.path[0] % 4]
    place = tree
    for number in above:
        inner = [
            v
            for v in (place.values() if isinstance(place, dict) else place)
            if isinstance(v, (dict, list)) and v
        ]
        if not inner:
            break
        place = inner[number % len(inner)]
    if not isinstance(place, (dict, list)) or not place:
        return edit.value
    key = list(place)[last % len(place)] if isinstance(place, dict) else last % len(place)
    how = edit.path[-1] % 8
    if how == 0:
        del place[key]
    elif how == 1 and isinstance(place, dict):
        place["unknown"] = edit.value
    else:
        place[key] = edit.value
    return tree


def _json(content: bytes, edit: Edit) -> bytes:
    return json.dumps(_tree(json.loads(content), edit)).encode()


def _json_lines(content: bytes, edit: Edit) -> bytes:
    lines = content.splitlines()
    at = edit.path[2] % len(lines)
    lines[at] = _json(lines[at], edit)
    return b"\n".join(lines) + b"\n"


def _toml(content: bytes, edit: Edit) -> bytes:
    lines = content.decode().splitlines()
    places = [n for n, line in enumerate(lines) if re.match(r"[\w.\"-]+ *= ", line)]
    at = places[edit.path[1] % len(places)]
    key = lines[at].partition("=")[0]
    value = edit.value if not isinstance(edit.value, dict) else str(edit.value)
    text = {None: '""'}.get(value) if value is None else json.dumps(value)
    if isinstance(value, float) and not math.isfinite(value):
        text = str(value)
    how = edit.path[-1] % 8
    lines[at] = f"{key[:-2]}= {text}" if how == 0 else f"{key}= {text}"
    if how == 1:
        lines.insert(at, lines[at])
    return "\n".join(lines).encode("utf-8", "surrogatepass") + b"\n"


def _safetensors(content: bytes, edit: Edit) -> bytes:
    """A changed header, or numbers that are not finite among the data."""
    length = int.from_bytes(content[:8], "little")
    header, data = content[8 : 8 + length], content[8 + length :]
    if edit.path[-1] % 3 == 0:
        return content[: 8 + length] + b"\xff" * min(len(data), 64) + data[64:]
    header = _json(header, edit)
    return len(header).to_bytes(8, "little") + header + data


def _array(array: np.ndarray, edit: Edit) -> np.ndarray:
    """Another shape, type, length, or values."""
    how = edit.path[0] % 8
    if how == 0:
        return array[: len(array) // 2] if array.ndim else array
    if how == 1:
        return array.reshape(-1)
    if how == 2:
        return array[..., None]
    if how == 3:
        return array.astype(("<f8", "<i2", "<u1", "S4", "<f2", "?")[edit.path[1] % 6])
    if how == 4:
        return np.zeros((0, *array.shape[1:]), array.dtype)
    if how == 5:
        return np.full(array.shape, (math.nan, -1, 1e30, 1e300)[edit.path[1] % 4])
    if how == 6:
        return np.concatenate([array, array]) if array.ndim else array
    return np.array(edit.value if not isinstance(edit.value, dict) else str(edit.value))


def _saved(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=array.dtype.hasobject)
    return out.getvalue()


def _npy(content: bytes, edit: Edit) -> bytes:
    return _saved(_array(np.load(io.BytesIO(content)), edit))


def _npz(content: bytes, edit: Edit) -> bytes:
    """The archive made anew, so that its checksums hold."""
    with np.load(io.BytesIO(content)) as archive:
        arrays = {name: archive[name] for name in archive.files}
    name = list(arrays)[edit.path[2] % len(arrays)]
    key = "other" if edit.path[-1] % 8 == 0 else name
    arrays[key] = _array(arrays.pop(name), edit)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for key, array in arrays.items():
            archive.writestr(f"{key}.npy", _saved(array))
    return out.getvalue()


def _hdf5(content: bytes, edit: Edit) -> bytes:
    """A data set gone or another array in its place, or an attribute changed."""
    import h5py

    buffer = io.BytesIO(content)
    with h5py.File(buffer, "r+") as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name))
        names.sort()
        name = names[edit.path[2] % len(names)]
        item, how = file[name], edit.path[-1] % 4
        holder = item if len(item.attrs) else file
        if how == 0 and len(holder.attrs):
            key = sorted(holder.attrs)[edit.path[1] % len(holder.attrs)]
            holder.attrs[key] = edit.value if not isinstance(edit.value, (dict, type(None))) else "x"
        elif how == 1:
            del file[name]
        elif isinstance(item, h5py.Dataset):
            array = _array(item[()] if item.shape else np.array([0.0]), edit)
            del file[name]
            file[name] = array
    return buffer.getvalue()


def _parquet(content: bytes, edit: Edit) -> bytes:
    """A column gone, renamed or of another type, or rows missing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(pa.BufferReader(content))
    number = edit.path[2] % table.num_columns
    name, how = table.column_names[number], edit.path[0] % 6
    if how == 0:
        table = table.drop_columns([name])
    elif how == 1:
        table = table.slice(0, table.num_rows // 2)
    elif how == 2:
        table = table.rename_columns([f"{n}x" if n == name else n for n in table.column_names])
    elif how == 3:
        table = table.set_column(number, name, pa.array([str(edit.value)] * table.num_rows))
    elif how == 4:
        table = table.set_column(number, name, pa.nulls(table.num_rows))
    else:
        table = table.set_column(number, name, pa.array([edit.path[1] - 3] * table.num_rows))
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def _png(content: bytes, edit: Edit) -> bytes:
    """Another picture: of other sizes or colours."""
    from PIL import Image

    mode = ("RGB", "L", "RGBA", "1", "I;16", "P")[edit.path[0] % 6]
    size = ((1, 1), (32, 32), (31, 33), (64, 8))[edit.path[1] % 4]
    out = io.BytesIO()
    Image.new(mode, size).save(out, "png")
    return out.getvalue()
