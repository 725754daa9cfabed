"""What annotations state about a song, as questions with answers.

    "genre": ["house", "electronic"]   → "Which genre is it?"
                                         "The genres are house and electronic."
                                         attribute "genre", value "house, electronic"

The answers state their values in words that `evaluation/metrics/facts.py` reads. Which
of the questions is asked follows from the name of the song, so that it is the same
whatever other songs there are.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from musilingo_jax.corpora.clips import Wanted
from musilingo_jax.corpora.survey import SurveyRow


@dataclass(frozen=True)
class _Wording:
    """How a fact is asked for and answered.

    Attributes:
      questions: any of them asks for it.
      one: the answer if it has one value.
      several: the answer if it has more; "" if it cannot.
      most: how many values an answer may have to be scored; the row of one with more
        has no attribute. None if any number can be scored.
    """

    questions: tuple[str, ...]
    one: str
    several: str = ""
    most: int | None = None


_GENRES = (
    "Which genre is it?",
    "What is the genre of this music?",
    "What genre does this song belong to?",
    "Name the genre of this music.",
)
_WORDINGS = {
    "genre": _Wording(_GENRES, "The genre is {}.", "The genres are {}."),
    "genres": _Wording(
        (
            "Which genres and subgenres is it?",
            "What are the genres of this music, in detail?",
            "Name all the genres of this music.",
            "Which genres does this song belong to?",
        ),
        "The genre is {}.",
        "The genres are {}.",
    ),
    "instruments": _Wording(
        (
            "Which instruments are played?",
            "What instruments do you hear?",
            "Name the instruments in this music.",
            "Which instruments are in this song?",
        ),
        "The instrument is {}.",
        "The instruments are {}.",
    ),
    "ensemble": _Wording(
        (
            "For which ensemble is it written?",
            "What kind of ensemble plays?",
            "Name the type of ensemble.",
            "Which ensemble do you hear?",
        ),
        "It is for {}.",
    ),
    "mood": _Wording(
        (
            "What is the mood or theme of this music?",
            "Which mood or theme does it have?",
            "What does this music feel like, or what is it for?",
            "Name the mood or theme.",
        ),
        "The mood or theme is {}.",
        "The moods and themes are {}.",
        most=1,
    ),
    "key": _Wording(
        (
            "What is the key?",
            "In which key is this music?",
            "What key is this song in?",
            "Name the key.",
        ),
        "The key is {}.",
    ),
    "tempo": _Wording(
        (
            "What is the tempo in beats per minute?",
            "How many beats per minute does it have?",
            "Name the tempo in BPM.",
            "What is the BPM of this music?",
        ),
        "The tempo is {} BPM.",
    ),
    "pace": _Wording(
        (
            "Is it fast or slow?",
            "Is the music slow or fast?",
            "Does it move fast or slowly?",
            "What is the pace?",
        ),
        "It is {}.",
    ),
    "vocals": _Wording(
        (
            "Are there vocals?",
            "Does anyone sing?",
            "Do you hear vocals?",
            "Is there singing?",
        ),
        "{}.",
    ),
    "tags": _Wording(
        (
            "Which tags describe this music?",
            "Tag this music.",
            "List words that describe this music.",
            "What tags would you give this song?",
        ),
        "{}.",
        "{}.",
        most=0,
    ),
}
# Words of the sentence around a value would be read as another value of the attribute.
_SENTENCES = {
    "vocals": {"yes": "Yes, there are vocals", "no": "No, there are no vocals"}
}


def rows(
    facts: Mapping[str, Sequence[str]], *, where: str, sound: Wanted, split: str
) -> Iterator[SurveyRow]:
    """A question and its answer for each attribute that has a value.

    Args:
      facts: attribute → its values, none of which contains a comma; attributes are
        those of this module: genre, genres (with subgenres), instruments, ensemble,
        mood, key, tempo (in BPM), pace (fast or slow), vocals (yes or no), tags.
      where: the annotation is, as in `SurveyRow`.
      sound: the song.
      split: of the song.

    Yields:
      The rows. If there is no value at all, one row without an answer, which the survey
      counts and lists.
    """
    stated = {name: list(dict.fromkeys(values)) for name, values in facts.items()}
    if not any(stated.values()):
        first = next(iter(stated))
        yield SurveyRow(where, sound, _question(first, sound), "", split)
    for name, values in stated.items():
        if not values:
            continue
        most = _WORDINGS[name].most
        scored = most is None or len(values) <= most
        yield SurveyRow(
            where=where,
            sound=sound,
            question=_question(name, sound),
            answer=_answer(name, values),
            split=split,
            attribute=name if scored else None,
            value=", ".join(values) if scored else None,
        )


def _question(attribute: str, sound: Wanted) -> str:
    asked = _WORDINGS[attribute].questions
    return asked[zlib.crc32(sound.names[0].encode()) % len(asked)]


def _answer(attribute: str, values: Sequence[str]) -> str:
    wording = _WORDINGS[attribute]
    sentences = _SENTENCES.get(attribute, {})
    *others, last = [sentences.get(value, value) for value in values]
    if not others:
        return wording.one.format(last)
    return wording.several.format(f"{', '.join(others)} and {last}")
