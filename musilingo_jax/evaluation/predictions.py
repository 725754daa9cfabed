"""Reads answers of any system from JSON lines.

    {"clip": "a.mp3", "question": "What is the key?", "reference": "It is F# minor.",
     "answer": "I hear A major.", "attribute": "key", "value": "F# minor"}

`clip`, `question`, `reference` and `answer` are required; several lines may be about
one clip. `attribute` and `value` give the fact that an answer should name. `options`
lists the texts of a multiple choice; `value` is then the letter or the text of the
right one, and by default the reference. If a line without them asks for the key or the
tempo, they are inferred from the reference, provided that it states exactly one.
Reports say for how many lines this was done.
"""

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

from musilingo_jax.evaluation.answered_questions import AnsweredQuestion, notes
from musilingo_jax.evaluation.metrics import choices, keys, tempo
from musilingo_jax.runtime.errors import UserError

REQUIRED = ("clip", "question", "reference", "answer")
# Questions for the key, but not for key elements or a change of key.
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


def read(path: Path) -> list[AnsweredQuestion]:
    """Reads a file of answers, and prints notes about them on stderr.

    Raises:
      UserError: the file cannot be read, a line is malformed, or there are no lines.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        message = f"{path} is not UTF-8 text ({error}): save it as UTF-8"
        raise UserError(message) from error
    # Not splitlines: JSON strings may contain other line separators of Unicode.
    lines = enumerate(text.split("\n"), start=1)
    rows = [_row(line, f"{path}:{number}") for number, line in lines if line.strip()]
    if not rows:
        raise UserError(f"{path} has no lines: each answer needs a line")
    for note in notes(rows):
        print(f"{path}: {note}", file=sys.stderr)
    return rows


def _row(line: str, where: str) -> AnsweredQuestion:
    content = _object(line, where)
    texts = {name: _required_text(content, name, where) for name in REQUIRED}
    attribute, value, options = _truth(content, texts["reference"], where)
    for text in (*texts.values(), attribute or "", value or "", *options):
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise UserError(
                f"{where}: {text!r:.60} contains half of a surrogate pair (\\ud800 to "
                "\\udfff alone), which is not a character: correct the text"
            )
    inferred = False
    if attribute is None and not options:
        attribute, value = _infer_truth(texts["question"], texts["reference"])
        inferred = attribute is not None
    return AnsweredQuestion(
        **texts,
        attribute=attribute,
        value=value,
        options=options,
        record=None,
        inferred=inferred,
    )


def _object(line: str, where: str) -> dict[str, Any]:
    """The JSON object of a line, which has all required keys."""
    try:
        content = json.loads(line)
    # Python refuses numbers of thousands of digits with a ValueError of its own.
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{where} is not valid JSON ({error}): each line must be an object with "
            f"{', '.join(REQUIRED)}"
        ) from error
    if not isinstance(content, dict):
        raise UserError(
            f"{where} is not a JSON object: it must be one with {', '.join(REQUIRED)}"
        )
    if missing := [name for name in REQUIRED if name not in content]:
        raise UserError(f"{where} lacks {', '.join(missing)}")
    return content


def _required_text(content: dict[str, Any], name: str, where: str) -> str:
    text = content[name]
    if name == "clip" and isinstance(text, int):  # Clips may be numbered.
        text = str(text)
    if not isinstance(text, str):
        raise UserError(f"{where}: {name} must be text, not {text!r:.60}")
    if name == "clip" and not text:
        raise UserError(f"{where}: clip is empty: it must identify the clip")
    return text


def _truth(
    content: dict[str, Any], reference: str, where: str
) -> tuple[str | None, str | None, tuple[str, ...]]:
    """Attribute, value and options as a line gives them."""
    attribute, value = content.get("attribute"), content.get("value")
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = _digits(value, where)
    if not (attribute is None or isinstance(attribute, str)) or not (
        value is None or isinstance(value, str)
    ):
        raise UserError(f"{where}: attribute and value must be text")
    options = content.get("options") or []
    if not isinstance(options, list) or not all(isinstance(o, str) for o in options):
        raise UserError(f"{where}: options must be a list of texts")
    attribute = attribute or None
    if not options:
        if (attribute is None) != (value is None):
            raise UserError(
                f"{where}: attribute and value belong together: give both or neither"
            )
        return attribute, value, ()
    _check_options(options, where)
    value = reference if value is None else value
    if choices.right(value, options) is None:
        raise UserError(
            f"{where}: none of the options is {value!r:.60}: value, or by default "
            "reference, must be the letter or the text of the right option"
        )
    return attribute, value, tuple(options)


def _digits(value: float, where: str) -> str:
    """A number as one would write it: 120.0 as "120", and never rounded."""
    if not math.isfinite(value):
        raise UserError(f"{where}: value is {value}: it must be a finite number")
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e15
    return str(int(value) if whole else value)


def _check_options(options: list[str], where: str) -> None:
    """Refuses options that an answer could not choose unambiguously."""
    if len(options) > len(choices.LETTERS):
        raise UserError(
            f"{where} has {len(options)} options: at most {len(choices.LETTERS)} can "
            "have a letter"
        )
    for letter, option in zip(choices.LETTERS, options, strict=False):
        text = option.strip()
        if not text:
            raise UserError(
                f"{where}: option {letter} is empty, so that every answer would "
                "contain it: give it a text"
            )
        others = set(choices.LETTERS[: len(options)]) - {letter}
        if text.upper() in others:
            raise UserError(
                f"{where}: the text of option {letter} is {text!r}, the letter of "
                "another option: add a word to it, as in “the note A”"
            )


def _infer_truth(question: str, reference: str) -> tuple[str | None, str | None]:
    """Attribute and value, if a question asks for one and its reference states it.

    The key: a note with its mode, and no other key. The tempo: a number of beats per
    minute and no other such number, or nothing but a number.
    """
    if _ASKS_KEY.search(question):
        named = set(keys.named_keys(reference))
        if len(named) == 1:
            return "key", named.pop()
    if _ASKS_TEMPO.match(question) and (bpm := tempo.stated(reference)):
        return "tempo", bpm
    return None, None
