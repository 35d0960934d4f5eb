"""Configuration classes to TOML and back, strictly: an unknown key or a wrong type is one sentence.

A configuration class is a frozen, keyword-only dataclass. Every field has a default and is a bool, int,
float, str, Path, Literal, one of these or None (then None is the default), a tuple or a `dict[str, ...]` of
these, or again a configuration class. A dict given in TOML replaces the one before it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import json
import math
import os
import re
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from jepa_world_model.core.errors import ConfigError

C = TypeVar("C")


# ---- what a configuration class holds ----


@functools.cache
def hints(cls: type) -> dict[str, Any]:
    """Field name -> annotation, in order."""
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}


def members(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, None left out; of anything else, itself."""
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(member for member in get_args(annotation) if member is not type(None))
    return (annotation,)


def section(annotation: Any) -> type | None:
    """The configuration class an annotation stands for (also `X | None`), if it does."""
    found = [member for member in members(annotation) if dataclasses.is_dataclass(member)]
    return found[0] if found else None


def leaves(cls: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, annotation) of every field that is not itself a configuration class."""
    for name, annotation in hints(cls).items():
        inner = section(annotation)
        if inner is None:
            yield prefix + name, annotation
        else:
            yield from leaves(inner, f"{prefix}{name}.")


def describe(annotation: Any) -> str:
    """An annotation in words, for the second half of 'x must be ...'."""
    plain = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation in plain:
        return plain[annotation]
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    if origin in (tuple, list) and (origin is list or args[-1:] == (Ellipsis,)):
        return f"a list, each entry {describe(args[0])}"
    if origin is tuple:
        return f"a list of {len(args)}: " + ", ".join(map(describe, args))
    if origin is dict:
        return f"names, each with {describe(args[1])}"
    if dataclasses.is_dataclass(annotation):
        return "a table of settings"
    options = members(annotation)
    return str(annotation) if options == (annotation,) else " or ".join(map(describe, options))


def suggest(name: str, known: Sequence[str]) -> str:
    """'; did you mean x?' for the nearest of the known names, or the empty string when none is near."""
    own, *words = (option.lstrip("-").split(".")[-1] for option in (name, *known))
    last = dict(zip(known, words, strict=True))
    near = [option for option in known if last[option] == own]  # the right word in the wrong table
    near = near or difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if not near:
        words = difflib.get_close_matches(own, last.values(), n=1, cutoff=0.75)
        near = [option for option in known if last[option] in words]
    return f"; did you mean {' or '.join(near[:3])}?" if near else ""


# ---- TOML ----


def find_config(path: str | os.PathLike[str]) -> Path:
    """The file at a path; else the shipped configuration of that name: "lewm", "configs/recipes/lewm.toml".

    Errors: ConfigError that lists the shipped ones.
    """
    path = Path(path)
    if path.exists():
        return path
    package = Path(__file__).parents[1]
    places = (package / "configs", package.parent / "configs")  # installed; in a checkout
    shipped = {file.stem: file for place in places for file in sorted(place.rglob("*.toml"))}
    wanted = shipped.get(path.stem) if path.suffix in ("", ".toml") else None
    # By its name alone, or by its whole path in the repository: a wrong path is not answered with another file.
    if wanted and path.with_suffix(".toml").parts in (
        wanted.parts[-1:],
        wanted.parts[-2:],
        wanted.parts[-3:],
    ):
        return wanted
    hint = suggest(path.stem, list(shipped)) or f"; shipped ones are {', '.join(shipped) or 'none'}"
    raise ConfigError(f"no configuration file at {path}{hint}; check the path given to --config")


def from_toml(cls: type[C], path: str | os.PathLike[str], base: C | None = None) -> C:
    """The configuration that a TOML file describes, on top of `base` (the defaults).

    Errors: ConfigError in one sentence: a file that cannot be read, an unknown key, a wrong type.
    """
    try:
        text = find_config(path).read_bytes().decode("utf-8")
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder, not a configuration file; give a .toml file") from None
    except UnicodeDecodeError as problem:
        raise ConfigError(f"{path} is not UTF-8 text (byte {problem.start}); save it as UTF-8") from None
    except OSError as problem:
        raise ConfigError(f"cannot read the configuration file {path}: {problem.strerror}") from None
    return parse_toml(cls, text, base, source=str(path))


def parse_toml(cls: type[C], text: str, base: C | None = None, source: str = "configuration") -> C:
    """As `from_toml`, from text; `source` is named in errors."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise ConfigError(f"{source} is not valid TOML: {problem}") from None
    return _build(cls, tree, cls() if base is None else base, source, "")


def from_dict(cls: type[C], tree: Mapping[str, Any], source: str = "configuration") -> C:
    """As `from_toml`, from nested tables, such as a JSON file holds; `source` is named in errors."""
    return _build(cls, tree, cls(), source, "")


