"""Multiple choice, by the rule of MuChoMusic (Weck et al. 2024)."""

from collections.abc import Sequence

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_PREFIX = "The correct answer is:"


def chosen(answer: str, options: Sequence[str]) -> int | None:
    """The option that an answer takes; None if it takes none: unanswered.

    If exactly one of the letters A, B, … stands in the answer, that one; every capital
    letter counts, wherever it stands, so that "Drums" is D. Else the first option whose
    text the answer holds, in any case.

        options: "A piano", "A flute", "Drums"
        "(B)"                        → 1
        "I hear A or B: a flute."    → 1   two letters, so by the text
        "no idea"                    → None

    Args:
      answer: what was said; what precedes "The correct answer is:" is not looked at.
      options: their texts, in the order of the letters.
    """
    said = answer.split(_PREFIX)[-1]
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
    wanted = value.strip()
    if len(wanted) == 1 and wanted in LETTERS[: len(options)]:
        return LETTERS.index(wanted)
    texts = [option.strip().lower() for option in options]
    return texts.index(wanted.lower()) if wanted.lower() in texts else None
