"""The musical keys that a text states, in any of the usual notations.

    F# minor   F♯m   f sharp minor   F#:min   Gb min.   F♯/G♭ minor     English
    fis-Moll   H-Dur   Es-Dur                                           German
    fa # mineur   La menor   si bémol majeur                            Romance
    8A   11m                                                            DJs' wheels
    the key of G   Key: G, scale: minor                                 in parts

All are spelt as mir_eval spells them: "Gb minor".
"""

import functools
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from musilingo_jax.corpora.statements.negation import Denials, plain

# The index is the number of semitones above C.
NOTES = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
MODES = ("major", "minor")
_NATURAL = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
_ROMANCE = {"do": 0, "ut": 0, "re": 2, "mi": 4, "fa": 5, "sol": 7, "la": 9, "si": 11}

_NOTE = r"""(?P<letter>[A-Ga-g])
    (?P<altered> [\s-]* (?: \#\#? | ♯♯? | ♭♭? | (?i:double[\s-]+)?(?i:sharp|flat) )
               | (?:b|B){1,2} )?"""
# "C#/Db minor": the second name is another one of the same note.
_OTHER = r"(?: \s* / \s* [A-Ga-g](?:\#|♯|b|♭)? )?"
_FULL = re.compile(
    rf"""(?<![\w\#♯♭]) {_NOTE} {_OTHER}
    [\s:_-]* (?: (?i:natural|harmonic|melodic)[\s-]+ )?
    (?P<mode>(?i:major|minor|maj|min)) (?![\w\#♯♭])
    (?P<more>(?=\.?[\s-]+\w))?
    # Follows a key, but not an adjective: "A minor is", "A minor and 120 BPM".
    (?P<apart>(?=\s+(?:(?:is|was|with|at|in|for|to|then|throughout|or|scale)\b
                      |(?:and|or)\s+[0-9A-Z])))?""",
    re.VERBOSE,
)
_GERMAN = re.compile(
    r"""(?<!\w) (?P<letter>[A-H]) (?P<altered>is|es|s)? [\s-]* (?P<mode>dur|moll)
    (?!\w)""",
    re.VERBOSE | re.IGNORECASE,
)
_LATIN = re.compile(
    r"""(?<!\w) (?P<letter>do|ut|re|mi|fa|sol|la|si)
    (?P<altered> \s* (?:\#|♯|♭|b\b|diese|diesis|sostenido|sustenido|bemolle|bemol) )?
    [\s-]* (?P<mode>majeur|mineur|mayor|menor|maggiore|minore|maior) (?!\w)
    (?! \s+ \w)  # "la menor duda" is "the least doubt".
    """,
    re.VERBOSE | re.IGNORECASE,
)
# "the minor key of A"
_MODE_FIRST = re.compile(
    rf"""(?<!\w) (?P<mode>(?i:major|minor)) \s+ (?i:key|mode|tonality|scale) \s+ (?i:of)
    \s+ {_NOTE} (?![\w\#♯♭])""",
    re.VERBOSE,
)
# "Key: A, mode: minor", and the same as JSON
_PARTS = re.compile(
    rf"""(?<!\w) (?i:key|tonic|root) ["'*]* \s* (?:(?i:is)\b|[:=]) \W{{0,4}} {_NOTE}
    (?![\w\#♯♭]) \W{{1,5}} (?i:and\s+|the\s+)* (?i:mode|scale) ["'*]* \s*
    (?:(?i:is)\b|[:=]) \W{{0,4}} (?P<mode>(?i:major|minor|maj|min)) (?!\w)""",
    re.VERBOSE,
)
# Where a key is about to be named.
_BEFORE = r"""(?: ^
      | \b(?i:key (?:\s+signature)?) (?:\s+(?i:of)(?:\s+(?i:this|the)\s+\w+)?)?
        (?:\s+(?i:is|seems\s+to\s+be|would\s+be))? (?:\s+(?i:likely|probably))?
        \s*[:=]?
      | \b(?i:in|tonality|likely|probably) \s*[:=]?
      | \b(?i:answer|estimate)\s*:
    ) \s* (?:(?i:the\s+key\s+of)\s+)? ["'“‘*_(\[]* """
