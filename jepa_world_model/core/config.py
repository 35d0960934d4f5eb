"""Configuration: frozen dataclasses, filled from defaults, then a strict TOML file, then command-line flags.

What a configuration class may hold: see `core/toml.py`. A dict given in TOML replaces the one before it; a
dict flag (`--gates "z->h" 0.5`) adds entries to it.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import errno
import inspect
import io
import itertools
import math
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, get_args, get_origin

from jepa_world_model.core.errors import ConfigError, PeerError, UserError
from jepa_world_model.core.toml import (
    describe,
    from_toml,
    hints,
    leaves,
    members,
    parse_toml,
    replaced,
    section,
    suggest,
    to_toml,
)

__all__ = [
    "ConfigError",
    "UserError",
    "cli_main",
    "diff_from_defaults",
    "flatten",
    "from_toml",
    "load_config",
    "parse_toml",
    "suggest",
    "to_toml",
]

C = TypeVar("C")
# A full disk or one that cannot be written, met where no sentence of its own was prepared.
_NO_MEMORY = re.compile(
    r"out of memory|can't allocate memory|not enough memory", re.IGNORECASE
)  # torch's words for it
NO_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG)
NUMBER = re.compile(r"-(\d|\.\d|inf|nan)")  # a word that begins like this is a value, not a flag


def load_config(cls: type[C], argv: Sequence[str], *, prog: str, description: str = "") -> C:
    """Defaults, then the TOML file of `--config FILE`, then flags (`--model.pose-dim 8`, `-` or `_`).

    `--help` prints the flags with the values they have so far and exits with 0.
    Errors: ConfigError in one sentence.
    """
    wants_help = any(word in ("-h", "--help") for word in argv)
    file, given = _read_flags(cls, [word for word in argv if word not in ("-h", "--help")], prog)
    start = base = cls() if file is None else from_toml(cls, file)
    start = _open_optionals(start, set(given), wants_help)
    if wants_help:
        _help(cls, start, prog, description)
    if not given:
        return base
    annotations = dict(leaves(cls))
    dicts = {path: _lookup(base, path) for path in given if get_origin(annotations[path]) is dict}
    for path in dicts:
        start = _with(start, path, {})  # so that tyro reads `name value` pairs whatever the dict held
    cfg = _parse(cls, given, start, prog)
    for path, before in dicts.items():
        cfg = _with(cfg, path, {**before, **_lookup(cfg, path)})
    for path, value in flatten(cfg).items():
        if isinstance(value, float) and math.isnan(value):
            raise ConfigError(f"{_flag(path)} is nan, which no setting can be; give a number")
    return cfg


def _flag(path: str) -> str:
    return "--" + path.replace("_", "-")


def _lookup(cfg: Any, path: str) -> Any:
    """The value at a dotted path; an empty dict below an optional table that is off."""
    for name in path.split("."):
        cfg = {} if cfg is None else getattr(cfg, name, {})
    return cfg


def _with(cfg: Any, path: str, value: Any) -> Any:
    """`cfg` with the value at a dotted path replaced."""
    name, _, rest = path.partition(".")
    return replaced(cfg, {name: _with(getattr(cfg, name), rest, value) if rest else value}, "flags", "")


def _open_optionals(cfg: Any, given: set[str], everything: bool, prefix: str = "") -> Any:
    """`cfg` with each optional table that a flag speaks of (or every one) filled with its defaults."""
    for name, annotation in hints(type(cfg)).items():
        inner, path = section(annotation), prefix + name
        if inner is None or not (everything or any(flag.startswith(path + ".") for flag in given)):
            continue
        value = getattr(cfg, name)
        opened = _open_optionals(inner() if value is None else value, given, everything, path + ".")
        if opened is not value:
            cfg = dataclasses.replace(cfg, **{name: opened})
    return cfg


def _read_flags(cls: type, argv: Sequence[str], prog: str) -> tuple[str | None, dict[str, list[str]]]:
    """(file of --config, path -> the words tyro shall read for it), names and counts checked.

    A flag given again replaces what it said before; of a dict, it adds.
    """
    known = {_flag(path): (path, annotation, _flag(path)) for path, annotation in leaves(cls)}
    for flag, (path, annotation, _) in list(known.items()):
        if annotation is bool:
            head, _, tail = flag[2:].rpartition(".")
            off = f"--{head}{'.' if head else ''}no-{tail}"
            known[off] = known.setdefault(f"--no-{flag[2:]}", (path, annotation, off))
    file, given, words = None, {}, list(argv)
    while words:
        word, has_value, value = words.pop(0).partition("=")
        flag, values = word.replace("_", "-"), [value] if has_value else []
        while words and not has_value and (not words[0].startswith("-") or NUMBER.match(words[0])):
            values.append(words.pop(0))
        if flag == "--config":
            if file is not None or len(values) != 1:
                raise ConfigError(f"--config takes one TOML file, once; got {' '.join(values) or 'nothing'}")
            file = values[0]
        elif flag not in known:
            _refuse_flag(word, flag, [*known, "--config"], prog)
        else:
            path, annotation, canonical = known[flag]
            words_now = _words(canonical, annotation, values)
            more = get_origin(annotation) is dict and path in given
            given[path] = [*given[path], *words_now[1:]] if more else words_now
    return file, given


def _refuse_flag(word: str, flag: str, known: Sequence[str], prog: str) -> None:
    if not word.startswith("-"):
        raise ConfigError(f"unexpected argument {word!r}; settings are flags, see {prog} --help")
    inside = [option for option in known if option.startswith(flag + ".")]
    if inside:
        listing = ", ".join(inside[:4]) + (", ..." if inside[4:] else "")
        raise ConfigError(f"{word} is a table of settings, not a flag; its flags are {listing}")
    raise ConfigError(f"unknown flag {word}{suggest(flag, known) or f'; see {prog} --help'}")


def _words(flag: str, annotation: Any, values: list[str]) -> list[str]:
    """The words tyro shall read for one flag; the number of values is checked here."""
    got = f"got {' '.join(values)}" if values else "got nothing"
    if annotation is bool:
        if values:
            raise ConfigError(f"{flag} takes no value, {got}; write it alone, or with 'no-' to turn it off")
        return [flag]
    if get_origin(annotation) is dict:
        if not values or len(values) % 2:
            raise ConfigError(f"{flag} takes pairs of a name and {describe(get_args(annotation)[1])}, {got}")
        return [flag, *values]
    if any(get_origin(member) in (tuple, list) for member in members(annotation)):
        return [flag, *values]
    if len(values) != 1:
        raise ConfigError(f"{flag} takes one value, {describe(annotation)}; {got}")
    return [f"{flag}={values[0]}"]


def _help(cls: type, start: Any, prog: str, description: str) -> None:
    """Print the flags with their present values; leaves by SystemExit(0)."""
    import tyro

    about = description or (cls.__doc__ or "").strip()
    about = f"{about}\n\n--config FILE reads a TOML file before the flags."
    config = (tyro.conf.AvoidSubcommands,)
    tyro.cli(cls, args=["--help"], default=start, prog=prog, description=about, config=config)


def _parse(cls: type, given: Mapping[str, list[str]], start: Any, prog: str) -> Any:
    """tyro's reading of the given words on top of `start`; what it refuses becomes one sentence."""
    import tyro

    complaint, columns = io.StringIO(), os.environ.get("COLUMNS")
    words = [word for said in given.values() for word in said]
    try:
        os.environ["COLUMNS"] = "4000"  # so that tyro breaks no message into lines
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(cls, args=words, default=start, prog=prog, config=(tyro.conf.AvoidSubcommands,))
    except SystemExit:
        raise ConfigError(_sentence(cls, complaint.getvalue(), given, prog)) from None
    finally:
        os.environ.pop("COLUMNS", None) if columns is None else os.environ.update(COLUMNS=columns)


