"""The constant-Q transform against its definition, and against tones."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.released_configs import MERT_95M

from musilingo_jax.models.cqt import bin_frequencies, cqt
from musilingo_jax.models.mert_config import MertConfig


def bins_of(waveform, *, rate=24_000, bins=84, hop=960, centre=500.0, frames=20):
    transform = partial(
        cqt, sample_rate=rate, bins=bins, hop=hop, first_centre=centre, frames=frames
    )
    return np.asarray(jax.jit(transform)(jnp.asarray(waveform, jnp.float32)))


def test_cqt_puts_a_tone_into_its_bin():
    time = np.arange(24_000) / 24_000
    frequencies = bin_frequencies(84)
    concert_pitch = int(np.argmin(np.abs(frequencies - 440)))
    assert concert_pitch == 45
    tested = [14, 30, concert_pitch, 59, 60, 71, 83]
    tones = 0.5 * np.sin(2 * np.pi * frequencies[tested, None] * time)
    tones[2] = 0.5 * np.sin(2 * np.pi * 440 * time)
    magnitudes = bins_of(tones)[:, 10]
    np.testing.assert_array_equal(magnitudes.argmax(axis=1), tested)
    np.testing.assert_allclose(magnitudes.max(axis=1), 0.25, rtol=0.01)
    for magnitude, bin_ in zip(magnitudes, tested, strict=True):
        # Nothing folds down into the octaves computed at lower rates.
        far = np.abs(np.arange(84) - bin_) > 12
        assert magnitude[far].max() < 2e-3 * magnitude[bin_]


def test_cqt_of_silence_is_zero():
    np.testing.assert_array_equal(bins_of(np.zeros((1, 24_000))), 0)


@pytest.mark.parametrize("hop, bins", [(960, 84), (375, 84), (480, 42)])
def test_cqt_is_its_definition(hop, bins):
    """Every bin from the waveform at its full rate, in float64."""
    rate, centre = 24_000, 437.5
    waveform = np.random.default_rng(0).normal(size=(1, rate)).astype(np.float32)
    frames = 1 + (rate - 1000) // hop
    magnitudes = bins_of(waveform, bins=bins, hop=hop, centre=centre, frames=frames)
    per_octave = bins // 7
    quality = 1 / (2 ** (1 / per_octave) - 1)
    frame = frames // 2
    offsets = np.arange(rate) - (centre + frame * hop)
    for bin_, frequency in enumerate(bin_frequencies(bins)):
        length = quality * rate / frequency
        window = np.where(
            np.abs(offsets) <= length / 2, np.cos(np.pi * offsets / length) ** 2, 0
        )
        tone = np.exp(2j * np.pi * frequency / rate * offsets)
        expected = np.abs(np.sum(waveform[0] * window * tone)) / np.sum(window)
        assert magnitudes[0, frame, bin_] == pytest.approx(expected, rel=0.02, abs=1e-4)


def test_cqt_frames_stand_where_the_convolutions_do():
    config = MertConfig.from_dict(MERT_95M)
    centre = (config.receptive_field - 1) / 2
    frame = 30
    waveform = np.zeros((1, 60 * config.samples_per_frame))
    waveform[0, round(centre + frame * config.samples_per_frame)] = 1
    hop = config.samples_per_frame
    magnitudes = bins_of(waveform, hop=hop, centre=centre, frames=60)
    assert magnitudes[0, :, -1].argmax() == frame
    np.testing.assert_allclose(
        magnitudes[0, frame - 5 : frame],
        magnitudes[0, frame + 5 : frame : -1],
        atol=1e-4,
    )
