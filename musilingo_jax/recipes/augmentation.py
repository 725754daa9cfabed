"""Other rooms, microphones and instruments for the same performance.

Random numbers are drawn in a fixed order from a generator, so a clip is a pure function
of its seed. Nothing here moves a sound in time: frame targets stay true.
"""

import numpy as np
import scipy.fft
import soxr
from jaxtyping import Float

from musilingo_jax.recipes.soundfont import SAMPLE_RATE, Waveform, level

_TOO_LOUD_SHARE = 0.15


def equaliser(
    frequency: Float[np.ndarray, " bins"], rng: np.random.Generator, *, spread: float
) -> Float[np.ndarray, " bins"]:
    """A smooth random response in decibels.

    Args:
      frequency: of each bin, in hertz, rising.
      rng: draws six values, one every two octaves or so; the rest is interpolated.
      spread: their standard deviation in decibels.
    """
    octaves = np.log2(np.maximum(frequency, 20) / 20)
    knots = np.linspace(0, octaves[-1], 6)
    return np.interp(octaves, knots, rng.normal(0, spread, len(knots)))


def recolour(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """The same notes on an instrument of another make: a strong random equaliser."""
    size = _fast_size(len(waveform))
    frequency = scipy.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    response = 10 ** (equaliser(frequency, rng, spread=6) / 20)
    return _filtered(waveform, response, size)


def augment(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """Another room, microphone and level, without a shift in time.

    Gain, a smooth equaliser, often a low-pass as lossy codecs have it, a short
    reverberation, and a floor of noise. All of these but the noise are one product of
    spectra. Some are cut off at full scale, as recordings are that are too loud.
    """
    size = _fast_size(len(waveform) + SAMPLE_RATE // 2)
    frequency = scipy.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    decibels = equaliser(frequency, rng, spread=3)
    if rng.random() < 0.4:
        cutoff = np.exp(rng.uniform(np.log(3000), np.log(11_000)))
        decibels -= 24 * np.maximum(np.log2(np.maximum(frequency, 1) / cutoff), 0)
    response = 10 ** (decibels / 20)
    if rng.random() < 0.6:
        # Decaying noise after the direct sound: the simplest room.
        seconds = np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
        tail = rng.standard_normal(len(seconds)) * np.exp(
            -seconds / rng.uniform(0.02, 0.12)
        )
        tail *= rng.uniform(0.05, 0.5) / np.sqrt(np.square(tail).sum())
        tail[0] += 1
        response = response * np.asarray(scipy.fft.rfft(tail, size))
    sound = level(_filtered(waveform, response, size))
    noise = rng.standard_normal(len(sound), dtype=np.float32)
    sound += noise * np.float32(0.1 * 10 ** (rng.uniform(-65, -28) / 20))
    if rng.random() < _TOO_LOUD_SHARE:
        # At a level of 0.1, peaks are near 0.5 in most music.
        loud = np.clip(sound * np.float32(10 ** (rng.uniform(6, 18) / 20)), -1, 1)
        sound = level(loud)
    sound *= np.float32(10 ** (rng.uniform(-12, 0) / 20))
    return np.clip(sound, -1, 1)


def slowed(waveform: Waveform, speed: float) -> Waveform:
    """The beginning of a recording that is played too slowly, at the same length.

    Args:
      waveform: at its own speed.
      speed: the share of it, at most 1; the pitch falls with it.
    """
    longer = soxr.resample(waveform, SAMPLE_RATE * speed, SAMPLE_RATE, quality="LQ")
    return longer[: len(waveform)].astype(np.float32)


def _fast_size(samples: int) -> int:
    """The smallest size, of at least `samples`, that is transformed fast."""
    # SciPy's decorator hides the type that it returns.
    return scipy.fft.next_fast_len(samples, real=True)  # type: ignore[return-value]


def _filtered(waveform: Waveform, response: np.ndarray, size: int) -> Waveform:
    """The waveform with its spectrum, padded to `size`, multiplied by a response."""
    spectrum = np.asarray(scipy.fft.rfft(waveform, size)) * response
    sound = np.asarray(scipy.fft.irfft(spectrum, size))
    return sound[: len(waveform)].astype(np.float32)
