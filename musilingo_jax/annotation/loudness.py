"""How loud a song is, as broadcasters measure it (ITU-R BS.1770-4).

    waveform → a filter like the ear's → power of blocks of 400 ms, each 100 ms
    → without blocks below −70 LUFS → without blocks 10 LU below the mean → mean

It is of the mean of the channels: of a stereo recording whose channels are equal, 3 LU
below what a meter with two channels shows.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

VERSION = 1

_BLOCK, _STEP = 0.4, 0.1  # seconds
_ABSOLUTE_GATE, _RELATIVE_GATE = -70.0, -10.0  # LUFS, LU
_OFFSET = -0.691  # so that a full-scale sine of 997 Hz has −3.01 LUFS


class Loudness(NamedTuple):
    """How loud a song is.

    Attributes:
      lufs: integrated loudness; −70 if nothing is louder.
      range: LU between its tenth and its 95th percentile of blocks that count.
      peak_db: of the samples, in decibels of full scale; −100 at least.
    """

    lufs: float
    range: float
    peak_db: float


def measure(waveform: Float[np.ndarray, " samples"], rate: int) -> Loudness:
    """The loudness of a waveform.

    Args:
      waveform: mono, full scale 1, of `_BLOCK` seconds at least.
      rate: samples per second.
    """
    from scipy.signal import lfilter

    filtered = waveform.astype(np.float64)
    for forward, backward in (_shelf(rate), _high_pass(rate)):
        filtered = lfilter(forward, backward, filtered)
    size, step = round(_BLOCK * rate), round(_STEP * rate)
    total = np.concatenate([[0.0], np.cumsum(np.square(filtered))])
    starts = np.arange(0, max(1, len(filtered) - size + 1), step)
    power = (total[np.minimum(starts + size, len(filtered))] - total[starts]) / size
    peak = float(np.abs(waveform).max(initial=0.0))
    peak_db = max(-100.0, 20 * math.log10(max(peak, 1e-9)))
    heard = power[_lufs(power) > _ABSOLUTE_GATE]
    if not len(heard):
        return Loudness(_ABSOLUTE_GATE, 0.0, peak_db)
    counted = heard[_lufs(heard) > _lufs(heard.mean()) + _RELATIVE_GATE]
    low, high = np.percentile(_lufs(counted), [10, 95])
    return Loudness(float(_lufs(counted.mean())), float(high - low), peak_db)


def _lufs(power: np.ndarray) -> np.ndarray:
    return _OFFSET + 10 * np.log10(np.maximum(power, 1e-12))


def _shelf(rate: int) -> tuple[np.ndarray, np.ndarray]:
    """The filter of the head: 4 dB more above 1.7 kHz.

    The standard gives coefficients for 48 kHz only; frequency, gain and quality are
    those of the analogue filter that they come from (De Man 2018).
    """
    tangent = math.tan(math.pi * 1681.974450955533 / rate)
    quality, high = 0.7071752369554196, 10 ** (3.999843853973347 / 20)
    middle = high**0.4996667741545416
    square, slope = tangent**2, tangent / quality
    forward = [
        high + middle * slope + square,
        2 * (square - high),
        high - middle * slope + square,
    ]
    backward = [1 + slope + square, 2 * (square - 1), 1 - slope + square]
    return np.array(forward) / backward[0], np.array(backward) / backward[0]


def _high_pass(rate: int) -> tuple[np.ndarray, np.ndarray]:
    """The filter of the ear: less below 38 Hz (as `_shelf`)."""
    tangent = math.tan(math.pi * 38.13547087602444 / rate)
    square, slope = tangent**2, tangent / 0.5003270373238773
    backward = np.array([1 + slope + square, 2 * (square - 1), 1 - slope + square])
    return np.array([1.0, -2.0, 1.0]), backward / backward[0]
