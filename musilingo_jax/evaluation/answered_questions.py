"""Anyone's answers, as JSON lines, and what an answered question is.

    {"clip": "a.mp3", "question": "What is the key?", "reference": "It is F# minor.",
     "answer": "I hear A major.", "attribute": "key", "value": "F# minor"}

`clip`, `question`, `reference` and `answer` must be there; several lines may be about
one clip. `attribute` and `value` say what an answer is to name, and `options` what a
multiple choice offers (`value` is then the right letter or text). A line without them
that asks for the key or the tempo takes them from its reference, if that states one and
only one; reports say how many lines did so.
"""

import json
import math
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musilingo_jax.corpora.records import Record
from musilingo_jax.evaluation.metrics import choices, keys, tempo
from musilingo_jax.runtime.errors import UserError

REQUIRED = ("clip", "question", "reference", "answer")
# Questions for the key, not for key elements, and not for a change of key.
_ASKS_KEY = re.compile(
    r"""\b(?: (?:what|which) (?:\s+musical)? \s+ key
         | (?:what(?:\s+is|['’]s)|name|give|tell\s+me|identify|state|determine) \s+
           the (?:\s+musical)? \s+ key
         | key \s+ signature )
    (?: \s+ (?:signature|is|was|does|of|in)\b | \s*[.?!,;] | \s*$ )""",
    re.VERBOSE | re.IGNORECASE,
)
_ASKS_TEMPO = re.compile(
    r"(?!.*\bhow many (?!beats|bpm)).*(?:\btempo\b|\bbpm\b|\bbeats per minute\b)",
    re.IGNORECASE | re.DOTALL,
)
# Kinds of rows that no attribute is asked of, and what sets an attribute apart that
# somebody named like one of them.
_KINDS = ("multiple choice", "captions", "other questions")
_APART = " (attribute)"


@dataclass(frozen=True)
class AnsweredQuestion:
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
      inferred: whether attribute and value were read from question and reference.
    """

    clip: str
    question: str
    reference: str
    answer: str
    attribute: str | None
    value: str | None
    options: tuple[str, ...]
    record: Record | None
    inferred: bool

    @classmethod
    def of(cls, record: Record, answer: str) -> "AnsweredQuestion":
        """The record of a corpus, answered."""
        said = record.answer, answer, record.attribute, record.value
        return cls(record.clip, record.question, *said, (), record, inferred=False)

    @property
    def kind(self) -> str:
        """Rows of one kind have comparable answers."""
        choice, captions, others = _KINDS
        if self.options:
            return choice
        name = self.attribute
        if name is None:
            return others if self.question else captions
        # Controls make further kinds of single questions, in quotation marks.
        taken = name in _KINDS or name.startswith("“") or name.endswith(_APART)
        return name + _APART if taken else name


def inferred(rows: Sequence[AnsweredQuestion]) -> dict[str, int]:
    """Attribute → of how many rows it was read from question and reference."""
    return dict(sorted(Counter(row.attribute for row in rows if row.inferred).items()))


def repeated(rows: Sequence[AnsweredQuestion]) -> int:
    """How many rows ask what an earlier one asks of the same clip."""
    return len(rows) - len({(row.clip, row.question) for row in rows})


def read(path: Path) -> list[AnsweredQuestion]:
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
    for note in notes(rows):
        print(f"{path}: {note}", file=sys.stderr)
    return rows


def notes(rows: Sequence[AnsweredQuestion]) -> list[str]:
    """What a reader of the scores must know of the rows: a sentence each."""
    said = []
    if found := inferred(rows):
        counts = ", ".join(f"{name} {count}" for name, count in found.items())
        said.append(
            f"attribute and value of {sum(found.values())} answers are inferred from "
            f"question and reference ({counts}), because the lines have none."
        )
    if again := repeated(rows):
        said.append(
            f"{again} answers have the clip and the question of an earlier one; each "
            "of them counts."
        )
    return said


def _row(line: str, where: str) -> AnsweredQuestion:
    try:
        said: dict[str, Any] = json.loads(line)
    # Python refuses numbers of thousands of digits with a ValueError of its own.
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{where} is no JSON that can be read ({error}): each line must be an "
            f"object with {', '.join(REQUIRED)}"
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
    attribute, value, options = _truth(said, where)
    texts = [said[name] for name in REQUIRED]
    for text in (*texts, attribute or "", value or "", *options):
        if any("\ud800" <= sign <= "\udfff" for sign in text):
            raise UserError(
                f"{where}: {text!r:.60} holds half of a character (\\ud800 to \\udfff "
                "alone), which cannot be written: mend the text"
            )
    read_off = attribute is None and not options
    if read_off:
        attribute, value = _asked_for(said["question"], said["reference"])
    inferred = read_off and attribute is not None
    return AnsweredQuestion(*texts, attribute, value, options, None, inferred)


def _truth(
    said: dict[str, Any], where: str
) -> tuple[str | None, str | None, tuple[str, ...]]:
    """Attribute, value and options as a line has them."""
    attribute, value = said.get("attribute"), said.get("value")
    options = said.get("options") or []
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = _digits(value, where)
    if not all(part is None or isinstance(part, str) for part in (attribute, value)):
        raise UserError(f"{where}: attribute and value must be text")
    if not isinstance(options, list) or not all(isinstance(o, str) for o in options):
        raise UserError(f"{where}: options must be a list of texts")
    attribute = attribute or None
    if not options:
        if (attribute is None) != (value is None):
            raise UserError(f"{where}: attribute and value belong together")
        return attribute, value, ()
    _check_options(options, where)
    value = said["reference"] if value is None else value
    if choices.right(value, options) is None:
        raise UserError(
            f"{where}: none of the options is {value!r:.60}: value, or else "
            "reference, must be the right option's letter or text"
        )
    return attribute, value, tuple(options)


def _digits(value: float, where: str) -> str:
    """A number as one writes it: 120.0 is "120", and none is rounded."""
    if not math.isfinite(value):
        raise UserError(f"{where}: value is {value}: it must be a finite number")
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e15
    return str(int(value) if whole else value)


def _check_options(options: list[str], where: str) -> None:
    """Refuses options that an answer could not take without doubt."""
    if len(options) > len(choices.LETTERS):
        raise UserError(
            f"{where} has {len(options)} options: there are letters for "
            f"{len(choices.LETTERS)}"
        )
    for place, option in enumerate(options):
        text = option.strip()
        if not text:
            raise UserError(
                f"{where}: option {choices.LETTERS[place]} is empty: every answer "
                "would hold it; write what it offers"
            )
        others = choices.LETTERS[: len(options)].replace(choices.LETTERS[place], "")
        if text.upper() in set(others):
            raise UserError(
                f"{where}: the text of option {choices.LETTERS[place]} is {text!r}, "
                "the letter of another one: write it with a word, as “the note A”"
            )


def _asked_for(question: str, reference: str) -> tuple[str | None, str | None]:
    """Attribute and value, where a question asks for one and its reference states it.

    The key: a note with its mode, and no other key. The tempo: a number of beats per
    minute, and no other one, or nothing but a number.
    """
    if (
        _ASKS_KEY.search(question)
        and len(found := set(keys.named_keys(reference))) == 1
    ):
        return "key", found.pop()
    if _ASKS_TEMPO.match(question) and (bpm := tempo.stated(reference)):
        return "tempo", bpm
    return None, None
