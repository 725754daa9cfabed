"""What a row says of a song: nine fields, each with its source.

    {"bpm": {"value": 112.4, "confidence": 1.0, "source": "estimator",
             "name": "musilingo_jax.annotation.beats", "version": "1, librosa 0.11.0"},
     "instruments": {"value": ["piano", "flute"], "confidence": [0.61, 0.33],
                     "source": "model", "name": "musilingo-tiny-5", "version": "9b1f…"}}

A confidence belongs to a value: a number, a list for a list, or null where there is
none. What it means depends on the source:

    estimator   as `annotation/song.py` says, for each field
    teacher     the tagger's own probability
    model       the share of this tag among the allowed ones (`option_scores.shares`);
                null for what the model wrote itself
    file        null
"""

from collections.abc import Sequence
from typing import Any

CAPTION, GENRE, INSTRUMENTS = "caption", "genre", "instruments"
MOOD, VOCALS, TAGS = "mood", "vocals", "tags"
BPM, KEY, METRE = "bpm", "key", "timesignature"
FIELDS = (CAPTION, GENRE, INSTRUMENTS, MOOD, VOCALS, BPM, KEY, METRE, TAGS)
TAGGED = (GENRE, INSTRUMENTS, MOOD, VOCALS, TAGS)
"""Those whose values are words, and may be chosen among tags."""
LISTS = (INSTRUMENTS, MOOD, TAGS)
"""Those with several values."""
MEASURED = {BPM: "tempo", KEY: "key", METRE: "metre"}
"""Those that are measured → what `annotation` calls them."""

MODEL, ESTIMATOR, TEACHER, FILE = "model", "estimator", "teacher", "file"
SOURCES = (MODEL, ESTIMATOR, TEACHER, FILE)

Field = dict[str, Any]
"""As in the picture above, and what belongs to it: an `answer`, what is `absent`."""


def field(
    value: Any, source: str, name: str, version: str, confidence: Any = None
) -> Field:
    """A field as rows hold it.

    Args:
      value: of the field; None, or () for a list, if it is unknown.
      source: of `SOURCES`.
      name: of the source.
      version: of the source.
      confidence: as the module says.
    """
    return {
        "value": list(value) if isinstance(value, tuple) else value,
        "confidence": list(confidence) if isinstance(confidence, tuple) else confidence,
        "source": source,
        "name": name,
        "version": version,
    }


def measured(name: str, annotation: dict[str, Any]) -> Field:
    """A field that an estimator has measured.

    Args:
      name: of `MEASURED`.
      annotation: what `annotation.song.annotate` says of it.
    """
    value = annotation["value"]
    if name == METRE and value is not None:
        # The estimator counts beats; that they are quarters is a convention.
        value = f"{value}/4"
    return field(
        value,
        ESTIMATOR,
        annotation["source"],
        annotation["version"],
        annotation["confidence"],
    )


def listed(value: Any) -> Sequence[str]:
    """The words of a value: none, one or several."""
    if value is None:
        return ()
    return value if isinstance(value, list | tuple) else (value,)
