"""What can be said about a song, and in which words.

The attributes of composed pieces (`styles.ATTRIBUTES`), and what can be heard in
recordings without a score. A value of a composed piece is known for certain; of a
recording, a fact is only said where there is good evidence for one of its values:

    family      metal                 vocals      no vocals
    guitar      guitar                piano       —  : nothing is known
"""

import math

from musilingo_jax.corpora.styles import ATTRIBUTES

UNSURE = "I can't tell"
"""The answer about a fact for which there is not enough evidence; "." follows."""

INSTRUMENTS = ("piano", "guitar", "strings", "flute", "synthesizer", "choir")
"""What may be heard among others, whether it leads or not."""

# A grid of tempi: each is four hundredths above the one before.
_STEP, _SLOWEST, _TEMPI = 1.04, 50.0, 37
BEATS = tuple(str(round(_SLOWEST * _STEP**n)) for n in range(_TEMPI))
"""Beats per minute, as they are said."""

FACTS: dict[str, tuple[str, ...]] = {
    **ATTRIBUTES,
    "beats": BEATS,
    "family": (
        "rock",
        "metal",
        "electronic",
        "classical",
        "ambient",
        "jazz",
        "hip-hop",
    ),
    "vocals": ("vocals", "no vocals"),
    "manner": ("loud", "quiet"),
    "energy": ("energetic", "calm"),
    "sound": ("music", "speech", "noise", "silence"),
    **{name: (name, f"no {name}") for name in INSTRUMENTS},
}
"""Fact → its values, in the words in which they are said."""

# Between the classes of `styles.TEMPI`: 80 and 96, 118 and 140.
_SLOW_BELOW, _FAST_FROM = 88.0, 129.0


def beats_of(bpm: float) -> str:
    """The nearest of `BEATS`; beyond its ends, the tempo is halved or doubled.

    Raises:
      ValueError: the tempo is not positive.
    """
    return BEATS[beat_index(bpm)]


def beat_index(bpm: float) -> int:
    """The place of a tempo in `BEATS`, as in `beats_of`.

    Raises:
      ValueError: the tempo is not positive.
    """
    if not bpm > 0:
        raise ValueError(f"a tempo of {bpm} beats per minute")
    place = round(math.log(bpm / _SLOWEST) / math.log(_STEP))
    octave = round(math.log(2) / math.log(_STEP))
    while place < 0:
        place += octave
    while place >= _TEMPI:
        place -= octave
    return place


def tempo_of(bpm: float) -> str:
    """Whether a tempo is slow, medium or fast."""
    if bpm < _SLOW_BELOW:
        return "slow"
    return "fast" if bpm >= _FAST_FROM else "medium"
