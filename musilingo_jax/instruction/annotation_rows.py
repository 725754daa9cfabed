"""A row of `musilingo annotate` → what questions can be made of."""

from collections.abc import Mapping
from typing import Any

from musilingo_jax.corpora import annotations
from musilingo_jax.instruction.subjects import Subject
from musilingo_jax.runtime.errors import UserError

_FIELDS = ("tempo", "metre", "key", "chords", "loudness", "sections", "tags")
_NO_CHORD = "no chord"
# Tags that a tagger holds for less likely than this are not said to be there.
_LEAST = 0.5


def is_one(row: Mapping[str, Any]) -> bool:
    """Whether a row is one of these."""
    return "id" in row and any(
        isinstance(field, Mapping) and "source" in field for field in row.values()
    )


def subject(row: Mapping[str, Any], *, where: str) -> Subject:
    """What a row says of a song, or of a window of one.

    Tempo, metre and key become facts, and the key's mode another one. Of the tags those
    count that a tagger holds for likelier than not.

    Args:
      row: with `id` and `audio`.
      where: the row is, for messages.

    Raises:
      UserError: a field has not the form that the program writes.
    """
    try:
        return _subject(row, where)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"{where}: is not a row that `musilingo annotate` writes "
            f"({type(error).__name__}: {error}); make the file again"
        ) from error


def _subject(row: Mapping[str, Any], where: str) -> Subject:
    values = {
        name: row[name]["value"]
        for name in _FIELDS
        if name in row and row[name]["value"] is not None
    }
    facts = {}
    if "tempo" in values:
        facts["tempo"] = f"{float(values['tempo']):g}"
    if "key" in values:
        facts["key"], facts["mode"] = values["key"], values["key"].split()[1]
    if "metre" in values:
        facts["metre"] = str(int(values["metre"]))
    if "loudness" in values:
        facts["loudness"] = f"{float(values['loudness']['lufs']):g} LUFS"
    chords = [chord["chord"] for chord in values.get("chords", ())]
    likely = [t["tag"] for t in values.get("tags", ()) if t["confidence"] >= _LEAST]
    return Subject(
        clip=annotations.text(dict(row), "id", where=where),
        name=annotations.text(dict(row), "audio", where=where),
        audio=None,
        split="train",
        facts=facts,
        tags=tuple(dict.fromkeys(likely)),
        chords=tuple(chord for chord in chords if chord != _NO_CHORD),
        sections=tuple(part["label"] for part in values.get("sections", ())),
        start=annotations.number(dict(row), "start", where=where),
        end=annotations.number(dict(row), "end", where=where),
    )
