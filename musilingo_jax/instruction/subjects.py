"""What is known of a clip, whatever file said it."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from musilingo_jax.corpora.statements.values import is_yes_or_no

EXCLUSIVE = ("key", "mode", "tempo", "metre")
"""Attributes of which a clip has one value, so that no other one is true."""
_NO = "no "


@dataclass(frozen=True)
class Subject:
    """A clip that questions are made about.

    Attributes:
      clip: identifies it.
      name: what published corpora call its sound: a file, or a video.
      audio: the sound file; None if it is not at hand.
      split: the part of the corpus that it belongs to.
      captions: texts that people wrote about it.
      facts: attribute → value, such as "key" → "A minor"; a list has commas.
      tags: what is in it, or fits it.
      chords: their names, in order.
      sections: their letters, in order; equal letters sound alike.
      start, end, rate: as in `Record`.
    """

    clip: str
    name: str
    audio: Path | None
    split: str
    captions: tuple[str, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    chords: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    start: float | None = None
    end: float | None = None
    rate: int | None = None

    @property
    def known(self) -> dict[str, object]:
        """All that questions can be about."""
        entries = {
            "captions": list(self.captions),
            **self.facts,
            "tags": list(self.tags),
            "chords": list(self.chords),
            "sections": list(self.sections),
        }
        return {key: value for key, value in entries.items() if value}

    @property
    def digest(self) -> str:
        """Of all that is known, wherever the file is."""
        entries = asdict(self) | {"audio": None}
        text = json.dumps(entries, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Vocabulary:
    """What there is in all clips together, from which wrong choices are drawn.

    Attributes:
      values: exclusive attribute → all its values, in order.
      tags: all tags, if a clip has none but those that it is said to have; else none.
    """

    values: dict[str, tuple[str, ...]]
    tags: tuple[str, ...]

    @classmethod
    def of(
        cls, subjects: list[Subject], exclusive: tuple[str, ...], *, complete: bool
    ) -> "Vocabulary":
        """The vocabulary of some clips.

        Args:
          subjects: the clips.
          exclusive: attributes of which a clip has one value.
          complete: whether clips have no tags but those that they are said to have.
        """
        values: dict[str, set[str]] = {name: set() for name in exclusive}
        tags: set[str] = set()
        for subject in subjects:
            for name in values.keys() & subject.facts.keys():
                values[name].add(subject.facts[name])
            tags.update(subject.tags)
        return cls(
            {name: tuple(sorted(values[name])) for name in exclusive if values[name]},
            tuple(sorted(tags)) if complete else (),
        )

    @property
    def digest(self) -> str:
        """Of all of it."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def presence_of(attribute: str, value: str) -> tuple[str, bool] | None:
    """The thing that a fact says is there, or is not; None if it says neither.

    "drums", "no drums"     → "drums", False
    "drums", "drums"        → "drums", True
    "vocals", "yes"         → "vocals", True
    "key", "A minor"        → None
    """
    thing = attribute.strip().lower()
    if (answer := is_yes_or_no(value)) is not None:
        return thing, answer
    stated = value.strip().lower()
    if stated in (thing, _NO + thing):
        return thing, stated == thing
    return None
