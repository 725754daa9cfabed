"""Scores of what answers say about the music: whether they state the true value."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from musilingo_jax.corpora.statements import values as stated_values
from musilingo_jax.corpora.statements.keys import named_key, named_keys
from musilingo_jax.corpora.statements.tempos import single_tempo, tempos
from musilingo_jax.corpora.statements.tempos import tempo as stated_tempo
from musilingo_jax.evaluation.answered_questions import AnsweredQuestion
from musilingo_jax.evaluation.metrics import choices, instruments, keys, tempo
from musilingo_jax.evaluation.metrics.naming import named_value

# Scores with a protocol of their own. Any other attribute has one score, under its own
# name: whether the one value that the answer states is the true one.
#
# A protocol reads an answer as a musician would, in any notation, without what it
# denies. Beside it stands the rule of published tables, to compare with them.
PUBLISHED = "_published"
STANDARD = {
    "key": "MIREX's weighted score of the key that the answer states, in any notation "
    "(mir_eval; a fifth above 0.5, relative 0.3, parallel 0.2; no key 0)",
    "key_exact": "the key that the answer states is the true one",
    "key_published": "MIREX's weighted score of the first note with “major” or “minor”",
    "tempo_acc1": "the tempo that the answer states (with its unit or name, else the "
    "first number that is no time signature, year or count) is within 4 %; of a range, "
    "both ends",
    "tempo_acc2": "… or within 4 % of twice, three times, half or a third of it",
    "tempo_acc1_published": "the first number of the answer, whatever it counts, is "
    "within 4 % of the tempo",
    "tempo_acc2_published": "… or within 4 % of twice, three times, half or a third",
    "instruments": "F1 of the instruments that the answer states and does not deny, "
    "mean over tracks",
    "instruments_published": "the same, but singular is not plural, and whole "
    "sentences with “no” are ignored",
    "genre": "the answer states the true genre and no other",
    "genre_published": "the answer contains the true genre as it is written, in upper "
    "or lower case, and no other",
    "multiple_choice": "the answer chooses the right option, by its text, by its "
    "letter in any usual form, or by both; two different options count as none",
    "multiple_choice_published": "MuChoMusic's rule: the only option letter anywhere "
    "in the answer, else the first option whose text it contains, else none, which "
    "counts as wrong",
}
# Attributes that have a protocol, by the names that corpora give them.
_PROTOCOLS = {
    "key": "key",
    "keyscale": "key",
    "tonality": "key",
    "musical key": "key",
    "tempo": "tempo",
    "bpm": "tempo",
    "instruments": "instruments",
    "instrument": "instruments",
    "genre": "genre",
    "genres": "genre",
}
_LIST = re.compile(r"[,;|]")  # between several genres of one value
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
    found = _PROTOCOLS.get(row.attribute.strip().lower(), "named")
    if found == "key" and named_key(row.value) is None:
        return "named"
    if found == "tempo" and single_tempo(row.value) is None:
        return "named"
    return found


def contradicts(row: AnsweredQuestion, values: Mapping[str, set[str]]) -> bool:
    """Whether a row's reference states another value than the row's own, and not it.

    Such a row is mistaken in one of the two. A reference that states no value ("Yes.",
    a description) is not.
    """
    if protocol(row) is None:
        return False
    text, true, attribute = row.reference, row.true_value, row.attribute or ""
    match protocol(row):
        case "key":
            found = set(named_keys(text))
            return bool(found) and named_key(true) not in found
        case "tempo" if (bpm := single_tempo(true)) is not None:
            near = [tempo.accuracy(each, bpm)[1] for each in tempos(text)]
            return bool(near) and not any(near)
        case "genre":
            named = _named(text, _genres(values[attribute]), attribute)
            return bool(named) and not named & _keys(_genres([true]))
        case "named":
            named = _named(text, values[attribute], attribute)
            return bool(named) and not named & _keys([true])
    return False


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
            right = choices.right(true, row.options)
            option = choices.chosen(answer, row.options)
            published = choices.published_choice(answer, row.options)
            return {
                "multiple_choice": option == right,
                "multiple_choice_published": published == right,
            }, option is not None
        case "key":
            key = named_key(answer)
            published_key = keys.published_key(answer)
            return {
                "key": keys.weighted_score(key, true),
                "key_exact": key == named_key(true),
                "key_published": keys.weighted_score(published_key, true),
            }, key is not None
        case "tempo" if (bpm := single_tempo(true)) is not None:
            found = stated_tempo(answer)
            near, octave = tempo.accuracy(found, bpm)
            first = tempo.accuracy(tempo.published_tempo(answer), bpm)
            return {
                "tempo_acc1": near,
                "tempo_acc2": octave,
                "tempo_acc1_published": first[0],
                "tempo_acc2_published": first[1],
            }, found is not None
        case "instruments":
            played = instruments.named(answer, classes[attribute])
            listed = instruments.listed(true)
            published = instruments.published_named(answer, classes[attribute])
            return {
                "instruments": instruments.f1(played, instruments.keys_of(listed)),
                "instruments_published": instruments.f1(published, listed),
            }, bool(played)
        case "genre":
            named = _named(answer, _genres(values[attribute]), attribute)
            genres = {value.lower() for value in values[attribute]}
            published = named_value(answer.lower(), genres)
            return {
                "genre": bool(named) and named <= _keys(_genres([true])),
                "genre_published": published == true.lower(),
            }, bool(named)
    named = _named(answer, values[attribute], attribute)
    # A value such as "atonal" is not a key: it can be stated, but it is near no key.
    name = f"{attribute}_named" if attribute in STANDARD else attribute
    return {name: named == _keys([true])}, bool(named)


def _named(answer: str, values: set[str], attribute: str) -> set[str]:
    """The keys of the values that an answer states.

    If the values are "yes" and "no", or "drums" and "no drums", also those that follow
    from what the answer says is there.
    """
    named = {found.key for found in stated_values.stated(answer, values)}
    if all(stated_values.is_yes_or_no(value) is not None for value in values):
        there = stated_values.presence(answer, attribute)
        return {
            stated_values.key_of(value)
            for value in values
            if stated_values.is_yes_or_no(value) is there
        }
    by_key = {stated_values.key_of(value): value for value in values}
    for key, value in () if named else by_key.items():
        if f"no{key}" in by_key:
            there = stated_values.presence(answer, value)
            named |= set() if there is None else {key if there else f"no{key}"}
    return named


def _genres(values: Iterable[str]) -> set[str]:
    """Single genres: a value may list several, as in "rock, pop"."""
    return {part.strip() for value in values for part in _LIST.split(value)} - {""}


def _keys(values: Iterable[str]) -> set[str]:
    return {stated_values.key_of(value) for value in values}
