"""Whether an answer contradicts what is known of a clip.

    known: key A minor, tempo 112, no drums
    "It is in G major, at 112 BPM."        key: A minor
    "About 220 BPM, in A minor."           –, as 220 is about twice 112
    "A steady drum beat; drums lead."      drums: no
    "It has no drums."                     –

Keys, tempi and the values of exclusive attributes are read from the answer as scores of
evaluations read them (`evaluation/metrics/facts.py`); so what is refused here would
count as wrong there. An answer that names the true value beside another one passes.
"""

import re
from collections.abc import Iterator

from musilingo_jax.corpora.statements import values
from musilingo_jax.corpora.statements.keys import named_key, named_keys
from musilingo_jax.corpora.statements.metres import beats, metres
from musilingo_jax.corpora.statements.modes import modes
from musilingo_jax.corpora.statements.negation import plain
from musilingo_jax.corpora.statements.tempos import single_tempo
from musilingo_jax.evaluation.answered_questions import AnsweredQuestion
from musilingo_jax.evaluation.metrics import facts
from musilingo_jax.instruction.pairs import Pair
from musilingo_jax.instruction.subjects import Subject, Vocabulary, presence_of

_SENTENCE = re.compile(r"(?<=[.!?\n])\s+")
_CHORDS = re.compile(r"\b(?:chords?|triads?|progressions?|arpeggios?)\b", re.IGNORECASE)
_KEYS = re.compile(r"\b(?:keys?|tonality|mode)\b", re.IGNORECASE)
_YES_OR_NO = re.compile(r"\W*(?:yes|no)\s*(?:[,.:;!–—-]\s*|$)", re.IGNORECASE)


def contradicted(pair: Pair, subject: Subject, vocabulary: Vocabulary) -> str | None:
    """The fact that a pair's answer contradicts, such as "key: A minor"; None if none.

    Args:
      pair: a question and its answer.
      subject: what is known of the clip.
      vocabulary: of all clips; of its attributes each clip has one value.
    """
    return next(_contradictions(pair, subject, vocabulary), None)


def _contradictions(
    pair: Pair, subject: Subject, vocabulary: Vocabulary
) -> Iterator[str]:
    for name, value in subject.facts.items():
        if (presence := presence_of(name, value)) is not None:
            thing, is_there = presence
            if _says_there(pair, thing) is (not is_there):
                yield f"{thing}: {'yes' if is_there else 'no'}"
        elif _is_contradicted(name, value, pair, vocabulary):
            yield f"{name}: {value}"
    for tag in subject.tags:
        if _says_there(pair, tag) is False:
            yield f"{tag}: yes"
    absent = {*vocabulary.tags} - {*subject.tags}
    for named in values.stated(_said(pair.answer), vocabulary.tags, plural=True):
        tag = next((t for t in absent if _same(t, named.key)), None)
        if tag is not None:
            yield f"{tag}: no"


def _is_contradicted(name: str, value: str, pair: Pair, vocabulary: Vocabulary) -> bool:
    answer = plain(pair.answer)
    if name in ("key", "mode"):
        answer = _without_chords(answer)
    if name == "mode" and value in ("major", "minor"):
        keys = {key.split()[1] for key in named_keys(answer)}
        said = keys | set(modes(answer))
        return bool(said) and value not in said
    if name == "metre" and value in ("3", "4"):
        plainly = _without_values(answer, vocabulary)
        said = {str(beats(metre)) for metre in metres(plainly)}
        return bool(said) and value not in said
    is_read = named_key(value) is not None or single_tempo(value) is not None
    known = set(vocabulary.values.get(name, ()))
    if "," in value or not (is_read or known):
        return False
    row = AnsweredQuestion(
        clip="",
        question=pair.question,
        reference=answer,
        answer="",
        attribute=name,
        value=value,
        options=(),
        record=None,
        inferred=False,
    )
    return facts.contradicts(row, {name: known | {value}})


def _without_chords(answer: str) -> str:
    """An answer without the sentences whose "A minor" is a chord and not a key."""
    kept = (
        sentence
        for sentence in _SENTENCE.split(answer)
        if not _CHORDS.search(sentence) or _KEYS.search(sentence)
    )
    return " ".join(kept)


def _without_values(answer: str, vocabulary: Vocabulary) -> str:
    """An answer without words that are values themselves, such as the style waltz."""
    words = {word for known in vocabulary.values.values() for word in known}
    spelt = "|".join(re.escape(word) for word in sorted(words) if word.isalpha())
    return re.sub(rf"\b(?:{spelt})\b", "", answer, flags=re.I) if spelt else answer


def _says_there(pair: Pair, thing: str) -> bool | None:
    """Whether an answer says that something is there; None if it does not say.

    A "yes" or "no" at its beginning counts if the question asks for the thing; where it
    asks whether the thing is missing, what follows counts.
    """
    said = _names(_said(pair.answer), thing)
    if said is None and _names(_said(pair.question), thing):
        return values.presence(pair.answer, thing)
    return said


def _names(text: str, thing: str) -> bool | None:
    """Whether a text says that something is there, wherever it says so."""
    # Not the text alone: a "no" at its beginning would be an answer, and not the "no"
    # of "No guitar plays".
    return values.presence(f"Here: {text}", thing)


def _said(text: str) -> str:
    """A text without a "yes" or "no" at its beginning."""
    found = _YES_OR_NO.match(text)
    return text[found.end() :] if found else text


def _same(tag: str, key: str) -> bool:
    return values.key_of(tag, plural=True) == key
