"""A constant-Q transform: magnitudes at geometrically spaced frequencies.

The kernels of all bins span the same number of periods (Brown 1991, "Calculation of a
constant Q spectral transform"), so those of the next lower octave are twice as long.
Instead, the lower octave is computed from the waveform at half the rate (Schörkhuber &
Klapuri 2010, "Constant-Q transform toolbox for music processing"): all octaves cost the
same. The kernels are constants, computed with NumPy while tracing.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from musilingo_jax.models.convolution import strided_convolution

LOWEST = 32.7  # Hz: the note C1
OCTAVES = 7
# A half-band low-pass filter that passes below 0.1 of its input's rate and stops above
# 0.4, by 80 dB: a sinc under a Kaiser window.
HALF_BAND = np.sinc(np.arange(-9, 10) / 2) * np.kaiser(19, 7.86) / 2
HALF_BAND /= HALF_BAND.sum()
# Outputs of the half-band filter computed together, as one matrix product.
BLOCK = 32


def bin_frequencies(bins: int) -> np.ndarray:
    """[bins] in Hz, geometrically from `LOWEST` up over `OCTAVES` octaves."""
    return LOWEST * 2 ** (np.arange(bins) / (bins // OCTAVES))


def halve_rate(waveform: Float[Array, "batch time 1"]) -> Float[Array, "batch half 1"]:
    """Every second sample of the low-passed waveform; sample 0 stays sample 0."""
    reach = len(HALF_BAND) // 2
    kernel = np.zeros((2 * BLOCK - 1 + 2 * reach, 1, BLOCK), np.float32)
    for i in range(BLOCK):
        kernel[2 * i : 2 * i + len(HALF_BAND), 0, i] = HALF_BAND
    batch, time, _ = waveform.shape
    blocks = -(-time // (2 * BLOCK))
    padding = (reach, 2 * BLOCK * blocks - time + reach)
    waveform = jnp.pad(waveform, ((0, 0), padding, (0, 0)))
    halves = strided_convolution(waveform, jnp.asarray(kernel), 2 * BLOCK)
    return halves.reshape(batch, -1, 1)[:, : -(-time // 2)]


def octave_kernel(
    frequencies: np.ndarray, *, quality: float, rate: float, centre: float
) -> tuple[int, np.ndarray]:
    """Complex exponentials under Hann windows whose sum is 1, around a centre.

    Args:
      frequencies: [bins] in Hz.
      quality: periods per kernel.
      rate: samples per second of the waveform.
      centre: of the kernels, in samples; may be between samples.

    Returns:
      The sample at which the kernels begin, and float32 [width, 1, 2 · bins], the real
      parts before the imaginary parts.
    """
    lengths = quality * rate / frequencies
    reach = lengths.max() / 2
    first, last = int(np.ceil(centre - reach)), int(np.floor(centre + reach))
    offsets = np.arange(first, last + 1)[:, None] - centre
    window = np.where(
        np.abs(offsets) <= lengths / 2,
        0.5 + 0.5 * np.cos(2 * np.pi * offsets / lengths),
        0,
    )
    window /= window.sum(axis=0)
    angles = 2 * np.pi * frequencies / rate * offsets
    kernel = np.concatenate([window * np.cos(angles), window * np.sin(angles)], axis=1)
    return first, kernel[:, None].astype(np.float32)


@jax.default_matmul_precision("highest")
def cqt(
    waveform: Float[Array | np.ndarray, "batch samples"],
    *,
    sample_rate: int,
    bins: int,
    hop: int,
    first_centre: float,
    frames: int,
) -> Float[Array, "batch frames bins"]:
    """Constant-Q magnitudes from 32.7 Hz up; a sine of amplitude A has A/2 in its bin.

    The window of each bin is centred on the frame.

    Args:
      waveform: zero outside of the clip.
      sample_rate: samples per second.
      bins: number of bins, over seven octaves.
      hop: samples from one frame's centre to the next.
      first_centre: the centre of frame 0, in samples.
      frames: number of frames.
    """
    per_octave = bins // OCTAVES
    frequencies = bin_frequencies(bins)
    quality = 1 / (2 ** (1 / per_octave) - 1)
    # Zeros on both sides, as far as the longest kernel reaches, in whole frames.
    margin = -(-(quality * sample_rate / LOWEST / 2 + first_centre) // hop) * hop
    margin = int(margin) + hop
    samples = frames * hop + 2 * margin
    length = waveform.shape[1]
    waveform = jax.lax.pad(
        waveform, np.float32(0), ((0, 0, 0), (margin, samples - margin - length, 0))
    )[:, :, None]

    decimation = 1
    octaves = []
    for top in range(bins, 0, -per_octave):
        octave = frequencies[max(top - per_octave, 0) : top]
        while hop % (2 * decimation) == 0 and (
            octave[-1] <= sample_rate / (5 * 2 * decimation)
        ):
            waveform, decimation = halve_rate(waveform), 2 * decimation
        start, kernel = octave_kernel(
            octave,
            quality=quality,
            rate=sample_rate / decimation,
            centre=(margin + first_centre) / decimation,
        )
        stride = hop // decimation
        stop = start + (frames - 1) * stride + len(kernel)
        parts = strided_convolution(
            waveform[:, start:stop], jnp.asarray(kernel), stride
        )
        real, imaginary = jnp.split(parts, 2, axis=-1)
        octaves.append(jnp.sqrt(jnp.square(real) + jnp.square(imaginary)))
    return jnp.concatenate(octaves[::-1], axis=-1)
