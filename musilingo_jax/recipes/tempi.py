"""The tempo of recordings, where what is heard of a song agrees on one.

Most songs keep their tempo. So the periodicities of all excerpts of a song are averaged
before one is chosen, and an excerpt has the song's tempo only if it shows it, too:

    onsets        |   |   |   |   |        how often two are one lag apart
    lags           ·   X   ·   X   ·   X   of a beat, of two, of three, of four

A tempo and its double fit the same onsets nearly as well. Between them decides what is
usual: 120 beats per minute, or more for music that the taggers call fast or metal, as
musicians count it. These are pseudo-labels: nobody has tapped along.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Float, Int

from musilingo_jax.recipes.soundfont import SAMPLE_RATE
from musilingo_jax.runtime import cli

_HOP = 256
RATE = SAMPLE_RATE / _HOP  # onset strengths in a second
LAGS = round(5.0 * RATE)  # of which the correlation is computed: 5 s
# Candidates, one hundredth apart.
TEMPI = 50 * 1.01 ** np.arange(145)
_BEATS = np.array([1, 2, 3, 4])  # whose lags count
_USUAL, _SPREAD = 120.0, 0.9  # beats per minute; octaves
_FASTER = 0.5  # octaves by which energetic music is counted faster
_AT_LEAST = 0.12  # correlation, the mean over the lags of the beats
_OWN_SHARE = 0.6  # of the song's correlation that an excerpt must show


def correlations(
    waveform: Int[np.ndarray, "excerpts samples"], processes: int
) -> Float[np.ndarray, "excerpts lags"]:
    """The autocorrelation of the onsets of each excerpt, from lag 0 on, where it is 1.

    Args:
      waveform: at 24 kHz, 16 bits.
      processes: excerpts that are heard at the same time.
    """
    with ThreadPoolExecutor(processes) as pool:
        found = pool.map(_correlation, waveform)
        bar = cli.progress(found, total=len(waveform), unit="excerpt", label="tempi")
        return np.stack(list(bar))


def tempi(
    correlated: Float[np.ndarray, "excerpts lags"],
    songs: Sequence[str],
    energy: Float[np.ndarray, " excerpts"],
) -> Float[np.ndarray, " excerpts"]:
    """Beats per minute of each excerpt; NaN where they are not known.

    Args:
      correlated: from `correlations`.
      songs: which song each excerpt is of.
      energy: how energetic each is, from 0 to 1.
    """
    scores = comb(correlated)
    found = np.full(len(scores), np.nan)
    _, song = np.unique(songs, return_inverse=True)
    for number in range(song.max(initial=-1) + 1):
        rows = np.flatnonzero(song == number)
        usual = np.log2(_USUAL) + _FASTER * energy[rows].mean()
        prior = np.exp(-0.5 * ((np.log2(TEMPI) - usual) / _SPREAD) ** 2)
        whole = scores[rows].mean(axis=0)
        best = int(np.argmax(np.maximum(whole, 0) * prior))
        if whole[best] < _AT_LEAST:
            continue
        near = scores[rows, max(best - 2, 0) : best + 3].max(axis=1)
        found[rows[near >= _OWN_SHARE * whole[best]]] = TEMPI[best]
    return found


def comb(
    correlated: Float[np.ndarray, "excerpts lags"],
    tempi: Float[np.ndarray, " tempi"] = TEMPI,
) -> Float[np.ndarray, "excerpts tempi"]:
    """How well each tempo fits: the mean correlation at the lags of its beats."""
    lags = 60 / tempi[:, None] * _BEATS * RATE
    below = np.floor(lags).astype(int)
    share = lags - below
    inside = below + 1 < correlated.shape[1]
    below = np.where(inside, below, 0)
    at = (1 - share) * correlated[:, below] + share * correlated[:, below + 1]
    return (at * inside).sum(axis=2) / inside.sum(axis=1)


def _correlation(excerpt: Int[np.ndarray, " samples"]) -> Float[np.ndarray, " lags"]:
    import librosa  # Takes a while to import.

    sound = excerpt.astype(np.float32) / 32768
    onsets = librosa.onset.onset_strength(y=sound, sr=SAMPLE_RATE, hop_length=_HOP)
    onsets = onsets - onsets.mean()
    size = 2 ** int(np.ceil(np.log2(2 * len(onsets))))
    power = np.square(np.abs(np.fft.rfft(onsets, size)))
    products = np.fft.irfft(power)[:LAGS]
    # Each lag has another number of pairs.
    products = products * len(onsets) / np.maximum(len(onsets) - np.arange(LAGS), 1)
    if products[0] < 1e-6:
        return np.zeros(LAGS)
    return products / products[0]
