"""How LLark's notebooks read answers (Gardner et al. 2024; spotify-research/llark).

Its module `m2t.evaluation.utils` was never released. What is needed of it here follows
the paper: names of keys become GiantSteps' own, with flats, and tempi are compared as
in `metrics.tempo`.
"""

import re
from collections.abc import Collection

from musilingo_jax.corpora.statements.tempos import Tempo

# The 24 names of keys in GiantSteps' annotations.
KEYS = tuple(
    f"{note} {mode}"
    for mode in ("major", "minor")
    for note in ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
)
_FLATS = {"C#": "Db", "D#": "Eb", "F#": "Gb", "G#": "Ab", "A#": "Bb"}
_KEY = re.compile(r"[\w+#]+\s(?:major|minor)")
_NUMBER = re.compile(r"\d+(?:\.\d+)*")
_NO_LETTERS = re.compile(r"\W+")


def key(answer: str) -> str | None:
    """The key that an answer names by the published rule, of `KEYS`; None if none.

    The first word before “major” or “minor”, both in lower case, if it is the name of a
    note. “C sharp” and “A-flat” are read; “A flat” is the word “flat”; and what stands
    first counts, so that “a minor key” is no key, and hides one that follows.
    """
    for spelt in (" sharp", "-sharp", "sharp"):
        answer = answer.replace(spelt, "#")
    found = _KEY.search(answer.replace("-flat", "b"))
    if found is None:
        return None
    note, mode = found[0].split()
    named = f"{_FLATS.get(note, note)} {mode}"
    return named if named in KEYS else None


def tempo(answer: str) -> Tempo | None:
    """The first number of an answer, the published rule; None if it has none.

    What looks like a version, “1.2.3”, ends the published script; here it is no tempo.
    """
    found = _NUMBER.search(answer)
    if found is None or found[0].count(".") > 1:
        return None
    return Tempo(float(found[0]), float(found[0]))


def says_genre(answer: str, genre: str) -> bool:
    """Whether an answer contains a genre of GTZAN by the published rule.

    As letters anywhere: “pop” is in “popular”, and “rock and jazz” is right for both.
    Hyphens become spaces first, and of two words only “Hip Hop” and “hip hop” become
    “hiphop”, so that “Hip-hop” is nothing.
    """
    text = _NO_LETTERS.sub(" ", answer)
    for spelt in ("Hip Hop", "hip hop"):
        text = text.replace(spelt, "hiphop")
    return genre in text.lower()


def says_instrument(answer: str, word: str) -> bool:
    """Whether an answer contains an instrument of MedleyDB by the published rule.

    As letters anywhere, in a sentence, which ends at a full stop, without “ no ”. So
    “bass” is in “bassoon”, and “piano, but no drums” has no piano.
    """
    sentences = (each for each in answer.split(".") if " no " not in each)
    return any(word in each.lower() for each in sentences)


def counts(
    answer: str, active: Collection[str], every: Collection[str]
) -> tuple[int, int, int]:
    """Instruments of MusicNet that an answer names rightly, wrongly, and not at all.

    As letters anywhere in the answer, in lower case there.

    Args:
      answer: the answer.
      active: the instruments that play.
      every: all instruments.
    """
    named = {name for name in every if name in answer}
    right = len(named & set(active))
    return right, len(named) - right, len(active) - right