def _sentence(cls: type, complaint: str, given: Mapping[str, list[str]], prog: str) -> str:
    """What was wrong, from tyro's box: the value of a flag, or what a class said of its fields."""
    annotations = dict(leaves(cls))
    for path, said in given.items():
        flag, has_value, value = said[0].partition("=")
        # A switch has no value that could be wrong: its name stands in a sentence about the whole configuration.
        if annotations[path] is not bool and re.search(re.escape(flag) + r"(?![\w.-])", complaint):
            got = value if has_value else " ".join(said[1:])
            return f"{flag} must be {describe(annotations[path])}, got {got or 'nothing'!r}"
    lines = [line.strip("│|").strip() for line in complaint.splitlines()[1:]]
    end = next((number for number, line in enumerate(lines) if line.startswith("─")), len(lines))
    text = re.sub(r"^Error parsing (\S+): ", r"[\1] ", " ".join(lines[:end]))
    return text or f"flags not understood; see {prog} --help"


# ---- around it ----


def flatten(cfg: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted path -> value of every setting; a dict is one value."""
    flat: dict[str, Any] = {}
    for name in hints(type(cfg)):
        value = getattr(cfg, name)
        inside = dataclasses.is_dataclass(value)
        flat |= flatten(value, f"{prefix}{name}.") if inside else {prefix + name: value}
    return flat


def diff_from_defaults(cfg: Any) -> dict[str, Any]:
    """Dotted path -> value of every setting that differs from the default of its class."""
    usual = flatten(type(cfg)())
    return {path: value for path, value in flatten(cfg).items() if path not in usual or usual[path] != value}


def field_comments(cls: type) -> dict[str, str]:
    """The comment beside each field of a configuration class in its source, or else above it; inherited ones too."""
    comments: dict[str, str] = {}
    for part in reversed(cls.__mro__[:-1]):
        lines = textwrap.dedent(inspect.getsource(part)).split("\n")
        for node in ast.parse("\n".join(lines)).body[0].body:
            if isinstance(node, ast.AnnAssign):
                said = [line.partition("  # ")[2] for line in lines[node.lineno - 1 : node.end_lineno]]
                above = itertools.takewhile(
                    lambda line: line.lstrip().startswith("# "), lines[node.lineno - 2 :: -1]
                )
                said = said if any(said) else [line.lstrip()[2:] for line in above][::-1]
                comments[node.target.id] = " ".join(filter(None, said))
    return comments


def _readable(problem: Exception) -> str:
    """What an error says; what is quoted from a damaged file may hold signs that a terminal would obey."""
    return "".join(sign if sign.isprintable() or sign == "\n" else "?" for sign in str(problem))


def cli_main(function: Callable[[], int | None]) -> int:
    """Run a command; what the user can mend becomes `error: ...` on stderr and exit code 2.

    So does a disk that is full or cannot be written. With JEPA_WM_DEBUG=1 the traceback is printed too. Another process that
    failed gives 1, memory that is not there 2, Ctrl-C 130, a closed pipe 141.
    """
    try:
        return function() or 0
    except ValueError as problem:  # UserError, ConfigError and ContractError are ValueErrors
        if os.environ.get("JEPA_WM_DEBUG", "0") not in ("", "0"):
            traceback.print_exc()
        print(f"error: {_readable(problem)}", file=sys.stderr)
        return 2
    except PeerError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as problem:
        if not (isinstance(problem, MemoryError) or _NO_MEMORY.search(str(problem))):
            raise
        print(
            f"error: not enough memory ({' '.join(str(problem).split())[:200] or 'none is left'}); "
            "use fewer rows a batch, shorter windows or a smaller model",
            file=sys.stderr,
        )
        return 2
    except BrokenPipeError:  # the reader of our output has gone, as in `... --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as problem:
        if problem.errno not in NO_PLACE:
            raise
        place = problem.filename or "a file"
        print(
            f"error: cannot write {place}: {problem.strerror}; make room or choose another place",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
