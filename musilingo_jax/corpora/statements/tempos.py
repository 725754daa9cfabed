"""The tempo that a text states, in beats per minute.

    120 BPM   120bpm   about 120.5 beats per minute   BPM: 120   a tempo of 120
    ♩ = 120   one hundred and twenty BPM   2 beats per second   118 to 122 BPM   120

Numbers of other things (4/4, 1990s, 16 bars) are not tempi.
"""

import re
from typing import NamedTuple

from musilingo_jax.corpora.statements.negation import Denials, plain

_ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen"),
    *("seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_VALUES = {word: number for number, word in enumerate(_ONES)}
_VALUES |= {word: 10 * number for number, word in enumerate(_TENS, start=2)}
_SPOKEN = rf"(?:{'|'.join(sorted(_VALUES, key=len, reverse=True))}|hundred)"
_IN_WORDS = re.compile(
    rf"\b(?:a\s+(?=hundred))?{_SPOKEN}(?:[\s-]+(?:and[\s-]+)?{_SPOKEN})*\b",
    re.IGNORECASE,
)
_DIGITS = r"[0-9]{1,6}(?:[.,][0-9]{1,6})?"
_LOW, _NUMBER = f"(?P<low>{_DIGITS})", f"(?P<number>{_DIGITS})"
_APART = r"(?<![\w.,/:])"
_UNIT = r"""(?: b\.?\s?p\.?\s?m\b\.?s? | (?:quarter[\s-]+notes?|crotchets?)\s+per\s+min
    | beats? \s* (?:per|a|/|each|every) \s* min(?:ute)?s?\b | beats?/min
    | (?P<second> beats? \s* (?:per|a|/) \s* s(?:ec(?:ond)?)?\b) )"""
_RANGE = r"\s* (?:-|–|—|~|to|or|and) \s*"
# "between 90 and 120 BPM", "120 BPM"
_WITH_UNIT = re.compile(
    rf"""(?: {_APART} {_LOW} \s* (?:bpm)? {_RANGE})?
    {_APART} {_NUMBER} [\s-]* \(? \s* {_UNIT}""",
    re.VERBOSE | re.IGNORECASE,
)
# "BPM: 120", "a tempo of about 90 to 120", "♩ = 120"
_AFTER_NAME = re.compile(
    rf"""(?: \b(?:bpm|tempo|beats?\s+per\s+minute|speed|metronome) \b [\s"'*)]*
            (?: (?:is|of|at|was|would\s+be|seems\s+to\s+be) \b | [:=] )?
          | [♩♪] \s* = | \bquarter(?:\s+note)? \s* = )
    [\s"'*]* (?: (?:likely|probably|around|about|approximately|roughly|nearly|exactly
                 |circa|ca\.|c\.|between|from|[~≈]) \s* )*
    (?: {_LOW} {_RANGE})?
    {_NUMBER}
    (?! [\d/:%] | (?:st|nd|rd|th|s)\b | \s*(?:bars?|measures?|sections?)\b)""",
    re.VERBOSE | re.IGNORECASE,
)
_ALONE = re.compile(
    rf"""[\s"'*(~≈]* (?: (?:about|around|approximately|roughly|circa|ca\.?) \s+ )?
    (?: {_APART} {_LOW} {_RANGE})? {_APART} {_NUMBER} [\s"'*).!]*""",
    re.VERBOSE | re.IGNORECASE,
)
# A number of something else: 4/4, 1990s, 16 bars, 3rd, 50 %, track 7.
_FREE = re.compile(
    rf"""{_APART} {_NUMBER}
    (?! [\w/:%#] | [.,]?\d | \s* (?:%|percent\b|bars?\b|measures?\b|beats?\b|sec|min
        |hours?\b|hz\b|khz\b|db\b|years?\b|notes?\b|chords?\b|sections?\b|parts?\b|times?\b
        |songs?\b|tracks?\b|instruments?\b|voices?\b|strings?\b|layers?\b|-))""",
    re.VERBOSE | re.IGNORECASE,
)
_FREE_RANGE = (20.0, 400.0)  # of a tempo whose unit is not given


class Tempo(NamedTuple):
    """A stated tempo: its lowest and highest number, the same for a single one."""

    low: float
    high: float


def tempos(text: str) -> list[Tempo]:
    """The tempos that a text states with their unit or name, or as its only content.

    A range is stated by both of its ends.

        "In 4/4, at 120 BPM"               → 120
        "around one hundred bpm"           → 100
        "97.5"                             → 97.5
        "It has 2 slow sections"           → nothing
        "between 90 and 120 BPM"           → 90 to 120
        "not 60 but 120 beats a minute"    → 120
    """
    text = _in_digits(plain(text))
    if alone := _ALONE.fullmatch(text):
        return [_tempo(alone)]
    denials = Denials(text)
    found, end = [], 0
    matches = [*_WITH_UNIT.finditer(text), *_AFTER_NAME.finditer(text)]
    for match in sorted(matches, key=lambda match: (match.start(), -match.end())):
        if match.start("number") >= end and match.span("number") not in denials:
            found.append(_tempo(match))
            end = match.end()
    return found


def tempo(text: str) -> Tempo | None:
    """The tempo that a text states; None if it states none.

    The first of `tempos`; else the first number from 20 to 400 that is nothing else: a
    time signature, a year, a number of bars.

        "It is 120, in 4/4"       → 120
        "a song of the 1990s"     → None
    """
    if found := tempos(text):
        return found[0]
    text = _in_digits(plain(text))
    denials = Denials(text)
    for match in _FREE.finditer(text):
        number = _tempo(match)
        is_tempo = _FREE_RANGE[0] <= number.low <= _FREE_RANGE[1]
        if is_tempo and match.span("number") not in denials:
            return number
    return None


def single_tempo(text: str) -> float | None:
    """The tempo of a text that states exactly one, and no range; else None."""
    found = set(tempos(text))
    if len(found) != 1:
        return None
    (only,) = found
    return only.low if only.low == only.high and only.low > 0 else None


def _tempo(match: re.Match[str]) -> Tempo:
    groups = match.groupdict()
    factor = 60.0 if groups.get("second") else 1.0
    high = factor * _value(groups["number"])
    low = factor * _value(groups["low"]) if groups.get("low") else high
    return Tempo(min(low, high), max(low, high))


def _value(digits: str) -> float:
    return float(digits.replace(",", "."))


def _in_digits(text: str) -> str:
    """The text with numbers from 20 to 999 in digits: "one hundred five" → "105"."""

    def digits(found: re.Match[str]) -> str:
        number = _spoken(re.findall(_SPOKEN, found[0].lower()))
        return found[0] if number is None or number < 20 else str(number)

    return _IN_WORDS.sub(digits, text)


def _spoken(words: list[str]) -> int | None:
    """The number that words name, also as in "one twenty"; None if they name none."""
    if "hundred" in words:
        place = words.index("hundred")
        hundreds = 1 if place == 0 else _spoken(words[:place])
        rest = _spoken(words[place + 1 :]) if words[place + 1 :] else 0
        if hundreds is None or rest is None or hundreds > 9 or rest > 99:
            return None
        return 100 * hundreds + rest
    numbers = [_VALUES[word] for word in words]
    if len(numbers) == 1:
        return numbers[0]
    if len(numbers) == 2 and numbers[0] >= 20 and 0 < numbers[1] < 10:
        return sum(numbers)  # "ninety five"
    if 1 <= numbers[0] <= 3 and len(numbers) <= 3 and numbers[1] >= 10:
        rest = _spoken(words[1:])
        return None if rest is None else 100 * numbers[0] + rest  # "one twenty"
    return None
