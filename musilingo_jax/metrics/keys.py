"""Keys as answers name them, and how near one is to another."""

import re

import mir_eval.key

# Spelt as mir_eval spells them; the place is the semitone above C.
NOTES = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
_NATURAL = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
_KEY = re.compile(
    r"""(?<![\w#♯♭])
    (?P<letter>[A-Ga-g])
    (?: [\s-]* (?P<sharp>\#|♯|(?i:sharp)) | [\s-]* (?P<flat>♭|(?i:flat)) | (?P<b>b) )?
    [\s-]+ (?P<mode>(?i:major|minor)) \b
    (?P<more>(?=\s+\w))?""",
    re.VERBOSE,
)


def named_key(text: str) -> str | None:
    """The first key that a text names, such as "Gb minor"; None if there is none.

    A note (A to G, with "#", "♯", "sharp", "b", "♭" or "flat") and "major" or "minor".
    A lower-case "a" before "minor" with a further word after it is an article.

        "It is in F sharp minor."     → "Gb minor"    (names of one pitch are one)
        "in the key of B-flat major"  → "Bb major"
        "the key is a minor."         → "A minor"
        "a minor flaw"                → None

    Args:
      text: an answer, or a true value.
    """
    for found in _KEY.finditer(text):
        plain = not (found["sharp"] or found["flat"] or found["b"])
        if found["letter"] == "a" and plain and found["more"] is not None:
            continue
        semitone = _NATURAL[found["letter"].lower()]
        semitone += bool(found["sharp"]) - bool(found["flat"] or found["b"])
        return f"{NOTES[semitone % 12]} {found['mode'].lower()}"
    return None


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
