r"""Files of rows, as people and other programs write them: objects, one after another.

    {"audio": "a.ogg", …}                one JSON object per line (.jsonl)
    [{"audio": "a.ogg", …}, …]           a JSON array, on one line or on many
    {"data": [{…}, …]}                   … inside of an object
    {"17": {…}, "18": {…}}               objects by their id, which becomes "id"
    audio,answer                         a table (.csv, .tsv): commas, tabs or ;

UTF-8, with or without a byte order mark; UTF-16 and UTF-32 if a mark says so, as
Windows' PowerShell and spreadsheets write them. Any line ends; within a cell of a table
they become "\n", so that the same text gives the same records however it was saved.
"""

import codecs
import csv
import io
import json
import re
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import kind_of, parse_json
from musilingo_jax.runtime.paths import open_regular_file
from musilingo_jax.runtime.printable import printable

TABLES = (".csv", ".tsv")
Row = tuple[str, dict[str, Any]]

# UTF-32 first: its mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SPACE = " \t\n"


def read_text(path: Path) -> str:
    r"""The text of a file, in the encoding that its byte order mark tells, else UTF-8.

    Line ends become "\n".

    Raises:
      UserError: it cannot be read, is not a regular file, or is in another encoding.
    """
    where = printable(str(path))
    try:
        with open_regular_file(path) as file:
            content = file.read()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{where} cannot be read: {reason}") from error
    encodings = (name for mark, name in _MARKS if content.startswith(mark))
    encoding = next(encodings, "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        shown = encoding.removesuffix("-sig").upper()
        why = f"{error.reason} at byte {error.start:,}"
        raise UserError(
            f"{where}: cannot be read as {shown} text ({why}): save it as UTF-8"
        ) from error
    if "\0" in text:
        raise UserError(
            f"{where}: has NUL characters, so it is no text, or UTF-16 without a byte "
            "order mark: save it as UTF-8"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_rows(path: Path, *, columns: Collection[str] = ()) -> Iterator[Row]:
    """The rows of a file, of any of the kinds above.

    Args:
      path: the file.
      columns: those that it must have if it is a table.

    Yields:
      `file:line` where the row begins, and its keys and values. Cells of a table are
      text, "" if empty.

    Raises:
      UserError: the file cannot be read; or a row is not an object, or has a key twice,
        with file and line.
    """
    text = read_text(path)
    where = printable(str(path))
    if path.suffix.lower() in TABLES:
        yield from _table(text, where, columns)
        return
    for place, row in _values(text, where):
        if not isinstance(row, dict):
            raise UserError(f"{place}: is not a JSON object but {kind_of(row)}")
        yield place, row


def _values(text: str, where: str) -> Iterator[tuple[str, Any]]:
    """`file:line` and value of each line, or of each element of an array."""
    begin = len(text) - len(text.lstrip(_SPACE))
    first = text[begin:].partition("\n")[0]
    if first.startswith("["):
        # The whole array first: its errors are those that readers of JSON name.
        parse_json(text, where, unique_keys=True)
        yield from _one_after_another(text, begin + 1, where)
    elif first.startswith("{") and not _is_json(first) and _is_sequence(text, begin):
        yield from _unwrapped(list(_one_after_another(text, begin, where)), where)
    else:
        yield from _unwrapped(list(_lines(text, where)), where)


def _lines(text: str, where: str) -> Iterator[tuple[str, Any]]:
    # Not splitlines, which also cuts at separators that JSON allows in strings.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip(_SPACE):
            place = f"{where}:{number}"
            yield place, parse_json(line, place, unique_keys=True)


def _one_after_another(text: str, place: int, where: str) -> Iterator[tuple[str, Any]]:
    """The values from a place of the text on, until its end or that of their array."""
    decoder, line, counted = json.JSONDecoder(), 1, 0
    while True:
        while text[place : place + 1] and text[place] in _SPACE + ",":
            place += 1
        if text[place : place + 1] in ("", "]"):
            return
        line += text.count("\n", counted, place)
        counted, begin = place, place
        place = decoder.raw_decode(text, place)[1]
        name = f"{where}:{line}"
        yield name, parse_json(text[begin:place], name, unique_keys=True)


def _is_sequence(text: str, place: int) -> bool:
    """Whether the text from a place on is one JSON value after another."""
    try:
        for _ in _one_after_another(text, place, ""):
            pass
    except (ValueError, RecursionError, UserError):
        return False
    return True


def _unwrapped(rows: list[tuple[str, Any]], where: str) -> Iterator[tuple[str, Any]]:
    """The rows, or those inside of the only one."""
    if len(rows) == 1 and isinstance(rows[0][1], dict):
        yield from _members(*rows[0], where)
    else:
        yield from rows


def _members(
    place: str, content: dict[str, Any], where: str
) -> Iterator[tuple[str, Any]]:
    """The rows inside of one object, or the object itself."""
    lists = {k: v for k, v in content.items() if isinstance(v, list) and _are_rows(v)}
    if len(lists) > 1:
        raise UserError(
            f"{where}: has rows in {' and '.join(map(repr, lists))}: keep one of them"
        )
    if lists:
        ((key, rows),) = lists.items()
        for number, row in enumerate(rows):
            yield f"{where}: {printable(key)}[{number}]", row
    elif content and all(isinstance(value, dict) for value in content.values()):
        for key, row in content.items():
            yield f"{where}: {printable(key)}", {"id": key, **row}
    else:
        yield place, content


def _are_rows(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(value, dict) for value in values)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _table(text: str, where: str, needed: Collection[str]) -> Iterator[Row]:
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    csv.field_size_limit(sys.maxsize)  # Any text fits into a cell.
    try:
        if re.fullmatch(r"sep=[,;\t]", head):  # A note of Excel to itself.
            next(reader)
        columns = [column.strip() for column in next(reader, [])]
        if missing := [name for name in needed if name not in columns]:
            raise UserError(
                f"{where}:1: there is no column {', '.join(missing)}; the first line "
                "must name the columns, such as audio,question,answer,split"
            )
        repeated = sorted({name for name in columns if columns.count(name) > 1})
        if repeated:
            raise UserError(
                f"{where}:1: two columns have the same name, {printable(repeated[0])!r}"
            )
        number = reader.line_num
        for cells in reader:
            place, number = f"{where}:{number + 1}", reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(columns):
                raise UserError(
                    f"{place}: has {len(cells)} cells, not {len(columns)}; put text "
                    f'that contains a {delimiter!r} in "quotes"'
                )
            yield place, dict(zip(columns, cells, strict=True))
    except csv.Error as error:
        raise UserError(f"{where}:{reader.line_num}: is not CSV: {error}") from error
