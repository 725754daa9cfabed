"""What the songs file says of its songs: these values are taken as they are.

{"audio": "a.ogg", "attribute": "genre", "value": "jazz"}
{"audio": "a.ogg", "attribute": "bpm", "value": "120"}
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from musilingo_jax.captioning import fields
from musilingo_jax.captioning.fields import Field
from musilingo_jax.corpora.records import Record
from musilingo_jax.corpora.statements.keys import named_key
from musilingo_jax.corpora.statements.metres import metres
from musilingo_jax.corpora.statements.tempos import single_tempo

Known = Mapping[str, Any]
"""Field → its value."""


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


def of_records(records: Iterable[Record]) -> tuple[Mapping[str, Known], list[str]]:
    """The values that records give, for each clip.

    Args:
      records: of a corpus; several may be of one clip.

    Returns:
      Clip id → its values; and, each in words, what is not used: an attribute that is
      no field, a value that says nothing, a second value of a field.
    """
    found: dict[str, dict[str, Any]] = {}
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
        values = found.setdefault(record.clip, {})
        if values.setdefault(name, value) != value:
            unused[f"{said} of {record.audio.name}, beside {values[name]}"] = None
    return found, list(unused)


def field(value: Any, file: str) -> Field:
    """A field whose value a file gives.

    Args:
      value: as `of_records` returns it.
      file: the file's name.
    """
    return fields.field(value, fields.FILE, file, "")
