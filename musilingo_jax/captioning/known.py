"""What the songs file says of its songs: these values are taken as they are.

{"audio": "a.ogg", "attribute": "genre", "value": "jazz"}
{"audio": "a.ogg", "attribute": "bpm", "value": "120"}
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from musilingo_jax.captioning import fields
from musilingo_jax.captioning.fields import Field
from musilingo_jax.corpora.records import Record
from musilingo_jax.corpora.statements.keys import named_key
from musilingo_jax.corpora.statements.metres import metres
from musilingo_jax.corpora.statements.tempos import single_tempo
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import json_lines
from musilingo_jax.runtime.printable import printable

Known = Mapping[str, Field]
"""The fields of a song that are known, by name."""


def _one_key(text: str) -> str | None:
    return text.strip() if named_key(text) else None


def _one_metre(text: str) -> str | None:
    found = set(metres(text))
    return found.pop() if len(found) == 1 else None


def _words(text: str) -> tuple[str, ...] | None:
    return tuple(filter(None, (part.strip() for part in text.split(",")))) or None


def _word(text: str) -> str | None:
    return text.strip() or None


_READERS: dict[str, Callable[[str], Any]] = {
    fields.BPM: single_tempo,
    fields.KEY: _one_key,
    fields.METRE: _one_metre,
    fields.GENRE: _word,
    fields.VOCALS: _word,
    fields.INSTRUMENTS: _words,
    fields.MOOD: _words,
    fields.TAGS: _words,
}
# Names that corpora give to these fields.
_NAMES = {
    **{name: name for name in _READERS},
    "tempo": fields.BPM,
    "keyscale": fields.KEY,
    "time signature": fields.METRE,
    "metre": fields.METRE,
    "meter": fields.METRE,
    "genres": fields.GENRE,
    "style": fields.GENRE,
    "instrument": fields.INSTRUMENTS,
    "moods": fields.MOOD,
    "keywords": fields.TAGS,
}


def of_records(
    records: Iterable[Record], file: str
) -> tuple[Mapping[str, Known], list[str]]:
    """The fields that the records of a songs file give, for each clip.

    Args:
      records: of a corpus; several may be of one clip.
      file: the name of the songs file.

    Returns:
      Clip id → its fields; and, each in words, what is not used: an attribute that is
      no field, a value that says nothing, a second value of a field.
    """
    found: dict[str, dict[str, Field]] = {}
    unused: dict[str, None] = {}
    for record in records:
        if record.attribute is None or record.value is None:
            continue
        said = f"{record.attribute} = {record.value}"
        name = _NAMES.get(record.attribute.strip().lower())
        value = _READERS[name](record.value) if name else None
        if name is None or value is None:
            unused[said] = None
            continue
        field = fields.field(value, fields.FILE, file, "")
        known = found.setdefault(record.clip, {}).setdefault(name, field)
        if known != field:
            other = ", ".join(map(str, fields.listed(known["value"])))
            unused[f"{said} of {record.audio.name}, beside {other}"] = None
    return found, list(unused)


def of_annotations(path: Path) -> Mapping[str, Known]:
    """The measured fields in a file of `musilingo annotate`, for each clip.

    Raises:
      UserError: the file cannot be read, or holds other rows.
    """
    found: dict[str, Known] = {}
    for number, row in json_lines(path):
        try:
            found[row["id"]] = {
                name: fields.measured(name, row[theirs])
                for name, theirs in fields.MEASURED.items()
                if theirs in row
            }
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{printable(str(path))}, line {number}: is no row of `musilingo "
                "annotate`; give the annotations.jsonl that it has written"
            ) from error
    return found
