"""The mode that a text states without a key: "in a minor key", "major mode"."""

import re

from musilingo_jax.corpora.statements.negation import Denials, plain

_MODE = re.compile(
    r"""\b(?P<before>major|minor)[\s-]+(?:key|mode|tonality|scale)s?\b
      | \b(?:key|mode|tonality)\s+(?:is|sounds|seems)\s+(?P<after>major|minor)\b
      | \b(?:sounds|is)\s+in\s+(?P<alone>major|minor)\b""",
    re.VERBOSE | re.IGNORECASE,
)


def modes(text: str) -> list[str]:
    """The modes that a text states and does not deny, in their order.

    "It is in a minor key."      → "minor"
    "not a major scale"          → nothing
    "a minor flaw"               → nothing
    """
    text = plain(text)
    denials = Denials(text)
    return [
        match[match.lastgroup or 0].lower()
        for match in _MODE.finditer(text)
        if match.span() not in denials
    ]
