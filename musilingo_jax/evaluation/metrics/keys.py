"""Keys as answers name them, and how close one key is to another."""

import re
from collections.abc import Iterator

import mir_eval.key

# Spelt as mir_eval spells them; the index is the number of semitones above C.
NOTES = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
_NATURAL = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
_KEY = re.compile(
    r"""(?<![\w#♯♭])
    (?P<letter>[A-Ga-g])
    (?: [\s-]* (?P<sharp>\#|♯|(?i:sharp)) | [\s-]* (?P<flat>♭|(?i:flat)) | (?P<b>b) )?
    [\s-]+ (?P<mode>(?i:major|minor)) \b
    (?P<more>(?=[\s-]+\w))?
    # Follows a key, but not an adjective: "A minor is", "A minor and 120 BPM".
    (?P<apart>(?=\s+(?:(?:is|was|with|at|in|for|to|then|throughout)\b
                      |(?:and|or)\s+[0-9A-Z])))?""",
    re.VERBOSE,
)
# May be between the end of a sentence and the first word of the next.
_OPENING = " \t\"'“‘(*_-"


def named_keys(text: str) -> Iterator[str]:
    """The keys that a text names, such as "Gb minor", in their order.

    A key is a note (A to G, with "#", "♯", "sharp", "b", "♭" or "flat") and "major" or
    "minor". In "a minor" before another word, "a" is an article. So it is in "A minor"
    at the beginning of a sentence, unless the next word shows that a key is meant.

        "It is in F sharp minor."       → "Gb minor"    (enharmonic names are one)
        "in the key of B-flat major"    → "Bb major"
        "the key is a minor."           → "A minor"
        "a minor flaw", "a minor-key"   → nothing
        "A minor flaw."                 → nothing
        "A minor is the key."           → "A minor"
        "It is an A minor song."        → "A minor"

    Args:
      text: an answer, a reference, or a true value.
    """
    for found in _KEY.finditer(text):
        if not _is_article(found, text):
            semitone = _NATURAL[found["letter"].lower()]
            semitone += bool(found["sharp"]) - bool(found["flat"] or found["b"])
            yield f"{NOTES[semitone % 12]} {found['mode'].lower()}"


def named_key(text: str) -> str | None:
    """The first of `named_keys`; None if the text names no key."""
    return next(named_keys(text), None)


def _is_article(found: re.Match[str], text: str) -> bool:
    """Whether the "a" of what looks like a key is an article."""
    altered = found["sharp"] or found["flat"] or found["b"]
    if found["letter"] not in "aA" or altered or found["more"] is None:
        return False
    if found["letter"] == "a":
        return True
    before = text[: found.start()].rstrip(_OPENING)
    return found["apart"] is None and (not before or before[-1] in ".!?\n")


def weighted_score(answer: str, value: str) -> float:
    """MIREX's score of the first key that an answer names; 0 if it names none.

    1 for the same key, 0.5 for a fifth above, 0.3 for the relative and 0.2 for the
    parallel key (`mir_eval.key`).

    Args:
      answer: the answer.
      value: the true key, in any spelling that `named_key` reads.
    """
    named = named_key(answer)
    if named is None:
        return 0.0
    return mir_eval.key.weighted_score(named_key(value), named)
