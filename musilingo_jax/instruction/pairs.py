"""A question and its answer, and the row that a job makes of a clip and a family.

{"id": "clips/00000.ogg:…#reasoning:1f…", "clip": "clips/00000.ogg:…",
"family": "reasoning", "maker": "templates 1", "prompt": 1, "seed": 0,
"raw": null, "cut": false, "parse": "none needed", "usage": [0, 0],
"pairs": [{"question": "…", "answer": "…", "attribute": "key",
"value": "A minor"}],
"refused": [{"question": "…", "answer": "…", "reason": "unanswerable",
"detail": "not specified"}]}
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from musilingo_jax.instruction.subjects import Subject

UNDERSTANDING, CAPTIONING, REASONING = "understanding", "captioning", "reasoning"
FAMILIES = (UNDERSTANDING, CAPTIONING, REASONING)
Choice = TypeVar("Choice")


class Pair(NamedTuple):
    """A question and its answer.

    Attributes:
      question: what is asked.
      answer: what is said.
      attribute, value: the fact that the answer states, as in `Record`; None for
        answers that state no single fact.
    """

    question: str
    answer: str
    attribute: str | None = None
    value: str | None = None

    @property
    def entry(self) -> dict[str, Any]:
        """As a row holds it."""
        return {key: text for key, text in self._asdict().items() if text is not None}

    @classmethod
    def of(cls, entry: dict[str, Any]) -> "Pair":
        """The pair of an entry."""
        return cls(**entry)


class Refused(NamedTuple):
    """A pair that is not used, the filter that refused it, and what it found."""

    pair: Pair
    reason: str
    detail: str

    @property
    def entry(self) -> dict[str, Any]:
        """As a row holds it."""
        return self.pair.entry | {"reason": self.reason, "detail": self.detail}


@dataclass(frozen=True)
class Item:
    """What one request is about.

    Attributes:
      subject: the clip.
      family: one of `FAMILIES`.
    """

    subject: Subject
    family: str

    @property
    def id(self) -> str:
        """Another one if what is known of the clip changes."""
        return f"{self.subject.clip}#{self.family}:{self.subject.digest}"


def draw(options: Sequence[Choice], *key: object) -> Choice:
    """One of several options, the same for the same key on every machine.

    Args:
      options: at least one.
      *key: what the choice depends on, such as a seed and a clip.
    """
    return options[number(*key) % len(options)]


def number(*key: object) -> int:
    """A large number that a key gives, as even as a hash."""
    text = "\n".join(map(str, key))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
