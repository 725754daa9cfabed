"""Reads published annotation files: finds them, and checks every row that is used."""

import csv
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from musilingo_jax.corpora import row_files
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import read_any_json

# AudioSet's clips, hence those of MusicCaps and MusicInstruct.
CLIP_SECONDS = 10.0
_LARGEST_NUMBER = 1e9  # a time in seconds or a sampling rate; nothing is near it


def find(source: Path, *names: str) -> Path | None:
    """The first of some files that exists, in a folder or one level below it.

    If `source` is a file, it is returned if its name ends in one of the names. What has
    such a name and is no file, such as a link to one that is gone, is returned if there
    is no file: to leave it out without a word would leave out its rows.
    """
    if source.is_file():
        return source if source.name.endswith(names) else None
    for name in names:
        found = (source / name, *sorted(source.glob(f"*/{name}")))
        there = [path for path in found if os.path.lexists(path)]
        if there:
            return next((path for path in there if path.is_file()), there[0])
    return None


def need(source: Path, *names: str) -> Path:
    """As `find`.

    Raises:
      UserError: none of the files exists.
    """
    if path := find(source, *names):
        return path
    raise UserError(
        f"{source}: there is no {' or '.join(names)} in it or in a folder below it"
    )


def json_rows(path: Path, key: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of an array, which is the whole file or the value of `key`.

    Yields:
      `file[index]` and the object.

    Raises:
      UserError: the file does not hold an array of objects.
    """
    rows = read_any_json(path)
    if key is not None:
        if not isinstance(rows, dict) or key not in rows:
            raise UserError(f"{path}: must be a JSON object with the key {key!r}")
        rows = rows[key]
    if not isinstance(rows, list):
        raise UserError(f"{path}: must hold a JSON array of annotations")
    for index, row in enumerate(rows):
        where = f"{path.name}[{index}]"
        if not isinstance(row, dict):
            raise UserError(f"{path.parent / where}: is not a JSON object")
        yield where, row


def csv_rows(
    path: Path, columns: tuple[str, ...], *, delimiter: str = ","
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a table that has at least these columns.

    Args:
      path: of the table.
      columns: their names in its first line.
      delimiter: what is between two cells.

    Yields:
      `file:line` and the cells by column.

    Raises:
      UserError: the file cannot be read, or a column or cell is missing.
    """
    text = row_files.read_text(path)
    reader = csv.DictReader(
        io.StringIO(text, newline=""), delimiter=delimiter, strict=True
    )
    csv.field_size_limit(sys.maxsize)  # Any text fits into a cell.
    try:
        if missing := [c for c in columns if c not in (reader.fieldnames or ())]:
            raise UserError(f"{path}:1: there is no column {', '.join(missing)}")
        number = reader.line_num
        for row in reader:
            where, number = f"{path.name}:{number + 1}", reader.line_num
            # The reader collects surplus cells at None, and fills up with None.
            if None in row or None in row.values():
                raise UserError(
                    f"{path.parent / where}: the number of cells is not the number of "
                    "columns that the first line names"
                )
            yield where, row
    except csv.Error as error:
        raise UserError(f"{path}: cannot be read as CSV: {error}") from error


def text(row: dict[str, Any], key: str, *, where: str) -> str:
    """A text of a row; "" if it is null.

    Args:
      row: key → value.
      key: of the text.
      where: the row is, for messages.

    Raises:
      UserError: the key is missing, or its value is not text.
    """
    if key not in row:
        raise UserError(f"{where}: there is no {key!r}; it has {', '.join(row)}")
    value = row[key]
    if not isinstance(value, str | None):
        raise UserError(f"{where}: {key!r} must be text, not {value!r}")
    try:
        (value or "").encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: {key!r} contains half a character") from error
    return value or ""


def number(row: dict[str, Any], key: str, *, where: str) -> float | None:
    """A number of a row; None if it is missing or null.

    Args:
      row: key → value.
      key: of the number.
      where: the row is, for messages.

    Raises:
      UserError: the value is not a number, or less than 0.
    """
    value = row.get(key)
    if value is None or value == "":
        return None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{where}: {key!r} must be a number, not {value!r}") from error
    if not 0 <= found < _LARGEST_NUMBER:
        raise UserError(f"{where}: {key!r} must be 0 or more, not {value!r}")
    return found


def rate(row: dict[str, Any], *, where: str) -> int | None:
    """`sampling_rate`, which the authors' annotations give for their `.npy` files."""
    found = number(row, "sampling_rate", where=where)
    return int(found) if found else None


def is_true(row: dict[str, Any], key: str, *, where: str) -> bool:
    """A truth value, as JSON or a table spells it.

    Args:
      row: key → value.
      key: of the truth value.
      where: the row is, for messages.

    Raises:
      UserError: the key is missing, or its value is something else.
    """
    value = row.get(key)
    if str(value).lower() in ("true", "1"):
        return True
    if str(value).lower() in ("false", "0"):
        return False
    raise UserError(f"{where}: {key!r} must be True or False, not {value!r}")
