"""A song in memory, an array with its sampling rate → a mono waveform."""

import math

import numpy as np
import soxr
from jaxtyping import Float

from musilingo_jax.audio.level import Block
from musilingo_jax.audio.waveforms import SHORTEST_SECONDS
from musilingo_jax.runtime.errors import UserError

# Samples per second that a recording may have: outside, a number was mistaken for it.
_RATES = 1_000, 1_000_000
_MOST_CHANNELS = 256


def waveform_of(
    array: np.ndarray, rate: float, *, sample_rate: int
) -> Float[np.ndarray, " samples"]:
    """The mean of the channels, in float32, resampled; full scale is 1.

    Args:
      array: [samples], [channels, samples] or [samples, channels]; the shorter axis
        is that of the channels. Whole numbers have the full scale of their type.
      rate: samples per second of the array.
      sample_rate: samples per second of the result.

    Raises:
      UserError: the array is no sound, or is shorter than half a second; or the rate
        is impossible.
    """
    array = np.asarray(array)
    if array.ndim not in (1, 2) or array.dtype.kind not in "fiu" or not array.size:
        raise UserError(
            f"an array of {array.dtype} with the shape {list(array.shape)} is no "
            "sound: give numbers of the shape [samples], [channels, samples] or "
            "[samples, channels]"
        )
    if not (math.isfinite(rate) and _RATES[0] <= rate <= _RATES[1]):
        raise UserError(
            f"a sampling rate of {rate:g} is impossible: give samples per second, "
            "such as 44100, as the second part of (array, rate)"
        )
    channels = array.T if array.ndim == 2 and array.shape[0] > array.shape[1] else array
    if array.ndim == 2 and len(channels) > _MOST_CHANNELS:
        raise UserError(
            f"an array of the shape {list(array.shape)} has {len(channels)} channels: "
            f"at most {_MOST_CHANNELS} are heard"
        )
    mixed: Block = np.atleast_2d(channels).mean(axis=0, dtype=np.float64)
    if array.dtype.kind in "iu":
        bits = np.iinfo(array.dtype)
        middle = 0 if array.dtype.kind == "i" else (bits.max + 1) / 2
        mixed = (mixed - middle) / (float(bits.max) + 1 - middle)
    if not np.isfinite(mixed).all():
        raise UserError("the array contains samples that are NaN or infinite")
    waveform = mixed.astype(np.float32)
    if rate != sample_rate:
        waveform = soxr.resample(waveform, rate, sample_rate, quality="HQ")
    if len(waveform) < SHORTEST_SECONDS * sample_rate:
        raise UserError(
            f"the array holds only {len(waveform) / sample_rate:.2f} s of sound; at "
            f"least {SHORTEST_SECONDS} s are needed"
        )
    return waveform
