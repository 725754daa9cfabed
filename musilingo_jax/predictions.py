"""Anyone's answers, as JSON lines, and what an answered question is.

    {"clip": "a.mp3", "question": "What is the key?", "reference": "It is F# minor.",
     "answer": "I hear A major.", "attribute": "key", "value": "F# minor"}

`clip`, `question`, `reference` and `answer` must be there; several lines may be about
one clip. `attribute` and `value` say what an answer is to name, and `options` what a
multiple choice offers (`value` is then the right letter or text). A line without them
that asks for a key or a tempo takes them from its reference.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musilingo_jax.corpora.records import Record
from musilingo_jax.errors import UserError
from musilingo_jax.metrics import choices, keys, tempo

REQUIRED = ("clip", "question", "reference", "answer")
_ASKS_KEY = re.compile(r"\bkey\b", re.IGNORECASE)
_ASKS_TEMPO = re.compile(r"\btempo\b|\bbpm\b|\bbeats per minute\b", re.IGNORECASE)


@dataclass(frozen=True)
class Row:
    """A question about a clip, what should be said, and what was.

    Attributes:
      clip: identifies what was heard.
      question: "" for a caption.
      reference: what should be said.
      answer: what was said.
      attribute: what the question is about, such as "tempo"; None if nobody knows.
      value: its true value.
      options: the texts of a multiple choice; empty where it is none.
      record: where clip and question come from; None for a file of answers.
    """

    clip: str
    question: str
    reference: str
    answer: str
    attribute: str | None
    value: str | None
    options: tuple[str, ...]
    record: Record | None

    @classmethod
    def of(cls, record: Record, answer: str) -> "Row":
        """The record of a corpus, answered."""
        said = record.answer, answer, record.attribute, record.value
        return cls(record.clip, record.question, *said, (), record)

    @property
    def kind(self) -> str:
        """Rows of one kind have comparable answers."""
        if self.options:
            return "multiple choice"
        return self.attribute or ("other questions" if self.question else "captions")


def read(path: Path) -> list[Row]:
    """The rows of a file.

    Raises:
      UserError: it cannot be read, a line is wrong, or there is none.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not in UTF-8: save it so ({error})") from error
    # Not splitlines: JSON may hold other signs that Python takes for ends of lines.
    lines = enumerate(text.split("\n"), start=1)
    rows = [_row(line, f"{path}:{number}") for number, line in lines if line.strip()]
    if not rows:
        raise UserError(f"{path} has no lines: one answer per line is needed")
    return rows


def _row(line: str, where: str) -> Row:
    try:
        said: dict[str, Any] = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(
            f"{where} is no JSON ({error}): each line must be an object with "
            f"{', '.join(REQUIRED)}"
        ) from error
    if not isinstance(said, dict):
        raise UserError(f"{where} is no object: {', '.join(REQUIRED)} are needed")
    if missing := [name for name in REQUIRED if name not in said]:
        raise UserError(f"{where} lacks {', '.join(missing)}")
    for name in REQUIRED:
        # A clip may be numbered; what is said must be text.
        if name == "clip" and isinstance(said[name], int):
            said[name] = str(said[name])
        if not isinstance(said[name], str):
            raise UserError(f"{where}: {name} must be text, not {said[name]!r:.60}")
    if not said["clip"]:
        raise UserError(f"{where}: clip is empty: it must identify what was heard")
    attribute, value = said.get("attribute"), said.get("value")
    options = said.get("options") or []
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = f"{value:g}"
    if not all(part is None or isinstance(part, str) for part in (attribute, value)):
        raise UserError(f"{where}: attribute and value must be text")
    if not isinstance(options, list) or not all(isinstance(o, str) for o in options):
        raise UserError(f"{where}: options must be a list of texts")
    if not options and (attribute is None) != (value is None):
        raise UserError(f"{where}: attribute and value belong together")
    if options:
        value = said["reference"] if value is None else value
        if len(options) > len(choices.LETTERS) or choices.right(value, options) is None:
            raise UserError(
                f"{where}: none of the options is {value!r:.60}: value, or else "
                "reference, must be the right option's letter or text"
            )
    elif attribute is None:
        attribute, value = _asked_for(said["question"], said["reference"])
    texts = (said[name] for name in REQUIRED)
    return Row(*texts, attribute or None, value, tuple(options), None)


def _asked_for(question: str, reference: str) -> tuple[str | None, str | None]:
    """Attribute and value where question and reference leave no doubt."""
    if _ASKS_KEY.search(question) and (key := keys.named_key(reference)):
        return "key", key
    if _ASKS_TEMPO.search(question) and (bpm := tempo.number(reference)):
        return "tempo", f"{bpm:g}"
    return None, None
