r"""Voices that sing, made from people who speak, and mixed into songs.

Nearly nobody sings in the recordings that can be had. So words that people say are sung
by a vocoder: what the mouth does is kept, and the cords are replaced (linear
prediction, Atal and Hanauer 1971).

    speech ──▶ all-pole filter of each hundredth of a second ─────┐
    melody ──▶ pulses with vibrato, noise where none is voiced ──▶ filter ──▶ song

What the teachers hear in a mix is taken for known, as of any recording: where they do
not hear a singer, none is taught.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.linalg
import scipy.signal
import soundfile
from jaxtyping import Float

from musilingo_jax.audio import level, waveforms
from musilingo_jax.recipes import no_music
from musilingo_jax.recipes.excerpts import Track
from musilingo_jax.recipes.soundfont import SAMPLE_RATE, Waveform
from musilingo_jax.runtime import cli
from musilingo_jax.runtime.errors import UserError

SUNG = "sung"
"""The package of the mixes."""
_HOP = SAMPLE_RATE // 100
_FRAME = 3 * _HOP
_ORDER = 28  # Poles: two for each kilohertz, and four.
_EMPHASIS = 0.97  # Speech falls by 6 dB an octave; the filter is found without that.
_VOICED_AT_LEAST = 0.3  # Autocorrelation at the lag of a pitch.
_SPOKEN = (70.0, 400.0)  # Hertz of people who speak.
_SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9))
_LOWEST = (98.0, 330.0)  # Hertz of the first degree of a melody.
_VIBRATO = (4.5, 6.5)  # A second.
_LOUDER = (2.0, 10.0)  # Decibels of the voice above the song.


def write(
    folder: Path,
    songs: Sequence[Track],
    spoken: Sequence[Track],
    *,
    clips: int,
    seconds: float,
    seed: int,
) -> list[Track]:
    """Writes songs with a voice that sings, unless they are there.

    Args:
      folder: gets `00000.flac` ….
      songs: what is sung to, drawn at random.
      spoken: recordings of speech.
      clips: how many.
      seconds: length of a clip.
      seed: of all draws.

    Returns:
      The clips, whose package is `SUNG`.

    Raises:
      UserError: no song or no recording of speech can be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = [Track(SUNG, folder / f"{number:05d}.flac") for number in range(clips)]
    bar = cli.progress(made, total=clips, unit="clip", label="singing")
    for number, track in enumerate(bar):
        if track.path.exists():
            continue
        rng = np.random.default_rng([seed, number])
        samples = round(seconds * SAMPLE_RATE)
        song = _excerpt(songs, samples, rng)
        voice = sing(no_music.speech(spoken, samples, rng), rng)
        louder = 10 ** (rng.uniform(*_LOUDER) / 20)
        mixed = song / _strength(song) + louder * voice / _strength(voice)
        mixed *= 0.9 / np.abs(mixed).max()
        partial = track.path.with_suffix(".partial")
        soundfile.write(partial, mixed, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
        partial.rename(track.path)
    return made


def _excerpt(
    songs: Sequence[Track], samples: int, rng: np.random.Generator
) -> Waveform:
    """A part of a random song; of ten that cannot be used, an error tells."""
    for _ in range(10):
        if not songs:
            break
        path = songs[int(rng.integers(len(songs)))].path
        seconds = samples / SAMPLE_RATE
        try:
            begin = rng.random() * (soundfile.info(str(path)).duration - seconds)
            blocks = waveforms.read(
                path, sample_rate=SAMPLE_RATE, start=max(begin, 0), end=begin + seconds
            )
            song = np.concatenate(list(blocks))[:samples]
        except (UserError, soundfile.LibsndfileError):
            continue
        if len(song) == samples and not level.is_silent(song):
            return song
    raise UserError("there is no song that can be read, and sung to")


def sing(spoken: Waveform, rng: np.random.Generator) -> Waveform:
    """The words of a recording, sung to a random melody.

    Args:
      spoken: speech at `SAMPLE_RATE`.
      rng: draws the melody.
    """
    filters, gains, voiced = _analysed(spoken)
    # Words are sung more slowly than they are said.
    slower = rng.uniform(1.2, 2.2)
    frames = np.arange(len(spoken) // _HOP)
    at = np.minimum((frames / slower).astype(int), len(gains) - 1)
    pulses = _pulses(_melody(len(spoken), rng))
    hiss = rng.standard_normal(len(pulses)).astype(np.float32) * 0.3
    window = np.hanning(2 * _HOP + 1)[:-1]
    total = np.zeros(len(spoken) + 4 * _HOP)
    for frame, source in zip(frames, at, strict=True):
        begin = frame * _HOP
        part = (pulses if voiced[source] else hiss)[begin : begin + 2 * _HOP]
        # The filter rings on after its part has ended.
        excited = np.zeros(4 * _HOP)
        excited[: len(part)] = part * window[: len(part)]
        rings = scipy.signal.lfilter([gains[source]], filters[source], excited)
        total[begin : begin + 4 * _HOP] += rings[: len(total) - begin]
    sung = np.asarray(
        scipy.signal.lfilter([1.0], [1.0, -_EMPHASIS], total[: len(spoken)])
    )
    return (0.3 * sung / (np.abs(sung).max() + 1e-9)).astype(np.float32)


def _analysed(
    spoken: Waveform,
) -> tuple[Float[np.ndarray, "frames poles"], Float[np.ndarray, " frames"], np.ndarray]:
    """Of each frame the filter, its gain, and whether the cords swing."""
    sound = np.asarray(scipy.signal.lfilter([1.0, -_EMPHASIS], [1.0], spoken))
    window = np.hanning(_FRAME)
    lags = [round(SAMPLE_RATE / pitch) for pitch in reversed(_SPOKEN)]
    filters, gains, voiced = [], [], []
    for begin in range(0, len(spoken) - _FRAME, _HOP):
        frame = sound[begin : begin + _FRAME] * window
        spectrum = np.square(np.abs(np.fft.rfft(frame, 2 * _FRAME)))
        correlation = np.fft.irfft(spectrum)[:_FRAME]
        # A floor at −60 dB keeps the filter of a pause from ringing.
        correlation[0] = correlation[0] * 1.0001 + 1e-7
        ahead = scipy.linalg.solve_toeplitz(
            correlation[:_ORDER], correlation[1 : _ORDER + 1]
        )
        left = correlation[0] - ahead @ correlation[1 : _ORDER + 1]
        filters.append(np.concatenate([[1.0], -ahead]))
        gains.append(np.sqrt(max(left, 0.0)))
        plain = spoken[begin : begin + _FRAME] * window
        own = np.fft.irfft(np.square(np.abs(np.fft.rfft(plain, 2 * _FRAME))))
        pitched = own[lags[0] : min(lags[1], _FRAME)].max() / (own[0] + 1e-12)
        voiced.append(pitched > _VOICED_AT_LEAST)
    return np.stack(filters), np.array(gains), np.array(voiced)


def _melody(samples: int, rng: np.random.Generator) -> Float[np.ndarray, " samples"]:
    """The pitch of each sample, in hertz: steps of a scale, a beat or a half each."""
    lowest = np.exp(rng.uniform(*np.log(_LOWEST)))
    scale = _SCALES[rng.integers(len(_SCALES))]
    beat = 60 / rng.uniform(60, 130)
    degree, pitch = int(rng.integers(len(scale))), np.zeros(0)
    while len(pitch) < samples:
        length = round(beat * rng.choice([0.5, 1.0, 1.0, 2.0]) * SAMPLE_RATE)
        degree = int(np.clip(degree + rng.integers(-2, 3), 0, len(scale)))
        octave, step = divmod(degree, len(scale))
        semitones = 12 * octave + scale[step]
        pitch = np.append(pitch, np.full(length, lowest * 2 ** (semitones / 12)))
    # A singer glides from note to note, and swings around each.
    glide = np.hanning(round(0.06 * SAMPLE_RATE))
    pitch = np.convolve(pitch[:samples], glide / glide.sum(), mode="same")
    seconds = np.arange(samples) / SAMPLE_RATE
    swing = rng.uniform(10, 60) * np.sin(2 * np.pi * rng.uniform(*_VIBRATO) * seconds)
    return np.maximum(pitch, lowest / 2) * 2 ** (swing / 1200)


def _pulses(pitch: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " samples"]:
    """A pulse for each period, as strong as noise of variance 1."""
    turns = np.cumsum(pitch / SAMPLE_RATE)
    begins = np.diff(np.floor(turns), prepend=0.0) > 0
    return np.where(begins, np.sqrt(SAMPLE_RATE / pitch), 0.0).astype(np.float32)


def _strength(waveform: Waveform) -> float:
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))) + 1e-9
