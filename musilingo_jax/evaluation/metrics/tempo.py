"""Tempo in beats per minute: within 4 %, or off by a factor of two or three."""

import re

_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_STATED = re.compile(
    r"""(?P<from>(?<![\w./]) [0-9.]+ \s* (?:-|–|—|to|or|and) \s*)? (?<![\w./])
    (?P<number>[0-9]+(?:\.[0-9]+)?) [\s-]* (?:bpm\b|beats[ ](?:per|a)[ ]minute\b)""",
    re.VERBOSE | re.IGNORECASE,
)
_ALONE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*\.?\s*")
_TOLERANCE = 0.04 + 1e-9  # A deviation of exactly 4 % counts, whatever the rounding.
_FACTORS = (1, 2, 3, 1 / 2, 1 / 3)


def number(text: str) -> float | None:
    """The first number of a text; None if it has none.

    "About 120.5 BPM" → 120.5
    "In 4/4, at 120"  → 4.0
    """
    found = _NUMBER.search(text)
    return None if found is None else float(found[0])


def stated(text: str) -> str | None:
    """The tempo that a text states, as written; None if it does not state exactly one.

    That is a number with its unit, or nothing but a number.

    "In 4/4, at 120 BPM"     → "120"
    "97.5"                   → "97.5"
    "It has 2 slow sections" → None
    "90 to 120 BPM"          → None: a range
    """
    if alone := _ALONE.fullmatch(text):
        return alone[1]
    found = list(_STATED.finditer(text))
    numbers = {match["number"] for match in found}
    if len(numbers) != 1 or any(match["from"] for match in found):
        return None
    return numbers.pop()


def accuracy(answer: str, value: float) -> tuple[bool, bool]:
    """Whether the first number of an answer is the tempo (Gouyon et al. 2006).

    Returns:
      Accuracy 1: within 4 % of the tempo. Accuracy 2: within 4 % of the tempo, or of
      twice, three times, half or a third of it.
    """
    answered = number(answer)
    if answered is None:
        return False, False
    near = [abs(answered - value * f) <= _TOLERANCE * value * f for f in _FACTORS]
    return near[0], any(near)
