"""Keys as answers name them, and how near one is to another."""

import re
from collections.abc import Iterator

import mir_eval.key

# Spelt as mir_eval spells them; the place is the semitone above C.
NOTES = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
_NATURAL = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
_KEY = re.compile(
    r"""(?<![\w#♯♭])
    (?P<letter>[A-Ga-g])
    (?: [\s-]* (?P<sharp>\#|♯|(?i:sharp)) | [\s-]* (?P<flat>♭|(?i:flat)) | (?P<b>b) )?
    [\s-]+ (?P<mode>(?i:major|minor)) \b
    (?P<more>(?=[\s-]+\w))?
    # What follows a key and no adjective: "A minor is", "A minor and 120 BPM".
    (?P<apart>(?=\s+(?:(?:is|was|with|at|in|for|to|then|throughout)\b
                      |(?:and|or)\s+[0-9A-Z])))?""",
    re.VERBOSE,
)
# What may stand between the end of a sentence and the first word of the next.
_OPENING = " \t\"'“‘(*_-"


def named_keys(text: str) -> Iterator[str]:
    """The keys that a text names, such as "Gb minor", in its order.

    A note (A to G, with "#", "♯", "sharp", "b", "♭" or "flat") and "major" or "minor".
    "a minor" with a further word after it begins with an article. So does "A minor" at
    the beginning of a sentence, but for words that follow a key and no adjective.

        "It is in F sharp minor."       → "Gb minor"    (names of one pitch are one)
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
    """The first of `named_keys`; None if there is none."""
    return next(named_keys(text), None)


def _is_article(found: re.Match[str], text: str) -> bool:
    """Whether the "a" of what looks like a key is a word of its own."""
    altered = found["sharp"] or found["flat"] or found["b"]
    if found["letter"] not in "aA" or altered or found["more"] is None:
        return False
    if found["letter"] == "a":
        return True
    before = text[: found.start()].rstrip(_OPENING)
    return found["apart"] is None and (not before or before[-1] in ".!?\n")


def weighted_score(answer: str, value: str) -> float:
    """MIREX's score of the key that an answer names: 0 if it names none.

    1 for the same key, 0.5 for a fifth above, 0.3 for the relative and 0.2 for the
    parallel key (`mir_eval.key`).

    Args:
      answer: what was said.
      value: the true key, in any spelling of `named_key`.
    """
    said = named_key(answer)
    return 0.0 if said is None else mir_eval.key.weighted_score(named_key(value), said)
