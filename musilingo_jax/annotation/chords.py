"""Chords: a triad for each beat, where a change must be worth it.

    beat              1     2     3     4     5     6
    chroma of it      C e G  …          A c E  …          (mean of its frames)
    nearest triad     C     C     Am    C     Am    Am
    with changes      C     C     C     C     Am    Am     the likeliest path (Viterbi)

Templates of three pitch classes and a hidden Markov model that prefers to stay are the
oldest way to chords (Fujishima 1999; Sheh and Ellis 2003). 24 triads and "no chord".
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from musilingo_jax.annotation.keys import NOTES
from musilingo_jax.annotation.spectra import Spectra

VERSION = 1
NONE = "no chord"
NAMES = (
    *(f"{note} {mode}" for mode in ("major", "minor") for note in NOTES),
    NONE,
)

# What three of twelve equally loud pitch classes would give.
_NONE_LIKENESS = 0.5
# How much likeness a change costs.
_CHANGE_COST = 0.2
# What the bass plays, beside all that sounds.
_BASS_WEIGHT = 0.6
# Seconds of a step where there are no beats.
_STEP = 0.5


class Chord(NamedTuple):
    """A chord; times in seconds.

    Attributes:
      start, end: when it sounds.
      name: such as "A minor", or "no chord".
      likeness: of its beats' chroma with the triad, 0 to 1.
    """

    start: float
    end: float
    name: str
    likeness: float


def find(spectra: Spectra, beats: Float[np.ndarray, " beats"]) -> list[Chord]:
    """The chords of a song, without gaps from its beginning to its end.

    Args:
      spectra: of the song.
      beats: seconds of its beats; where there are fewer than two, half seconds.
    """
    edges = _edges(spectra.seconds, beats)
    borders = spectra.frames(edges)
    chroma = np.stack([_mean(spectra.chroma, a, b) for a, b in pairwise(borders)])
    bass = np.stack([_mean(spectra.bass, a, b) for a, b in pairwise(borders)])
    likeness = likenesses(chroma + _BASS_WEIGHT * bass)
    path = likeliest(likeness, _CHANGE_COST)
    return list(_joined(edges, path, likeness))


def likenesses(chroma: Float[np.ndarray, "steps 12"]) -> Float[np.ndarray, "steps 25"]:
    """The cosine between each step's chroma and each triad; "no chord" is constant."""
    triads = np.zeros((24, 12))
    for tonic in range(12):
        triads[tonic, [tonic, (tonic + 4) % 12, (tonic + 7) % 12]] = 3**-0.5
        triads[12 + tonic, [tonic, (tonic + 3) % 12, (tonic + 7) % 12]] = 3**-0.5
    size = np.linalg.norm(chroma, axis=1, keepdims=True)
    found = (chroma / np.maximum(size, 1e-9)) @ triads.T
    return np.hstack([found, np.full((len(chroma), 1), _NONE_LIKENESS)])


def likeliest(
    scores: Float[np.ndarray, "steps states"], change: float
) -> Int[np.ndarray, " steps"]:
    """The path of states with the greatest sum of scores (Viterbi 1967).

    Args:
      scores: of each state at each step.
      change: what a change of state costs.
    """
    best, came = scores[0].copy(), np.zeros(scores.shape, int)
    for step in range(1, len(scores)):
        other = int(best.argmax())
        changes = best[other] - change > best
        came[step] = np.where(changes, other, np.arange(scores.shape[1]))
        best = np.where(changes, best[other] - change, best) + scores[step]
    path = [int(best.argmax())]
    for step in range(len(scores) - 1, 0, -1):
        path.append(int(came[step, path[-1]]))
    return np.array(path[::-1])


def _edges(seconds: float, beats: Float[np.ndarray, " beats"]) -> np.ndarray:
    """The borders of the steps, from 0 to the end of the song."""
    inside = beats[(beats > 0.1) & (beats < seconds - 0.1)]
    if len(inside) < 2:
        inside = np.arange(_STEP, seconds - _STEP / 2, _STEP)
    return np.concatenate([[0.0], inside, [seconds]])


def _mean(chroma: Float[np.ndarray, "12 frames"], a: int, b: int) -> np.ndarray:
    return chroma[:, min(a, chroma.shape[1] - 1) : max(b, a + 1)].mean(axis=1)


def _joined(
    edges: np.ndarray, path: np.ndarray, likeness: np.ndarray
) -> Iterator[Chord]:
    """Neighbours of one chord as one."""
    changes = [0, *(np.flatnonzero(np.diff(path)) + 1), len(path)]
    for a, b in pairwise(changes):
        name = NAMES[path[a]]
        like = float(likeness[a:b, path[a]].mean())
        yield Chord(float(edges[a]), float(edges[b]), name, like)
