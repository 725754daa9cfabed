"""Multiple choice by the rule of MuChoMusic (Weck et al. 2024), whole texts first.

MuChoMusic's own rule looks for letters first, and so reads "A flute" as option A.
"""

from collections.abc import Sequence

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_PREFIX = "The correct answer is:"
# May surround the text of an option without being part of the answer.
_AROUND = " \t\n.!?:;,\"'“”‘’()[]*"


def chosen(answer: str, options: Sequence[str]) -> int | None:
    """The index of the option that an answer chooses; None if it chooses none.

    If the answer is the text of an option and nothing more, in any case, that option.
    Else, if it contains exactly one of the letters A, B, …, that one; any capital
    letter counts, so that "By drums" chooses B. Else the first option whose text the
    answer contains.

        options: "A piano", "A flute", "Drums"
        "A flute."                   → 1
        "(B)"                        → 1
        "I hear A or B: a flute."    → 1   two letters, so by the text
        "no idea"                    → None

    Args:
      answer: the answer; anything before "The correct answer is:" is ignored.
      options: the texts, in the order of the letters.
    """
    answer = answer.split(_PREFIX)[-1]
    texts = [_plain(option) for option in options]
    if (whole := _plain(answer)) in texts:
        return texts.index(whole)
    letters = set(LETTERS[: len(options)]) & set(answer)
    if len(letters) == 1:
        return LETTERS.index(letters.pop())
    answer = answer.lower()
    for index, option in enumerate(options):
        if option.lower().strip() in answer:
            return index
    return None


def right(value: str, options: Sequence[str]) -> int | None:
    """The index of the right option, which is given as its letter or its text."""
    texts = [_plain(option) for option in options]
    if (text := _plain(value)) in texts:
        return texts.index(text)
    letter = value.strip()
    if len(letter) == 1 and letter in LETTERS[: len(options)]:
        return LETTERS.index(letter)
    return None


def _plain(text: str) -> str:
    # A text of punctuation alone is kept, so that such texts differ.
    return text.strip(_AROUND).lower() or text.strip()
