"""Scores of what answers say about the music: whether they name the true value."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from musilingo_jax.evaluation.answered_questions import AnsweredQuestion
from musilingo_jax.evaluation.metrics import choices, instruments, keys, tempo
from musilingo_jax.evaluation.metrics.naming import named_value

# Scores with a protocol of their own. Any other attribute has one score, under its own
# name: whether the one value that the answer names is the true one.
STANDARD = {
    "key": "MIREX's weighted score of the first key that the answer names "
    "(mir_eval; a fifth above 0.5, relative 0.3, parallel 0.2; no key 0)",
    "key_exact": "the first key that the answer names is the true one",
    "tempo_acc1": "the first number of the answer is within 4 % of the tempo",
    "tempo_acc2": "… or within 4 % of twice, three times, half or a third of it",
    "instruments": "F1 of the instruments that the answer names, mean over tracks; "
    "sentences with “no” are ignored",
    "genre": "the answer names the true genre and no other, in upper or lower case",
    "multiple_choice": "the answer chooses the right option: the one whose text is the "
    "whole answer, else the only option letter anywhere in it, else the first option "
    "whose text it contains, else none, which counts as wrong (MuChoMusic's rule, "
    "except that the whole text comes first)",
}
_ABSENT = {
    "key": "no row has the attribute key with a key as its value",
    "tempo": "no row has the attribute tempo with a number as its value",
    "instruments": "no row has the attribute instruments",
    "genre": "no row has the attribute genre",
    "multiple": "no row has options",
}


@dataclass(frozen=True)
class Facts:
    """Scores of one set of answers.

    Attributes:
      scores: name → score of each row; NaN if the row does not ask for it.
      answered: name → 1 if the answer names anything of the kind, else 0; NaN likewise.
    """

    scores: dict[str, Float[np.ndarray, " rows"]]
    answered: dict[str, Float[np.ndarray, " rows"]]


def vocabulary(pairs: Iterable[tuple[str | None, str | None]]) -> dict[str, set[str]]:
    """All values of each attribute, from the (attribute, value) pairs of a corpus."""
    values: dict[str, set[str]] = {}
    for attribute, value in pairs:
        if attribute is not None and value is not None:
            values.setdefault(attribute, set()).add(value)
    return values


def score(
    rows: Sequence[AnsweredQuestion],
    answers: Sequence[str | None],
    values: Mapping[str, set[str]],
) -> Facts:
    """Scores answers, each by what its row asks for.

    Args:
      rows: the questions and their true values.
      answers: the answer to each; None if there is none, which has no score.
      values: `vocabulary` of the corpus.
    """
    facts = Facts({}, {})
    unscored = np.full(len(rows), np.nan)
    classes = {
        name: set().union(*map(instruments.listed, named))
        for name, named in values.items()
    }
    for index, (row, answer) in enumerate(zip(rows, answers, strict=True)):
        if answer is None or protocol(row) is None:
            continue
        found, answered = _score_one(row, answer, values, classes)
        for name, value in found.items():
            facts.scores.setdefault(name, unscored.copy())[index] = value
            facts.answered.setdefault(name, unscored.copy())[index] = answered
    return facts


def protocol(row: AnsweredQuestion) -> str | None:
    """How a row is scored: a protocol of its own, "named", or None: not by facts."""
    if row.options:
        return "multiple choice"
    if row.attribute is None or row.value is None:
        return None
    if row.attribute == "key" and keys.named_key(row.value):
        return "key"
    if row.attribute in ("tempo", "bpm") and tempo.number(row.value):
        return "tempo"
    if row.attribute in ("instruments", "instrument"):
        return "instruments"
    return "genre" if row.attribute == "genre" else "named"


def why_absent(name: str) -> str:
    """Why a score of `STANDARD` has no rows."""
    return _ABSENT[name.split("_")[0]]


def _score_one(
    row: AnsweredQuestion,
    answer: str,
    values: Mapping[str, set[str]],
    classes: Mapping[str, set[str]],
) -> tuple[dict[str, float], bool]:
    """The scores of one answer by name, and whether it names anything of the kind.

    Args:
      row: a row that has a protocol.
      answer: the answer to it.
      values: attribute → all its values.
      classes: attribute → all instruments that its values list.
    """
    true = row.true_value
    attribute = row.attribute or ""  # Only a multiple choice may be without one.
    match protocol(row):
        case "multiple choice":
            option = choices.chosen(answer, row.options)
            right = option == choices.right(true, row.options)
            return {"multiple_choice": right}, option is not None
        case "key":
            key = keys.named_key(answer)
            weighted = keys.weighted_score(answer, true)
            exact = key == keys.named_key(true)
            return {"key": weighted, "key_exact": exact}, key is not None
        case "tempo" if (bpm := tempo.number(true)) is not None:
            near, octave = tempo.accuracy(answer, bpm)
            found = tempo.number(answer) is not None
            return {"tempo_acc1": near, "tempo_acc2": octave}, found
        case "instruments":
            played = instruments.named(answer, classes[attribute])
            f1 = instruments.f1(played, instruments.listed(true))
            return {"instruments": f1}, bool(played)
        case "genre":
            genres = {value.lower() for value in values["genre"]}
            genre = named_value(answer.lower(), genres)
            return {"genre": genre == true.lower()}, genre is not None
    value = named_value(answer, values[attribute])
    # A value such as "atonal" is not a key: it can be named, but it is near no key.
    name = f"{attribute}_named" if attribute in STANDARD else attribute
    return {name: value == true}, value is not None
