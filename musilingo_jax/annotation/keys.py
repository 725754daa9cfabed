"""The key of a song: the pitch classes that sound, compared with those of 24 keys.

    chroma of the song, mean      ▇▁▅▁▆▅▁▇▁▅▁▃
    profile of C major            █▁▄▁▅▄▁▇▁▃▁▃    correlation 0.93
    profile of A minor, turned    ▄▁▃▁▇▃▁▄▂█▁▃    correlation 0.68

A profile says how often each degree of a scale is used. The correlation of a song with
each of 24 turned profiles is Krumhansl and Schmuckler's way to a key (Krumhansl 1990);
the profiles are those that Albrecht and Shanahan (2013) counted in scores. A pitch
class is as strong as its peaks among the semitones (`spectra.peaks`).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from musilingo_jax.annotation.spectra import Spectra

VERSION = 1
NOTES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
NAMES = tuple(f"{note} {mode}" for mode in ("major", "minor") for note in NOTES)

_MAJOR = (0.238, 0.006, 0.111, 0.006, 0.137, 0.094)
_MAJOR += (0.016, 0.214, 0.009, 0.080, 0.008, 0.081)
_MINOR = (0.220, 0.006, 0.104, 0.123, 0.019, 0.103)
_MINOR += (0.012, 0.214, 0.062, 0.022, 0.061, 0.052)
PROFILES = np.stack(
    [np.roll(profile, tonic) for profile in (_MAJOR, _MINOR) for tonic in range(12)]
)


class Key(NamedTuple):
    """A key.

    Attributes:
      name: such as "F# minor"; "" in silence.
      strength: the correlation with its profile, −1 to 1.
      margin: by how much that is above the next key's.
    """

    name: str
    strength: float
    margin: float


def find(spectra: Spectra) -> Key:
    """The key of a song, as one key for all of it."""
    return of(spectra.chroma.mean(axis=1))


def of(chroma: Float[np.ndarray, "12"]) -> Key:
    """The key whose profile correlates best with the use of pitch classes from C up."""
    if not chroma.any() or not chroma.std():
        return Key("", 0.0, 0.0)
    centred = PROFILES - PROFILES.mean(axis=1, keepdims=True)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    ours = chroma - chroma.mean()
    found = centred @ (ours / np.linalg.norm(ours))
    best, second = np.argsort(-found)[:2]
    return Key(NAMES[best], float(found[best]), float(found[best] - found[second]))
