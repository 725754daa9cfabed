"""How close the key that an answer names is to the true one (MIREX)."""

import re

import mir_eval.key

from musilingo_jax.corpora.statements.keys import NOTES, named_key

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


def published_key(text: str) -> str | None:
    """The first key in a text by the published rule; None if there is none.

    A note (A to G, with "#", "♯", "sharp", "b", "♭" or "flat") and "major" or "minor",
    whatever the sentence says of it: "not C major" names C major, and "Am" no key. In
    "a minor" before another word, "a" is an article.
    """
    for found in _KEY.finditer(text):
        if not _is_article(found, text):
            semitone = _NATURAL[found["letter"].lower()]
            semitone += bool(found["sharp"]) - bool(found["flat"] or found["b"])
            return f"{NOTES[semitone % 12]} {found['mode'].lower()}"
    return None


def _is_article(found: re.Match[str], text: str) -> bool:
    """Whether the "a" of what looks like a key is an article."""
    altered = found["sharp"] or found["flat"] or found["b"]
    if found["letter"] not in "aA" or altered or found["more"] is None:
        return False
    if found["letter"] == "a":
        return True
    before = text[: found.start()].rstrip(_OPENING)
    return found["apart"] is None and (not before or before[-1] in ".!?\n")


def weighted_score(named: str | None, value: str) -> float:
    """MIREX's score of the key that an answer names; 0 if it names none.

    1 for the same key, 0.5 for a fifth above, 0.3 for the relative and 0.2 for the
    parallel key (`mir_eval.key`).

    Args:
      named: the key of the answer, as `named_key` or `published_key` spells it.
      value: the true key, in any notation that `named_key` reads.
    """
    return (
        0.0 if named is None else mir_eval.key.weighted_score(named_key(value), named)
    )
