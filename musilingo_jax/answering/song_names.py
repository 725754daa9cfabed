"""Which songs of a conversation a question names."""

import re
from collections.abc import Sequence
from pathlib import PurePath

_ORDINALS = [
    "first",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
]
_KINDS = r"(?:songs?|ones?|tracks?|pieces?|clips?|recordings?|files?)"
# "the first" and "first song" are songs; "the first half" and "comes first" are not.
_END = r"(?=\s*(?:[?!.,;:]|$)|\s+(?:and|or|than|with|to|is|has|have|sounds?)\b)"
_ALL = (
    rf"\b(?:both(?: of them| (?:the )?{_KINDS})?|all of them|each of them"
    rf"|the two {_KINDS}"
    rf"|(?:all (?:the )?|each |every ){_KINDS})\b"
)
THIS = "this song"
# What is said of several songs, and what of one of them.
_PLURALS = (("are", "is"), ("Are", "Is"), ("do", "does"), ("Do", "Does"))


def labels(names: Sequence[str]) -> list[str]:
    """What to call songs: their file names, with a number where two are alike.

    a/x.ogg  b/x.ogg  y.ogg    →    1 x.ogg   2 x.ogg   y.ogg
    """
    short = [PurePath(name).name or name for name in names]
    return [
        name if short.count(name) == 1 else f"{number} {name}"
        for number, name in enumerate(short, start=1)
    ]


def named(question: str, names: Sequence[str]) -> tuple[list[int], str]:
    """The numbers of the songs that a question names, from 0, and what to ask of each.

    A model hears one song with a question. So the question is put to each song that it
    names, with "this song" in the place of the name:

    >>> named("How fast is the second song?", ["a.ogg", "b.ogg"])
    ([1], 'How fast is this song?')
    >>> named("Is b.ogg louder?", ["a.ogg", "b.ogg"])
    ([1], 'Is this song louder?')
    >>> named("Describe both.", ["a.ogg", "b.ogg"])
    ([0, 1], 'Describe this song.')
    >>> named("What happens in the first half?", ["a.ogg", "b.ogg"])
    ([], 'What happens in the first half?')

    Args:
      question: what was asked.
      names: of the songs, in the order in which they were added.
    """
    found: set[int] = set()
    text = question

    def take(pattern: str, numbers: Sequence[int]) -> None:
        nonlocal text
        text, count = re.subn(pattern, THIS, text, flags=re.IGNORECASE)
        if count:
            found.update(numbers)

    # The longest names first, since one may be within another.
    calls = [
        (call, number)
        for number, name in enumerate(names)
        for call in {name, PurePath(name).name, PurePath(name).stem}
        if len(call) > 1 and call.casefold() != THIS
    ]
    for call, number in sorted(calls, key=lambda each: -len(each[0])):
        take(rf"(?<!\w){re.escape(call)}(?!\w)", [number])
    if len(names) > 1:
        words = dict(enumerate(_ORDINALS[: len(names)]))
        for number, word in [*words.items(), (len(names) - 1, "last")]:
            take(rf"\b(?:the )?{word} {_KINDS}\b|\bthe {word}{_END}", [number])
        for number in range(len(names)):
            take(rf"\b(?:song|track|number|clip) {number + 1}\b", [number])
        take(_ALL, range(len(names)))
    text = re.sub(rf"{THIS}(?:(?:,|,? and|,? or) {THIS})+", THIS, text)
    if len(found) > 1:
        for plural, singular in _PLURALS:
            text = re.sub(rf"\b{plural} {THIS}", f"{singular} {THIS}", text)
    return sorted(found), text
