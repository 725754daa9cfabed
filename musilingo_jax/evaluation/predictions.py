"""Reads answers of any system from JSON lines, a JSON array or a table.

    {"clip": "a.mp3", "question": "What is the key?", "reference": "It is F# minor.",
     "answer": "I hear A major.", "attribute": "key", "value": "F# minor"}

`clip`, `question`, `reference` and `answer` are required; several lines may be about
one clip, and `reference` may be a list of several. `attribute` and `value` give the
fact that an answer should name. `options` lists the texts of a multiple choice; `value`
is then the letter or the text of the right one, and by default the reference. If a line
without them asks for the key or the tempo, they are inferred from the reference,
provided that it states exactly one. Reports say for how many lines this was done.

Outputs of other projects have other keys (`foreign_keys.py`) and forms
(`corpora/row_files.py`).
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from musilingo_jax.corpora import row_files
from musilingo_jax.corpora.statements.keys import named_key, named_keys
from musilingo_jax.corpora.statements.tempos import single_tempo
from musilingo_jax.corpora.statements.values import key_of
from musilingo_jax.evaluation import foreign_keys
from musilingo_jax.evaluation.answered_questions import AnsweredQuestion, notes
from musilingo_jax.evaluation.metrics import choices
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.printable import print_note, printable
from musilingo_jax.runtime.unicode_names import as_on_disk, composed

# Questions for the key, but not for key elements or a change of key, nor "a minor key?"
_ASKS_KEY = re.compile(
    r"""(?<!major\ )(?<!minor\ ) \b (?:key|tonality) (?:\s+signature)? \b
    (?: \s* (?:[.?!,;:"”’')] | $ )
      | \s+ (?:signature|is|was|does|do|of|in|for|estimation|detection|and|or|that
               |from|used|this|the|it|you|please)\b )""",
    re.VERBOSE | re.IGNORECASE,
)
_YES_OR_NO = re.compile(
    r"\s*(?:is|are|was|were|does|do|did|has|have|can|why|how)\b", re.IGNORECASE
)
_ASKS_TEMPO = re.compile(
    r"(?!.*\bhow many (?!beats|bpm)).*(?:\btempo\b|\bbpm\b|\bbeats per minute\b)",
    re.IGNORECASE | re.DOTALL,
)


def read(path: Path, keys: Mapping[str, str] | None = None) -> list[AnsweredQuestion]:
    """Reads a file of answers, and prints notes about them on stderr.

    Args:
      path: the file.
      keys: our key → the file's, for those that should not be guessed.

    Raises:
      UserError: the file cannot be read, a line is malformed, or there are no lines.
    """
    return read_noted(path, keys)[0]


def read_noted(
    path: Path, keys: Mapping[str, str] | None = None
) -> tuple[list[AnsweredQuestion], list[str]]:
    """As `read`; also returns what is to be said about the file itself."""
    path = as_on_disk(path)
    found: dict[str, str] = {}
    rows, places = [], []
    for where, row in row_files.read_rows(path):
        found = found or foreign_keys.find(row, keys or {}, where)
        rows.append(_row(foreign_keys.ours(row, found, where), where))
        places.append(where)
    if not rows:
        raise UserError(
            f"{printable(str(path))} has no lines: each answer needs a line"
        )
    told = foreign_keys.told(found)
    of_file = [told] if told else []
    of_file += _doubts(rows, places)
    for note in [*of_file, *notes(rows)]:
        print_note(f"{path}: {note}")
    return rows, of_file


def _row(content: dict[str, Any], where: str) -> AnsweredQuestion:
    references = content["reference"]
    references = references if isinstance(references, list) else [references]
    if not references:
        raise UserError(f"{where}: reference is an empty list")
    texts = {
        name: _required_text(content, name, where)
        for name in ("clip", "question", "answer")
    }
    reference, *others = (
        _required_text({"reference": each}, "reference", where) for each in references
    )
    attribute, value, options = _truth(content, reference, where)
    every = (
        *texts.values(),
        reference,
        *others,
        attribute or "",
        value or "",
        *options,
    )
    for text in every:
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise UserError(
                f"{where}: {text!r:.60} contains half of a surrogate pair (\\ud800 to "
                "\\udfff alone), which is not a character: correct the text"
            )
    inferred = False
    if attribute is None and not options:
        truths = {
            _infer_truth(texts["question"], each) for each in (reference, *others)
        }
        attribute, value = truths.pop() if len(truths) == 1 else (None, None)
        inferred = attribute is not None
    return AnsweredQuestion(
        **texts | {"clip": composed(texts["clip"])},
        reference=reference,
        attribute=attribute,
        value=value,
        options=options,
        record=None,
        inferred=inferred,
        others=tuple(others),
        is_cut=content.get("cut") is True,
    )


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
    attribute = content.get("attribute") or None
    value = content.get("value")
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        value = ", ".join(value)
    value = None if value == "" else value
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = _digits(value, f"{where}: value")
    if not (attribute is None or isinstance(attribute, str)) or not (
        value is None or isinstance(value, str)
    ):
        raise UserError(f"{where}: attribute and value must be text")
    options = content.get("options") or []
    if not isinstance(options, list) or not all(isinstance(o, str) for o in options):
        raise UserError(f"{where}: options must be a list of texts")
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
        raise UserError(f"{where} is {value}: it must be a finite number")
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

    The key: exactly one, in any notation. The tempo: a number of beats per minute and
    no other such number, or nothing but a number.
    """
    if _ASKS_KEY.search(question) and not _YES_OR_NO.match(question):
        named = set(named_keys(reference))
        if len(named) == 1:
            return "key", named.pop()
    bpm = single_tempo(reference) if _ASKS_TEMPO.match(question) else None
    return (None, None) if bpm is None else ("tempo", f"{bpm:.12g}")


def _doubts(rows: Sequence[AnsweredQuestion], places: Sequence[str]) -> Iterator[str]:
    """What may be mistaken in a file, one sentence each with the first place."""
    first: dict[tuple[str, str, str | None], int] = {}
    against: list[tuple[str, str]] = []
    asked_back = []
    for place, row in enumerate(rows):
        if row.question.strip() and key_of(row.reference) == key_of(row.question):
            asked_back.append(places[place])
        if row.value is None:
            continue
        other = first.setdefault((row.clip, row.question, row.attribute), place)
        if _fact(rows[other]) != _fact(row):
            against.append((places[other], places[place]))
    if against:
        yield (
            f"{len(against)} lines give another value than an earlier line with the "
            f"same clip and question: the first are {against[0][0]} and "
            f"{against[0][1]}. An answer cannot be right for both."
        )
    if asked_back:
        yield (
            f"{len(asked_back)} references repeat their question, the first "
            f"{asked_back[0]}."
        )


def _fact(row: AnsweredQuestion) -> str:
    """The value of a row, the same for all of its spellings."""
    if row.options:
        return str(choices.right(row.true_value, row.options))
    return named_key(row.true_value) or key_of(row.true_value)
