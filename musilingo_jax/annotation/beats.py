"""Tempo and beats.

The beats are those of librosa's tracker (Ellis 2007). Its tempo is that of a lag of
whole frames, so that near 120 beats per minute there is no tempo between 117.5 and 123;
ours is the slope of a line through the beats, which has no such steps:

    number of the beat   0     1     2     3      a beat that the tracker has displaced
    time in seconds      0.10  0.60  1.13  1.60   moves the slope little
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from musilingo_jax.annotation.spectra import HOP, RATE, Spectra

VERSION = 1


class Beats(NamedTuple):
    """The beats of a song.

    Attributes:
      bpm: beats per minute; 0 if there are no three beats.
      steadiness: the share of beats that are within a tenth of a beat of the line, 0 to
        1: low where the tempo changes, or where there is none.
      times: seconds of each beat.
      tracker_bpm: what librosa says itself.
    """

    bpm: float
    steadiness: float
    times: Float[np.ndarray, " beats"]
    tracker_bpm: float


def find(spectra: Spectra) -> Beats:
    """The beats of a song."""
    import librosa

    if not spectra.onsets.any():
        return Beats(0.0, 0.0, np.zeros(0), 0.0)
    tempo, frames = librosa.beat.beat_track(
        onset_envelope=spectra.onsets, sr=RATE, hop_length=HOP, trim=False
    )
    tracker = float(np.ravel(tempo)[0])
    times = np.asarray(frames) * HOP / RATE
    if len(times) < 3:
        return Beats(0.0, 0.0, times, tracker)
    bpm, steadiness = slope(times)
    return Beats(bpm, steadiness, times, tracker)


def slope(times: Float[np.ndarray, " beats"]) -> tuple[float, float]:
    """The tempo of beats, and how many of them keep it.

    The line is the median of the slopes of pairs that are half of the beats apart
    (Theil and Sen's estimate with Siegel's long pairs), so that a few beats that are
    wrong do not count.

    Args:
      times: of three beats at least, in seconds.

    Returns:
      Beats per minute and the steadiness, as in `Beats`.
    """
    count = len(times)
    # A beat that was left out would shift all numbers after it.
    usual = np.median(np.diff(times))
    numbers = np.concatenate([[0], np.cumsum(np.round(np.diff(times) / usual))])
    apart = max(1, count // 2)
    step = numbers[apart:] - numbers[:-apart]
    moving = step > 0
    seconds = float(np.median((times[apart:] - times[:-apart])[moving] / step[moving]))
    offsets = times - numbers * seconds
    near = np.abs(offsets - np.median(offsets)) < 0.1 * seconds
    return 60 / seconds, float(near.mean())