_SHORT_BEFORE = re.compile(
    rf"(?:{_BEFORE} | \b(?i:is|it['’]s|sounds\s+like) \s+)$", re.VERBOSE
)
# A note without a mode needs more: "A." may be the letter of an option.
_BARE_BEFORE = re.compile(
    r"""(?: \b(?i:key) (?:\s+(?i:signature))?
            (?: \s+(?i:of) (?:\s+(?i:this|the)\s+\w+\s+(?i:is))?
              | \s+(?i:is) | \s*[:=] )
            (?:\s+(?i:most\s+)?(?i:likely|probably))?
          | \b(?i:in) | \b(?i:tonality)\s*[:=] )
        \s* ["'“‘*_(\[]* $""",
    re.VERBOSE,
)
_SHORT = re.compile(
    r"""(?<![\w\#♯♭]) (?P<letter>[A-G]) (?P<altered>\#|♯|♭|b)? (?P<mode>m|M)?
    (?![\w\#♯♭/°+'’-]) """,
    re.VERBOSE,
)
_AFTER_BARE = re.compile(
    r"""["'”’*_)\]]*
        (?: \s*$ | [.,;!?)\n] | \s+ (?:with|at|and\s+(?:the|has|it|is))\b)""",
    re.VERBOSE,
)
# The next of several chords.
_CHORDS = re.compile(
    r"""\s* (?:,|-|–|→|>|\||\s) \s* (?:and\s+)? [A-G](?:\#|♯|♭|b)?(?:m|maj|min|7|dim)*
        (?![\w\#♯♭'’])""",
    re.VERBOSE,
)
_LOWER = re.compile(r"(?P<letter>[a-g])(?P<altered>[#♯♭b])?(?P<mode>m)")
_WHEEL = re.compile(r"(?<!\w)(?P<number>1[0-2]|0?[1-9])(?P<mode>[ABabdm])(?!\w)")
_WHEEL_NAMED = re.compile(r"\b(?:camelot|open\s*key)\b", re.IGNORECASE)
_IS_CHORD = re.compile(r"[\s-]+(?:chords?|triads?|arpeggios?|seventh|7)\b")
_OPENING = " \t\"'“‘(*_-"  # between the end of a sentence and its next word
_SENTENCE = re.compile(r"[.!?\n]")
_STATES_KEY = re.compile(
    r"""(?<!relative\ )(?<!parallel\ )(?<!other\ )(?<!different\ )
        \b(?:key|tonality)\b (?:\s+signature\b)?
        (?:\s+of\b (?:\s+(?:this|the)(?:\s+\w+){1,3}? (?=\s+(?:is|seems)\b))? )?
        \s* (?:is\b|seems\s+to\s+be\b|:|=)?
        (?:\s+(?:most\s+)?(?:likely|probably))? [\s"'“‘*(]* $""",
    re.VERBOSE | re.IGNORECASE,
)
# Letters before a key that tell whether a key is meant.
_CONTEXT = 60


class StatedKey(NamedTuple):
    """A key in a text: its name, and where it stands in the plain text."""

    name: str
    start: int
    end: int


def named_keys(text: str) -> Iterator[str]:
    """The keys that a text states, such as "Gb minor", in their order.

    In "a minor" before another word, "a" is an article. So it is in "A minor" at the
    beginning of a sentence, unless the next word shows that a key is meant. Chords are
    not keys, nor is a key that is denied.

        "It is in F sharp minor."       → "Gb minor"    (enharmonic names are one)
        "Am"  "the key is a minor."     → "A minor"
        "a minor flaw", "a minor-key"   → nothing
        "A minor flaw."                 → nothing
        "A minor is the key."           → "A minor"
        "Am, F, C, G"                   → nothing
        "not G major but E minor"       → "E minor"

    Args:
      text: an answer, a reference, or a true value.
    """
    for found in _stated(text):
        yield found.name


def named_key(text: str) -> str | None:
    """The key that a text states as the key of the music; None if it states none.

    The first that follows the word "key" or "tonality"; else the first of `named_keys`.
    """
    found = _stated(text)
    letters = plain(text)
    for key in found:
        if _STATES_KEY.search(letters[max(0, key.start - _CONTEXT) : key.start]):
            return key.name
    return found[0].name if found else None


@functools.lru_cache(maxsize=1 << 12)  # Controls give the same answers again.
def _stated(text: str) -> tuple[StatedKey, ...]:
    text = plain(text)
    denials = Denials(text)
    found = [
        StatedKey(name, *span)
        for read in _NOTATIONS
        for name, span in read(text)
        if span not in denials
    ]
    kept: list[StatedKey] = []
    for key in sorted(found, key=lambda key: (key.start, -key.end)):
        if not kept or key.start >= kept[-1].end:
            kept.append(key)
    return tuple(kept)


