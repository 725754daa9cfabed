"""The metre that a text states: 3/4, "waltz time", "in common time"."""

import re
from collections.abc import Iterator

from musilingo_jax.corpora.statements.negation import Denials, plain

_SIGNATURE = re.compile(
    r"(?<![\w/.,]) (?P<beats>1?\d) / (?P<unit>2|4|8|16) (?![\w/]) (?!\s+(?:of|inch)\b)",
    re.VERBOSE,
)
_COUNTED = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "nine": 9}
_COUNTED["twelve"] = 12
_UNITS = {"four": 4, "eight": 8}
_SPOKEN = re.compile(
    rf"\b(?P<beats>{'|'.join(_COUNTED)})-(?P<unit>{'|'.join(_UNITS)})\b", re.IGNORECASE
)
_NAMED = {
    re.compile(r"\bwaltz(?:es)?\b", re.IGNORECASE): "3/4",
    re.compile(r"\btriple\s+(?:met(?:re|er)|time)\b", re.IGNORECASE): "3/4",
    re.compile(r"\b(?:common\s+time|quadruple\s+met(?:re|er))\b", re.IGNORECASE): "4/4",
    re.compile(r"\bduple\s+(?:met(?:re|er)|time)\b", re.IGNORECASE): "2/4",
    re.compile(r"\bcut\s+time\b", re.IGNORECASE): "2/2",
}
_BAR = r"[\s-]+beats?\s+(?:in|to|per)\s+(?:(?:a|each|the|every)\s+)?(?:bar|measure)\b"
_NAMED |= {
    re.compile(rf"\b(?:{words}){_BAR}", re.IGNORECASE): name
    for words, name in (("two|2", "2/4"), ("three|3", "3/4"), ("four|4", "4/4"))
}


def metres(text: str) -> list[str]:
    """The metres that a text states and does not deny, in their order.

    "A waltz, in 3/4."             → "3/4", "3/4"
    "six-eight time, not 4/4"      → "6/8"
    "three beats in a bar"         → "3/4"
    "3/4 of the song"              → nothing
    """
    text = plain(text)
    denials = Denials(text)
    found = sorted(_found(text))
    return [name for start, end, name in found if (start, end) not in denials]


def beats(metre: str) -> int:
    """3 for bars of threes, 4 for bars of twos and fours, else the beats themselves.

    Who counts beats by ear hears 6/8 as threes, and cannot tell 2/4 from 4/4:

        3/4  3/8  6/8  9/8    → 3
        2/2  2/4  4/4  12/8   → 4
        5/4  7/8              → 5, 7

    Args:
      metre: as `metres` spells it.
    """
    count = int(metre.partition("/")[0])
    if count in (3, 6, 9):
        return 3
    return 4 if count in (2, 4, 8, 12) else count


def _found(text: str) -> Iterator[tuple[int, int, str]]:
    for match in _SIGNATURE.finditer(text):
        if int(match["beats"]):
            yield *match.span(), f"{int(match['beats'])}/{match['unit']}"
    for match in _SPOKEN.finditer(text):
        counted = _COUNTED[match["beats"].lower()], _UNITS[match["unit"].lower()]
        yield *match.span(), f"{counted[0]}/{counted[1]}"
    for pattern, name in _NAMED.items():
        for match in pattern.finditer(text):
            yield *match.span(), name
