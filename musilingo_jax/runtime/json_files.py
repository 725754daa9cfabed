"""Reads JSON that was downloaded, edited by hand or damaged.

Everything that this project reads as JSON passes here: whatever the content, an error
is one sentence that names the file (and the line), never a traceback.

    read_json(path)                 an object, in a file of its own
    read_any_json(path)             any value
    json_lines(path)                one value per line
    parse_json(text, where)         a value inside of something else

A byte order mark, which editors on Windows write, is skipped.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

from etils import epath

from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.paths import is_local, open_regular_file
from musilingo_jax.runtime.printable import printable

# Arrays and objects within each other, at most. Files of models have five or so.
_DEEPEST = 100


def read_json(path: Path | epath.Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
      UserError: the file cannot be read, or contains something else.
    """
    content = read_any_json(path)
    if not isinstance(content, dict):
        where, kind = printable(str(path)), kind_of(content)
        raise UserError(f"{where}: must contain a JSON object, not {kind}")
    return content


def read_any_json(path: Path | epath.Path) -> Any:
    """The JSON value in a file.

    Raises:
      UserError: the file cannot be read, or is not JSON.
    """
    where = printable(str(path))
    return parse_json(_text(path, where), where)


def json_lines(path: Path | epath.Path) -> Iterator[tuple[int, Any]]:
    """The number of each line, from 1, and its value. Empty lines are skipped.

    Raises:
      UserError: the file cannot be read, or a line is not JSON.
    """
    where = printable(str(path))
    for number, line in enumerate(_text(path, where).split("\n"), start=1):
        if line.strip():
            yield number, parse_json(line, f"{where}, line {number}")


def parse_json(text: str | bytes, where: str, *, unique_keys: bool = False) -> Any:
    """The value of some JSON text.

    Args:
      text: JSON; bytes are UTF-8.
      where: the place that it comes from, for messages, such as "songs.jsonl, line 3".
      unique_keys: refuse an object that has a key twice; otherwise its last value
        counts, as in most readers of JSON.

    Raises:
      UserError: it is not JSON, or too deeply nested to be read.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode()
        value = json.loads(
            text.removeprefix("\ufeff"),
            object_pairs_hook=_unique if unique_keys else None,
        )
        _check_depth(text, value)
        return value
    except _RepeatedKey as error:
        raise UserError(f"{where}: {printable(str(error))}") from error
    except RecursionError as error:
        raise UserError(f"{where}: is JSON that is nested too deeply") from error
    except ValueError as error:
        raise UserError(f"{where}: is not JSON: {printable(str(error))}") from error


def kind_of(value: Any) -> str:
    """What JSON calls the type of a value, with its article, for messages."""
    kinds = {
        dict: "an object",
        list: "an array",
        str: "a string",
        bool: "true or false",
        int: "a number",
        float: "a number",
        type(None): "null",
    }
    return kinds[type(value)]


def is_texts(value: Any) -> TypeGuard[list[str]]:
    """Whether a value is a list of texts."""
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


class _RepeatedKey(Exception):
    pass


def _check_depth(text: str, value: Any) -> None:
    """Checks that functions which call themselves can walk through a value.

    Raises:
      RecursionError: it is nested too deeply.
    """
    if text.count("[") + text.count("{") <= _DEEPEST:
        return
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(_DEEPEST + 1):
        inside = (v.values() if isinstance(v, dict) else v for v in level)
        level = [v for some in inside for v in some if isinstance(v, dict | list)]
        if not level:
            return
    raise RecursionError


def _text(path: Path | epath.Path, where: str) -> str:
    try:
        if not is_local(path):
            return _download(path).decode()
        with open_regular_file(Path(path)) as file:
            return file.read().decode()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{where}: cannot be read ({reason})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: is not UTF-8 text ({error})") from error


def _download(path: Path | epath.Path) -> bytes:
    try:
        return epath.Path(path).read_bytes()
    except OSError:
        raise
    except Exception as error:  # Each store has errors of its own.
        raise OSError(str(error)) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _RepeatedKey(f"an object has the key {key!r} twice")
        found[key] = value
    return found
