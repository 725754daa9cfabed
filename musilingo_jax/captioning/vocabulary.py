"""A controlled vocabulary: the only tags that a field may have.

    # lines that begin with "#" are for people
    genre: rock, hip hop, jazz
    mood: calm, dark
    mood: happy
    vocals: instrumental, female voice, male voice
    night drive
    lo-fi

A line without a field belongs to the field `tags`. Commas separate tags everywhere.
"""

from collections.abc import Mapping
from pathlib import Path

from musilingo_jax.captioning.fields import TAGGED, TAGS
from musilingo_jax.corpora.statements import values
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.paths import open_regular_file
from musilingo_jax.runtime.printable import printable

Vocabulary = Mapping[str, tuple[str, ...]]
"""Field → its tags, in the order of the file."""


def read(path: Path) -> Vocabulary:
    """The vocabulary in a file.

    Raises:
      UserError: it cannot be read, names an unknown field, has a tag twice, or a field
        with a single tag, among which there is nothing to choose.
    """
    where = printable(str(path))
    try:
        with open_regular_file(path) as file:
            text = file.read().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: is not UTF-8 text; save it as such") from error
    found: dict[str, dict[str, str]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, tags = _parsed(line, f"{where}:{number}")
        known = found.setdefault(name, {})
        for tag in tags:
            key = values.key_of(tag, plural=True)
            if key in known:
                raise UserError(
                    f"{where}:{number}: {tag!r} is {known[key]!r} again, in the field "
                    f"{name}: leave one of them out"
                )
            known[key] = tag
    if not found:
        raise UserError(f"{where}: holds no tags; write one on each line")
    for name, tags in found.items():
        if len(tags) == 1:
            raise UserError(
                f"{where}: the field {name} has the single tag "
                f"{next(iter(tags.values()))!r}, which every song would get: give "
                "another one to choose from, or leave the field out"
            )
    return {name: tuple(found[name].values()) for name in TAGGED if name in found}


def _parsed(line: str, where: str) -> tuple[str, list[str]]:
    """The field of a line, and its tags.

    Raises:
      UserError: the field is unknown, or there are no tags.
    """
    before, colon, after = line.partition(":")
    name = before.strip().lower() if colon else TAGS
    if name not in TAGGED:
        raise UserError(
            f"{where}: {before.strip()!r} is no field that has tags; those are "
            f"{', '.join(TAGGED)}"
        )
    tags = [tag.strip() for tag in (after if colon else line).split(",")]
    if "" in tags:
        raise UserError(f"{where}: there is no tag before or after a comma; give one")
    return name, tags
