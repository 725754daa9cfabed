"""Multiple choice, by the rule of MuChoMusic (Weck et al. 2024), but for whole texts.

That rule looks for letters first, and so reads "A flute" as option A.
"""

from collections.abc import Sequence

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_PREFIX = "The correct answer is:"
# What may stand around an option's text without being part of an answer.
_AROUND = " \t\n.!?:;,\"'“”‘’()[]*"


def chosen(answer: str, options: Sequence[str]) -> int | None:
    """The option that an answer takes; None if it takes none: unanswered.

    If the answer is an option's text and nothing more, in any case, that one. Else, if
    exactly one of the letters A, B, … stands in the answer, that one; every capital
    letter counts, wherever it stands, so that "By drums" is B. Else the first option
    whose text the answer holds.

        options: "A piano", "A flute", "Drums"
        "A flute."                   → 1
        "(B)"                        → 1
        "I hear A or B: a flute."    → 1   two letters, so by the text
        "no idea"                    → None

    Args:
      answer: what was said; what precedes "The correct answer is:" is not looked at.
      options: their texts, in the order of the letters.
    """
    said = answer.split(_PREFIX)[-1]
    texts = [_plain(option) for option in options]
    if (whole := _plain(said)) in texts:
        return texts.index(whole)
    letters = set(LETTERS[: len(options)]) & set(said)
    if len(letters) == 1:
        return LETTERS.index(letters.pop())
    said = said.lower()
    for place, option in enumerate(options):
        if option.lower().strip() in said:
            return place
    return None


def right(value: str, options: Sequence[str]) -> int | None:
    """The place of the right option, given as its letter or its text."""
    texts = [_plain(option) for option in options]
    if (wanted := _plain(value)) in texts:
        return texts.index(wanted)
    letter = value.strip()
    if len(letter) == 1 and letter in LETTERS[: len(options)]:
        return LETTERS.index(letter)
    return None


def _plain(text: str) -> str:
    # What is only signs keeps them, lest all such texts be the same.
    return text.strip(_AROUND).lower() or text.strip()
