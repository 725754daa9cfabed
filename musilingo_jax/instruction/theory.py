"""What follows from a key, a tempo and a metre, in the spelling of musicians.

A minor         relative C major     dominant E major
F sharp minor            A major              C sharp major
Eb major                 C minor              Bb major
"""

import re
from typing import NamedTuple

from musilingo_jax.corpora.statements.keys import MODES, named_key
from musilingo_jax.corpora.statements.tempos import single_tempo
from musilingo_jax.instruction.subjects import Subject

_LETTERS = "CDEFGAB"
_SEMITONES = (0, 2, 4, 5, 7, 9, 11)  # of the letters, above C
_SIGNS = {"": 0, "#": 1, "♯": 1, "sharp": 1, "b": -1, "♭": -1, "flat": -1}
_SPELLED = re.compile(
    r"(?P<letter>[A-G])[\s-]?(?P<sign>#|♯|♭|b|sharp|flat)?\s+(?P<mode>major|minor)"
)
_BEATS = {"3": 3, "4": 4}


class Key(NamedTuple):
    """A key.

    Attributes:
      letter: of its tonic, as a place in "CDEFGAB".
      sign: sharps of the tonic; flats are negative.
      mode: "major" or "minor".
      words: whether signs are written as words, "F sharp".
    """

    letter: int
    sign: int
    mode: str
    words: bool

    def __str__(self) -> str:
        sharp, flat = (" sharp", " flat") if self.words else ("#", "b")
        signs = sharp * self.sign if self.sign > 0 else flat * -self.sign
        return f"{_LETTERS[self.letter]}{signs} {self.mode}"

    @property
    def relative(self) -> "Key":
        """The key of the other mode with the same signature."""
        if self.mode == "minor":
            return self._moved(2, 3, "major")
        return self._moved(5, 9, "minor")

    @property
    def parallel(self) -> "Key":
        """The key of the other mode with the same tonic."""
        return self._replace(mode=MODES[1 - MODES.index(self.mode)])

    @property
    def dominant(self) -> "Key":
        """The triad that leads back to the tonic, major in both modes."""
        return self._moved(4, 7, "major")

    def _moved(self, letters: int, semitones: int, mode: str) -> "Key":
        """The key above by an interval, whose letter is as musicians count it."""
        letter = (self.letter + letters) % 7
        target = _SEMITONES[self.letter] + self.sign + semitones
        sign = (target - _SEMITONES[letter] + 6) % 12 - 6
        return Key(letter, sign, mode, self.words)


def key_of(subject: Subject) -> Key | None:
    """Its key, as its value spells it; None if it is unknown, or not one of the 24."""
    value = subject.facts.get("key", "").strip()
    found = _SPELLED.fullmatch(value) or _SPELLED.fullmatch(named_key(value) or "")
    if found is None:
        return None
    sign = found["sign"] or ""
    letter = _LETTERS.index(found["letter"])
    return Key(letter, _SIGNS[sign], found["mode"], words=len(sign) > 1)


def bpm_of(subject: Subject) -> int | None:
    """Its tempo, rounded; None if it is unknown, or not a number."""
    found = single_tempo(subject.facts.get("tempo", ""))
    return None if found is None else round(found)


def beats_of(subject: Subject) -> int | None:
    """Beats in a bar, 3 or 4; None if they are unknown."""
    return _BEATS.get(subject.facts.get("metre", ""))
