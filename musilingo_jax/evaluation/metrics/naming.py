"""Which of the values of an attribute an answer names."""

import functools
import re
from collections.abc import Iterable

# "#", "♯" and "♭" are part of a note's name: "F# minor" does not name "F".
_WORD = r"[\w#♯♭]"
# Replaces matched text. Neither a word character nor white space, so that the words
# around it do not form a value that the answer does not name.
_GAP = "\0"


def named_value(answer: str, values: Iterable[str]) -> str | None:
    """The value of `values` that an answer names; None if it names none or several.

    Values match as in `named_values`.

        values: {"guitar", "bass guitar", "flute"}
        "A bass guitar leads."               → "bass guitar"
        "The guitar, yes, the guitar."       → "guitar"      (one distinct value)
        "A flute and a guitar."              → None          (two distinct values)
        "Something with strings."            → None

    Args:
      answer: the answer.
      values: all values of the attribute.
    """
    named = named_values(answer, values, plural=False)
    return named.pop() if len(named) == 1 else None


def named_values(answer: str, values: Iterable[str], *, plural: bool) -> set[str]:
    """The values that an answer names.

    Longer values are matched first and the matched text is removed, so that "bass
    guitar" does not also name "guitar". Values match at word boundaries. A value with a
    capital letter is matched as written, because "A minor" is a key and "a minor" is
    not. Other values are matched in any case.

    Args:
      answer: the answer.
      values: all values of the attribute.
      plural: whether a value may have an additional "s" at its end.
    """
    named = set()
    for value in sorted(set(values), key=lambda value: (-len(value), value)):
        answer, matches = _pattern(value, plural).subn(_GAP, answer)
        if matches:
            named.add(value)
    return named


@functools.cache
def _pattern(value: str, plural: bool) -> re.Pattern[str]:
    words = r"\s+".join(re.escape(word) for word in value.split())
    flags = 0 if any(letter.isupper() for letter in value) else re.IGNORECASE
    end = "s?" if plural else ""
    return re.compile(rf"(?<!{_WORD}){words}{end}(?!{_WORD})", flags)
