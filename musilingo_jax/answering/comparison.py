"""Questions that compare songs, for a model that hears one song at a time.

Such a model was never shown two songs together, and what it says to "is b.ogg faster?"
with one of them in its prompt is worth nothing. But it can be asked the same plain
question about each. What its answers state can then be compared, by rules:

    Is the first one faster than b.ogg?

    a.ogg: The tempo is slow.              to "What is the tempo?"
    b.ogg: It is fast.                     to "What is the tempo?"
    By these answers, b.ogg is faster.     nothing, unless both state a tempo
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from musilingo_jax.answering.song_names import named
from musilingo_jax.corpora.statements.keys import named_keys
from musilingo_jax.corpora.statements.tempos import single_tempo

_PACES = {"slow": 0, "medium": 1, "moderate": 1, "fast": 2}
_QUALITIES = (
    *("fast", "slow", "quick", "loud", "quiet", "soft", "sad", "calm", "bright"),
    *("dark", "long", "short", "high", "low", "happi"),
)
_MORE = rf"(?:(?:{'|'.join(_QUALITIES)}|sadd)e?r|(?:more|less) \w+)\b"
_MOST = rf"(?:(?:{'|'.join(_QUALITIES)}|sadd)e?st|(?:most|least) \w+)\b"
_SEEMS = r"\b(?:is|are|was|were|has|have|sounds?|plays?|seems?|feels?)\b"
_RELATES = r"\b(?:compar\w*|differ\w*|same|similar\w*|alike|in common|than)\b"
_THEM = r"\b(?:they|them|these|those|the two|both|songs|tracks|pieces)\b"
_WHICH = (
    r"\b(?:which|(?:which|what) (?:song|one|track|piece|clip|recording|file)"
    r"|which of (?:them|these|those|the two)(?: \w+)?)"
    rf" {_SEEMS}.*\b(?:{_MORE}|{_MOST})"
)


@dataclass(frozen=True)
class Aspect:
    """Something in which songs may differ.

    Attributes:
      words: pattern of those that ask for it.
      question: with which a model is asked for it about one song.
      conclude: what follows from the names of songs and the answers about them; ""
        unless each of them states one value.
    """

    words: str
    question: str
    conclude: Callable[[Sequence[str], Sequence[str]], str]


def no_conclusion(names: Sequence[str], answers: Sequence[str]) -> str:
    """Nothing follows."""
    del names, answers
    return ""


def _tempos(names: Sequence[str], answers: Sequence[str]) -> str:
    numbers = [single_tempo(answer) for answer in answers]
    words = [_pace(answer) for answer in answers]
    values = numbers if all(numbers) else words
    known = [value for value in values if value is not None]
    if len(known) < len(names):
        return ""
    if len(set(known)) == 1:
        return "By these answers, their tempo is the same."
    order = sorted(zip(known, names, strict=True), key=lambda pair: pair[0])
    if len(names) == 2:
        return f"By these answers, {order[1][1]} is faster."
    groups = [
        " and ".join(name for value, name in order if value == each)
        for each in sorted(set(known))
    ]
    return f"By these answers, from slow to fast: {', '.join(groups)}."


def _is_plain(answer: str) -> bool:
    """Whether an answer denies nothing."""
    return not re.search(r"\b(?:not?|never|neither|nor)\b|n['’]t\b", answer.lower())


def _pace(answer: str) -> int | None:
    """The only pace that an answer names; None if it denies something."""
    words = re.findall(r"\w+", answer.lower())
    found = {_PACES[word] for word in words if word in _PACES}
    return found.pop() if len(found) == 1 and _is_plain(answer) else None


def _keys(names: Sequence[str], answers: Sequence[str]) -> str:
    del names
    keys = [set(named_keys(answer)) for answer in answers]
    if any(len(found) != 1 for found in keys):
        return ""
    return _agreement({found.pop() for found in keys}, "key")


def _modes(names: Sequence[str], answers: Sequence[str]) -> str:
    del names
    modes = [set(re.findall(r"\b(?:major|minor)\b", one.lower())) for one in answers]
    if any(len(found) != 1 for found in modes) or not all(map(_is_plain, answers)):
        return ""
    return _agreement({found.pop() for found in modes}, "mode")


def _agreement(values: set[str], what: str) -> str:
    if len(values) > 1:
        return f"By these answers, they are not in the same {what}."
    return f"By these answers, they are in the same {what}, {values.pop()}."


ASPECTS = (
    Aspect(
        r"\b(?:fast|slow|quick)\w*|\btempo\b|\bpace\b|\bspeed\b|\bbpm\b",
        "What is the tempo?",
        _tempos,
    ),
    Aspect(r"\bkeys?\b", "Which key is it in?", _keys),
    Aspect(r"\bmajor\b|\bminor\b|\bmodes?\b", "Is it in major or minor?", _modes),
    Aspect(
        r"\bgenres?\b|\bstyles?\b|\bkinds? of music\b",
        "What style of music is this?",
        no_conclusion,
    ),
    Aspect(r"\bdrum\w*", "Do you hear drums?", no_conclusion),
    Aspect(
        r"\bmelod\w*|\blead\w*", "Which instrument plays the melody?", no_conclusion
    ),
    Aspect(r"\binstrument\w*", "Tell me about the instruments.", no_conclusion),
    Aspect(
        r"\bmoods?\b|\bfeel\w*|\b(?:happ|sad|calm|bright|dark)\w*",
        "What is the mood of this music?",
        no_conclusion,
    ),
)
_WHOLE = Aspect("", "Describe this music in detail.", no_conclusion)


@dataclass(frozen=True)
class Asked:
    """What the model is asked.

    Attributes:
      songs: their numbers, from 0.
      question: that each of them is asked.
      aspect: what a question compares them in; None if it does not compare.
    """

    songs: Sequence[int]
    question: str
    aspect: Aspect | None = None

    @property
    def conclude(self) -> Callable[[Sequence[str], Sequence[str]], str]:
        """What follows from the answers, as of `Aspect`."""
        return no_conclusion if self.aspect is None else self.aspect.conclude

    @property
    def notice(self) -> str:
        """How a question about several songs is put; "" for one about one of them."""
        if self.aspect is not None:
            return (
                "the model hears one song at a time and cannot compare: each was asked "
                f"{self.question!r}"
            )
        if len(self.songs) > 1:
            return "the model hears one song at a time: each is asked on its own"
        return ""


def asked(text: str, names: Sequence[str], current: int) -> Asked:
    """What a model that hears one song at a time is asked, for a question.

    >>> asked("How fast is it?", ["a.ogg", "b.ogg"], 1)
    Asked(songs=[1], question='How fast is it?', aspect=None)
    >>> asked("How fast are both songs?", ["a.ogg", "b.ogg"], 1)
    Asked(songs=[0, 1], question='How fast is this song?', aspect=None)
    >>> asked("Which one is faster?", ["a.ogg", "b.ogg"], 1).question
    'What is the tempo?'

    Args:
      text: the question.
      names: of the songs, in the order in which they were added.
      current: the song that a question is about which names none.
    """
    numbers, question = named(text, names)
    compared = _compared(text, numbers, len(names))
    if len(compared) < 2:
        return Asked(numbers or [current], question)
    aspect = next((a for a in ASPECTS if re.search(a.words, text.lower())), _WHOLE)
    return Asked(compared, aspect.question, aspect)


def _compared(text: str, numbers: Sequence[int], songs: int) -> Sequence[int]:
    """The songs that a question compares; none if it does not."""
    text = text.lower()

    def has(pattern: str) -> bool:
        return re.search(pattern, text) is not None

    if songs < 2:
        return []
    if len(numbers) > 1:
        return numbers if has(rf"{_RELATES}|{_SEEMS}.*\b{_MORE}|{_WHICH}") else []
    if numbers:
        # "Is the second one faster?", of two songs; not "than before", nor "getting".
        other = has(r"\bthan (?:the )?other\b") or not has(
            r"\bthan\b|\b(?:get|becom|grow)\w*"
        )
        is_more = has(rf"^(?:and )?{_SEEMS}.*\b{_MORE}")
        return range(2) if songs == 2 and other and is_more else []
    if has(r"^compare[.!]?$") or (has(_RELATES) and has(_THEM)):
        return range(songs)
    return range(songs) if has(_WHICH) and not has(r"\bor\b") else []