_Found = Iterator[tuple[str, tuple[int, int]]]


def _spelt_out(text: str) -> _Found:
    for found in _FULL.finditer(text):
        if not _is_article(found, text) and not _IS_CHORD.match(text, found.end()):
            yield _english(found), found.span()


def _in_parts(text: str) -> _Found:
    for pattern in (_MODE_FIRST, _PARTS):
        for found in pattern.finditer(text):
            yield _english(found), found.span()


def _german(text: str) -> _Found:
    for found in _GERMAN.finditer(text):
        letter, altered = found["letter"].lower(), (found["altered"] or "").lower()
        if altered == "s" and letter not in "ae":
            continue
        # B is B flat, H is B.
        semitone = {**_NATURAL, "h": 11, "b": 10}[letter]
        semitone += (altered == "is") - (altered in ("es", "s"))
        yield _name(semitone, found["mode"].lower() == "moll"), found.span()


def _romance(text: str) -> _Found:
    for found in _LATIN.finditer(text):
        altered = (found["altered"] or "").strip().lower()
        semitone = _ROMANCE[found["letter"].lower()] + (
            0 if not altered else -1 if altered[0] in "♭b" else 1
        )
        yield _name(semitone, found["mode"].lower()[:3] in ("min", "men")), found.span()


def _short(text: str) -> _Found:
    """Letters such as "Am" and "G", where a key and not a chord or note is meant."""
    whole = text.strip(" \t\n.!\"'“”‘’*_()[]`")
    if found := _LOWER.fullmatch(whole):
        yield _english(found), (0, len(text))
    for found in _SHORT.finditer(text):
        before = text[max(0, found.start() - _CONTEXT) : found.start()]
        if found.start() > _CONTEXT:
            before = "·" + before  # Not the beginning of the text.
        if _CHORDS.match(text, found.end()) or _speaks_of_chords(before):
            continue
        if found["mode"] == "m":
            if _SHORT_BEFORE.search(before):
                yield _english(found), found.span()
        elif found[0] == whole or (
            _BARE_BEFORE.search(before) and _AFTER_BARE.match(text, found.end())
        ):
            yield _english(found), found.span()


def _wheels(text: str) -> _Found:
    """Camelot's and Mixed in Key's wheel, 8A; Traktor's open key, 1m."""
    whole = text.strip(" \t\n.!\"'()[]")
    if not _WHEEL.fullmatch(whole) and not _WHEEL_NAMED.search(text):
        return
    for found in _WHEEL.finditer(text):
        number, mode = int(found["number"]), found["mode"].lower()
        # Each step is a fifth up. Camelot's 8B and the open key's 1d are C major.
        steps = number - 8 if mode in "ab" else number - 1
        is_minor = mode in "am"
        yield _name(7 * steps + (9 if is_minor else 0), is_minor), found.span()


_NOTATIONS: tuple[Callable[[str], _Found], ...] = (
    _spelt_out,
    _in_parts,
    _german,
    _romance,
    _short,
    _wheels,
)


def _english(found: re.Match[str]) -> str:
    semitone = _NATURAL[found["letter"].lower()] + _alteration(found["altered"] or "")
    mode = found["mode"] or ""
    return _name(semitone, mode == "m" or mode.lower().startswith("min"))


def _alteration(altered: str) -> int:
    altered = altered.strip(" \t\n-").lower()
    if altered.endswith(("sharp", "flat")):
        steps = 2 if altered.startswith("double") else 1
        return steps if altered.endswith("sharp") else -steps
    return len(altered) * (1 if altered[:1] in ("#", "♯") else -1)


def _name(semitone: int, is_minor: bool) -> str:
    return f"{NOTES[semitone % 12]} {MODES[is_minor]}"


def _is_article(found: re.Match[str], text: str) -> bool:
    """Whether the "a" of what looks like a key is an article."""
    letter = found["letter"]
    if letter not in "aA" or found["altered"] or found["more"] is None:
        return False
    if letter == "a":
        return True
    before = text[: found.start()].rstrip(_OPENING)
    return found["apart"] is None and (not before or before[-1] in ".!?\n")


def _speaks_of_chords(before: str) -> bool:
    """Whether the sentence so far is about chords rather than a key."""
    sentence = _SENTENCE.split(before)[-1].lower()
    chords = max(sentence.rfind("chord"), sentence.rfind("progression"))
    return chords > sentence.rfind("key")
