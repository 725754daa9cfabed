"""What answers say of the music: the right value, or not."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from musilingo_jax.evaluation.answered_questions import AnsweredQuestion
from musilingo_jax.evaluation.metrics import choices, instruments, keys, tempo
from musilingo_jax.evaluation.metrics.naming import named_value

# The protocols with names of their own. Any other attribute is scored under its name,
# by the one value that the answer names.
STANDARD = {
    "key": "MIREX's weighted score of the first key that the answer names "
    "(mir_eval; a fifth above 0.5, relative 0.3, parallel 0.2; no key 0)",
    "key_exact": "the first key that the answer names is the true one",
    "tempo_acc1": "the answer's first number is within 4 % of the tempo",
    "tempo_acc2": "… or within 4 % of its double, triple, half or third",
    "instruments": "F1 of the instruments named, mean over tracks; sentences with “no” "
    "are dropped",
    "genre": "the answer names the true genre and no other, in any case of letters",
    "multiple_choice": "the option taken is the right one: the one whose text is the "
    "whole answer, else exactly one option letter anywhere in it, else the first "
    "option whose text it holds, else unanswered, which counts as wrong (MuChoMusic's "
    "rule, but that the whole text comes first)",
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
      scores: name → score of each row; NaN where the row does not ask for it.
      answered: name → 1 where an answer says anything of the kind, 0 where not.
    """

    scores: dict[str, Float[np.ndarray, " rows"]]
    answered: dict[str, Float[np.ndarray, " rows"]]


def vocabulary(pairs: Iterable[tuple[str | None, str | None]]) -> dict[str, set[str]]:
    """All values of each attribute, from (attribute, value) of a whole corpus."""
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
    """Scores answers by what each row asks for.

    Args:
      rows: what is asked, and the truth.
      answers: what was said; None where nothing was, which has no score.
      values: `vocabulary` of the corpus.
    """
    facts = Facts({}, {})
    nowhere = np.full(len(rows), np.nan)
    heard = {a: set().union(*map(instruments.listed, v)) for a, v in values.items()}
    for place, (row, answer) in enumerate(zip(rows, answers, strict=True)):
        if answer is None or protocol(row) is None:
            continue
        found, answered = _one(row, answer, values, heard)
        for name, value in found.items():
            facts.scores.setdefault(name, nowhere.copy())[place] = value
            facts.answered.setdefault(name, nowhere.copy())[place] = answered
    return facts


def protocol(row: AnsweredQuestion) -> str | None:
    """How a row is scored: a protocol of FACTS, "named", or None: by words only."""
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
    """Why a standard score has no rows."""
    return _ABSENT[name.split("_")[0]]


def _one(
    row: AnsweredQuestion,
    answer: str,
    values: Mapping[str, set[str]],
    heard: Mapping[str, set[str]],
) -> tuple[dict[str, float], bool]:
    """The scores of one answer by name, and whether it says anything of the kind."""
    match protocol(row):
        case "multiple choice":
            taken = choices.chosen(answer, row.options)
            right = taken == choices.right(row.value, row.options)
            return {"multiple_choice": right}, taken is not None
        case "key":
            weighted = keys.weighted_score(answer, row.value)
            exact = keys.named_key(answer) == keys.named_key(row.value)
            found = keys.named_key(answer) is not None
            return {"key": weighted, "key_exact": exact}, found
        case "tempo":
            near, octave = tempo.accuracy(answer, tempo.number(row.value))
            found = tempo.number(answer) is not None
            return {"tempo_acc1": near, "tempo_acc2": octave}, found
        case "instruments":
            said = instruments.heard(answer, heard[row.attribute])
            true = instruments.listed(row.value)
            return {"instruments": instruments.f1(said, true)}, bool(said)
        case "genre":
            genres = {value.lower() for value in values["genre"]}
            said = named_value(answer.lower(), genres)
            return {"genre": said == row.value.lower()}, said is not None
    said = named_value(answer, values[row.attribute])
    name = row.attribute
    # A key that is no key, say "atonal", is named or not, but not near to another.
    name = f"{name}_named" if name in STANDARD else name
    return {name: said == row.value}, said is not None
