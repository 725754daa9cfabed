"""Metre and downbeats: which beats begin a bar, of three beats or of four.

    beat                1  2  3  4  1  2  3  4  1
    low onsets          █  ▂  ▅  ▂  █  ▁  ▅  ▂  █    kick and bass
    change of harmony   ▇  ▁  ▂  ▁  ▆  ▁  ▁  ▁  ▇    cosine distance of neighbours
    by fours, from 1    ▲           ▲           ▲    what lies on ▲ stands out most
    by threes, from 1   ▲        ▲        ▲

Each pair of a period and a phase is scored by how much the beats on it stand out; the
best pair is the metre and its downbeats. What the two curves have in common is that
both are large where a bar begins (Goto 2001 has the same two cues).
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from musilingo_jax.annotation.spectra import Spectra

VERSION = 1
METRES = (3, 4)

# Of: low onsets, all onsets, change of harmony, change of bass. Chosen on composed
# clips, which were not those of the published errors.
_WEIGHTS = (1.0, 0.3, 1.0, 0.5)
# Bars of three are rarer, so they must stand out more.
_RARE = 0.25
# Fewer beats than two bars of four say nothing.
_FEWEST = 8


class Bars(NamedTuple):
    """The bars of a song.

    Attributes:
      metre: beats in a bar, 3 or 4; 0 if that cannot be told.
      margin: by how much it stands out more than the other metre, in deviations.
      downbeats: seconds at which bars begin.
    """

    metre: int
    margin: float
    downbeats: Float[np.ndarray, " bars"]


def find(spectra: Spectra, beats: Float[np.ndarray, " beats"]) -> Bars:
    """The bars of a song.

    Args:
      spectra: of the song.
      beats: seconds of its beats.
    """
    if len(beats) < _FEWEST:
        return Bars(0, 0.0, np.zeros(0))
    cues = _cues(spectra, beats)
    scores = {
        (metre, phase): contrast(cues, metre, phase) - _RARE * (metre == 3)
        for metre in METRES
        for phase in range(metre)
    }
    metre, phase = max(scores, key=lambda pair: scores[pair])
    other = max(score for pair, score in scores.items() if pair[0] != metre)
    return Bars(metre, scores[metre, phase] - other, beats[phase::metre])


def contrast(cues: Float[np.ndarray, " beats"], metre: int, phase: int) -> float:
    """By how many standard errors the beats of a phase stand out from the others."""
    on = np.arange(len(cues)) % metre == phase
    spread = cues.std()
    if not spread:
        return 0.0
    difference = cues[on].mean() - cues[~on].mean()
    error = spread * np.sqrt(1 / on.sum() + 1 / (~on).sum())
    return float(difference / error)


def _cues(spectra: Spectra, beats: np.ndarray) -> Float[np.ndarray, " beats"]:
    """How much each beat looks like the first of a bar, in deviations."""
    frames = spectra.frames(beats)
    low = np.array([_near(spectra.low_onsets, frame) for frame in frames])
    full = np.array([_near(spectra.onsets, frame) for frame in frames])
    edges = np.concatenate([frames, [len(spectra.onsets)]])
    changes = (_changes(chroma, edges) for chroma in (spectra.chroma, spectra.bass))
    curves = np.stack([_deviations(curve) for curve in (low, full, *changes)])
    return np.array(_WEIGHTS) @ curves


def _changes(
    chroma: Float[np.ndarray, "12 frames"], edges: np.ndarray
) -> Float[np.ndarray, " beats"]:
    """The cosine distance of each beat's mean chroma from that of the beat before."""
    last = chroma.shape[1] - 1
    means = np.stack(
        [
            chroma[:, min(a, last) : max(b, a + 1)].mean(axis=1)
            for a, b in pairwise(edges)
        ]
    )
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-9)
    return np.concatenate([[0.0], 1 - (means[1:] * means[:-1]).sum(axis=1)])


def _near(curve: np.ndarray, frame: int) -> float:
    """The greatest value within two frames: trackers are late or early by as much."""
    return float(curve[max(0, frame - 2) : frame + 3].max(initial=0.0))


def _deviations(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / (values.std() or 1.0)
