"""Which of the values of an attribute a text states, however they are spelt.

"Hip-Hop", "hip hop" and "hiphop" are one value; so are "R&B" and "r and b". A value
that the text denies ("not rock") is not stated.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import regex

from musilingo_jax.corpora.statements.negation import Denials, plain

# Scripts that are written without spaces: each letter is a word.
_CLOSE = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = regex.compile(
    rf"""(?V1)
      [[\p{{L}}\p{{N}}]&&[{_CLOSE}]]\p{{M}}*
    | (?: [[\p{{L}}\p{{N}}\p{{M}}]--[{_CLOSE}]] | (?<=\p{{N}})[.,/](?=\p{{N}}) )+[\#♯♭]*
    | [^\s_\-‐-―'’‘`"“”*,.;:!?]""",
    regex.VERBOSE,
)
# Between two words of a value there may be these, but nothing that ends a clause.
_BETWEEN = regex.compile(r"[\s_\-‐-―'’‘`]*")
_AND = ("&", "n")
# "A minor" is a key, and "a minor" is not.
_CAPITALS = ("A", "I")
# A value of one word may be written in two, but not with one of these: "in tense".
_NO_PART = frozenset(
    ("a", "an", "as", "at", "be", "by", "in", "is", "it", "no", "not", "of", "on")
    + ("or", "so", "the", "to")
)
# Abbreviations and other spellings of the very same thing, without spaces.
_SAME = {
    "rnb": "randb",
    "rhythmandblues": "randb",
    "dnb": "drumandbass",
    "dandb": "drumandbass",
    "drumnbass": "drumandbass",
    "edm": "electronicdancemusic",
    "rocknroll": "rockandroll",
    "synthesiser": "synthesizer",
    "synth": "synthesizer",
    "sax": "saxophone",
    "contrabass": "doublebass",
    "uprightbass": "doublebass",
    "drumset": "drumkit",
}
_YES = ("yes", "yeah", "yep", "true", "present")
_NO = ("no", "nope", "false", "absent", "none")
_PLURAL_AFTER = ("ch", "sh", "s", "x", "z")


class _Word(NamedTuple):
    letters: str  # folded
    start: int
    end: int
    is_capital: bool  # one of `_CAPITALS`


class Stated(NamedTuple):
    """A value that a text states: its `key`, and the stretch of the plain text."""

    key: str
    start: int
    end: int


def key_of(value: str, *, plural: bool = False) -> str:
    """What all spellings of a value have in common.

    Args:
      value: a value of an attribute, such as "Hip-Hop".
      plural: whether "drums" and "drum" are the same.
    """
    words = _words(plain(value))
    letters = "".join(word.letters for word in words) or plain(value).strip().casefold()
    if plural:
        letters = _singular(letters)
    return _SAME.get(letters, letters)


def stated(text: str, values: Iterable[str], *, plural: bool = False) -> list[Stated]:
    """The values that a text states and does not deny, in their order.

        values: "Rock", "Hip-Hop", "rock and roll"
        "a hip hop beat"                  → "hiphop"
        "It is hiphop."                   → "hiphop"
        "Not rock, but rock 'n' roll!"    → "rockandroll"
        "rocking"                         → nothing

    Of values that share words the longest counts: "bass guitar" does not also state
    "guitar". Upper and lower case are the same but in "A", which is not the article.

    Args:
      text: an answer or a reference.
      values: all values of the attribute.
      plural: whether "drums" states "drum".
    """
    return _parted(text, values, plural=plural)[0]


def denied(text: str, values: Iterable[str], *, plural: bool = False) -> list[Stated]:
    """The values that a text denies, in their order; arguments as in `stated`.

    "Not rock, but jazz, without drums."  → "rock", "drums"
    """
    return _parted(text, values, plural=plural)[1]


def presence(text: str, thing: str) -> bool | None:
    """Whether a text says that something is there; None if it does not say.

        thing: "drums"
        "Yes."  "There are drums."        → True
        "No, none."  "without drums"      → False

    Args:
      text: an answer or a reference.
      thing: what may be there.
    """
    text = plain(text)
    words = _words(text)
    if words and (answer := is_yes_or_no(words[0].letters)) is not None:
        return answer
    denials = Denials(text)
    spellings = _spellings([thing], plural=True)
    found = [
        (each.start, each.end) not in denials
        for each in _matches(text, spellings, plural=True)
    ]
    return any(found) if found else None


def is_yes_or_no(value: str) -> bool | None:
    """Whether a value is a "yes" (True) or a "no" (False); None if it is neither."""
    key = key_of(value)
    return key in _YES if key in (*_YES, *_NO) else None


def _parted(
    text: str, values: Iterable[str], *, plural: bool
) -> tuple[list[Stated], list[Stated]]:
    """The values that a text states, and those that it denies."""
    spellings = _spellings(values, plural=plural)
    if not spellings:
        return [], []
    text = plain(text)
    denials = Denials(text)
    found = sorted(
        _matches(text, spellings, plural=plural),
        key=lambda each: (each.start - each.end, each.start),
    )
    taken: list[Stated] = []
    covered = bytearray(len(text))
    for each in found:
        if not any(covered[each.start : each.end]):
            covered[each.start : each.end] = b"\1" * (each.end - each.start)
            taken.append(each)
    taken.sort(key=lambda each: each.start)
    parts: tuple[list[Stated], list[Stated]] = [], []
    for each in taken:
        parts[(each.start, each.end) in denials].append(each)
    return parts


class _Spelling(NamedTuple):
    words: frozenset[str]  # of all values with the same letters
    capitals: frozenset[str]  # words that must be capital letters


def _spellings(values: Iterable[str], *, plural: bool) -> dict[str, _Spelling]:
    """Key → how its values are written."""
    found: dict[str, _Spelling] = {}
    for value in values:
        words = _words(plain(value))
        letters = frozenset(word.letters for word in words)
        capitals = frozenset(word.letters for word in words if word.is_capital)
        key = key_of(value, plural=plural)
        known = found.get(key, _Spelling(letters, capitals))
        found[key] = _Spelling(known.words | letters, known.capitals & capitals)
    return found


def _matches(
    text: str, spellings: Mapping[str, _Spelling], *, plural: bool
) -> Iterator[Stated]:
    """Every stretch of words that spells one of the keys."""
    words = _words(text)
    longest = max(map(len, (*spellings, *_SAME))) + 2
    for place, first in enumerate(words):
        letters, parts, capitals = "", set(), set()
        for number in range(place, len(words)):
            word = words[number]
            between = words[number - 1].end, word.start
            if number > place and not _BETWEEN.fullmatch(text, *between):
                break
            letters += word.letters
            if len(letters) > longest:
                break
            parts.add(word.letters)
            if word.is_capital:
                capitals.add(word.letters)
            key = _singular(letters) if plural else letters
            is_other = key in _SAME
            key = _SAME.get(key, key)
            if key not in spellings or not spellings[key].capitals <= capitals:
                continue
            added = parts - spellings[key].words
            if is_other or number == place or not added & _NO_PART:
                yield Stated(key, first.start, word.end)


def _words(text: str) -> list[_Word]:
    words = []
    for found in _WORD.finditer(text):
        letters = found[0].casefold()
        letters = "and" if letters in _AND else letters
        words.append(_Word(letters, *found.span(), found[0] in _CAPITALS))
    return words


def _singular(letters: str) -> str:
    """The singular of a word, or of the last of several without spaces."""
    if len(letters) < 4 or not letters.endswith("s") or letters[-2:] in ("ss", "us"):
        return letters
    if letters.endswith("es") and letters[:-2].endswith(_PLURAL_AFTER):
        return letters[:-2]
    return letters[:-1]