def _build(root: type, tree: Mapping[str, Any], base: Any, source: str, prefix: str) -> Any:
    """`base` with the entries of the TOML table at `prefix` put in its fields; `root` is the outer class."""
    fields, changes = hints(type(base)), {}
    for key, raw in tree.items():
        path = prefix + key
        if key not in fields:
            nearby = [prefix + name for name in fields]
            hint = suggest(path, nearby) or suggest(path, [leaf for leaf, _ in leaves(root)])
            listing = "" if hint else "; known here: " + ", ".join(nearby)
            raise ConfigError(f"{source}: unknown key {path}{hint or listing}")
        inner = section(fields[key])
        if inner is None:
            changes[key] = _value(fields[key], raw, source, path)
        elif isinstance(raw, Mapping):
            current = getattr(base, key)
            changes[key] = _build(root, raw, inner() if current is None else current, source, path + ".")
        else:
            raise ConfigError(f"{source}: {path} is a table, got {raw!r}; write its settings under [{path}]")
    return replaced(base, changes, source, prefix)


def replaced(base: Any, changes: Mapping[str, Any], source: str, prefix: str) -> Any:
    """dataclasses.replace, with the file and the table named when the class refuses the values."""
    try:
        return dataclasses.replace(base, **changes) if changes else base
    except ValueError as problem:
        place = f"{source}: [{prefix[:-1]}] " if prefix else f"{source}: "
        raise ConfigError(f"{place}{problem}") from None


def _value(annotation: Any, raw: Any, source: str, path: str) -> Any:
    """A TOML value as the annotation wants it: a bool is no int, text is no number; an int may be a float."""
    wrong = ConfigError(f"{source}: {path} must be {describe(annotation)}, got {raw!r}")
    origin, args, options = get_origin(annotation), get_args(annotation), members(annotation)
    if annotation is Any:
        return raw
    if options != (annotation,):
        exact = [member for member in options if type(raw) is member]
        for member in exact or options:
            with contextlib.suppress(ConfigError):
                return _value(member, raw, source, path)
        raise wrong
    if annotation is float and type(raw) in (int, float):
        if raw != raw:
            raise ConfigError(f"{source}: {path} is nan, which no setting can be; give a number")
        return float(raw)
    if annotation is Path and isinstance(raw, str):
        return Path(raw)
    if origin is Literal:
        if any(raw == option and type(raw) is type(option) for option in args):
            return raw
        raise ConfigError(f"{wrong}{suggest(str(raw), list(map(str, args)))}")
    if origin in (tuple, list) and isinstance(raw, list):
        same = origin is list or args[-1:] == (Ellipsis,)
        if not same and len(raw) != len(args):
            raise wrong
        kinds = [args[0]] * len(raw) if same else args
        pairs = enumerate(zip(kinds, raw, strict=True))
        return origin(_value(kind, item, source, f"{path}[{place}]") for place, (kind, item) in pairs)
    if origin is dict and isinstance(raw, Mapping):
        return {key: _value(args[1], item, source, f"{path}.{_key(key)}") for key, item in raw.items()}
    if isinstance(annotation, type) and type(raw) is annotation:
        return raw
    raise wrong


def to_toml(cfg: Any) -> str:
    """The complete configuration as TOML; `parse_toml` on it gives an equal configuration back.

    Errors: ConfigError for a value TOML cannot hold (nan, an object, None where the default is not None).
    """
    return "\n".join(_table(cfg, type(cfg)(), "")).strip("\n") + "\n"


def _table(cfg: Any, default: Any, prefix: str) -> Iterator[str]:
    """Lines of one table: its plain keys first, then its sub-tables."""
    plain, tables = [], []
    for name in hints(type(cfg)):
        value, usual = getattr(cfg, name), getattr(default, name)
        if value is None:
            if usual is not None:
                raise ConfigError(f"{prefix}{name} is None but defaults to {usual!r}, and TOML has no None")
        elif dataclasses.is_dataclass(value) or isinstance(value, Mapping):
            tables.append((name, value, usual))
        else:
            plain.append(f"{name} = {_format(value, prefix + name)}")
    yield from plain
    for name, value, usual in tables:
        yield f"\n[{prefix}{name}]"
        if isinstance(value, Mapping):
            for key, item in value.items():
                yield f"{_key(key)} = {_format(item, f'{prefix}{name}.{key}')}"
        else:
            yield from _table(value, type(value)() if usual is None else usual, f"{prefix}{name}.")


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _format(key, "key")


def _format(value: Any, path: str) -> str:
    """One TOML value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if type(value) in (int, float) and not (isinstance(value, float) and math.isnan(value)):
        return repr(value)  # the shortest text that reads back as the same float; inf is TOML too
    if isinstance(value, (str, Path)):
        text = str(value)
        if any("\ud800" <= sign <= "\udfff" for sign in text):
            raise ConfigError(f"{path} holds text that is not UTF-8: {text!r}")
        return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(_format(item, path) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)} = {_format(item, path)}" for key, item in value.items()) + "}"
    raise ConfigError(f"{path} = {value!r} cannot be written to a configuration file")
