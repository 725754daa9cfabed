"""Sounds that are no music, so that the embedded model learns to say so.

Speech comes from the recordings' packages, short pieces of one voice after the other;
noise is made here: hiss of any colour, steady or in gusts, hum, crackle, and mixes of
them.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float

from musilingo_jax.audio import level, waveforms
from musilingo_jax.recipes.excerpts import Track
from musilingo_jax.recipes.soundfont import SAMPLE_RATE, Waveform
from musilingo_jax.runtime import cli
from musilingo_jax.runtime.errors import UserError

SPEECH, NOISE, SILENCE = "speech", "noise", "silence"
_PAUSES = (0.1, 0.7)  # seconds between two pieces of speech
_MAINS = (50.0, 60.0)  # hertz


def write(
    folder: Path,
    spoken: Sequence[Track],
    *,
    clips: int,
    seconds: float,
    seed: int,
) -> list[Track]:
    """Writes clips of speech and of noise, as many of each, unless they are there.

    Args:
      folder: gets `speech/00000.flac` … and `noise/00000.flac` ….
      spoken: recordings of speech, of any length.
      clips: of each kind.
      seconds: length of a clip.
      seed: of all draws.

    Returns:
      The clips, with the kind as their package.

    Raises:
      UserError: no recording of speech can be read.
    """
    made = []
    total = 2 * clips
    numbers = cli.progress(range(total), total=total, unit="clip", label="no music")
    for number in numbers:
        kind, index = (SPEECH, NOISE)[number % 2], number // 2
        path = folder / kind / f"{index:05d}.flac"
        made.append(Track(kind, path))
        if path.exists():
            continue
        rng = np.random.default_rng([seed, number])
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = round(seconds * SAMPLE_RATE)
        sound = speech(spoken, samples, rng) if kind == SPEECH else noise(samples, rng)
        partial = path.with_suffix(".partial")
        soundfile.write(partial, sound, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
        partial.rename(path)
    return sorted(made, key=lambda track: (track.package, track.path))


def speech(spoken: Sequence[Track], samples: int, rng: np.random.Generator) -> Waveform:
    """Random recordings of one voice, one after the other.

    A package is drawn before a voice of it, so that one with many short recordings
    counts as much as others.

    Raises:
      UserError: none of ten can be read, or all are silent.
    """
    packages = sorted({track.package for track in spoken})
    if not packages:
        raise UserError("there is no recording of speech that can be read")
    package = packages[rng.integers(len(packages))]
    voices: dict[str, list[Path]] = {}
    for track in spoken:
        if track.package == package:
            voices.setdefault(track.path.name.rpartition("__")[0], []).append(
                track.path
            )
    voice = voices[sorted(voices)[rng.integers(len(voices))]]
    parts, length, failed = [], 0, 0
    while length < samples:
        if failed == 10:
            raise UserError(f"{package}: there is no recording of speech to be read")
        path = voice[int(rng.integers(len(voice)))]
        try:
            part = waveforms.load(path, sample_rate=SAMPLE_RATE, tell=lambda _: None)
        except UserError:
            failed += 1
            continue
        if level.is_silent(part):
            failed += 1
            continue
        failed = 0
        part = part * np.float32(0.3 / np.abs(part).max())
        pause = np.zeros(round(rng.uniform(*_PAUSES) * SAMPLE_RATE), np.float32)
        parts += [part, pause]
        length += len(part) + len(pause)
    return np.concatenate(parts)[:samples]


def noise(samples: int, rng: np.random.Generator) -> Float[np.ndarray, " samples"]:
    """Hiss, with hum and crackle as it comes; no rhythm and no pitch that changes."""
    frequency = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
    # Power that falls by 0 (white) to 9 (beyond brown) decibels an octave.
    colour = np.maximum(frequency, 30) ** -rng.uniform(0, 1.5)
    spectrum = np.fft.rfft(rng.standard_normal(samples)) * colour
    sound = np.fft.irfft(spectrum, samples)
    sound /= sound.std()
    seconds = np.arange(samples) / SAMPLE_RATE
    if rng.random() < 0.5:
        # Gusts: slow random changes of level.
        knots = rng.uniform(-12, 6, max(2, round(seconds[-1] * rng.uniform(0.3, 3))))
        gain = np.interp(seconds, np.linspace(0, seconds[-1], len(knots)), knots)
        sound *= 10 ** (gain / 20)
    if rng.random() < 0.3:
        mains = _MAINS[rng.integers(2)]
        strength = rng.uniform(0.3, 3)
        for harmonic in range(1, rng.integers(2, 8)):
            turn = 2 * np.pi * (mains * harmonic * seconds + rng.random())
            sound += strength / harmonic * np.sin(turn)
    if rng.random() < 0.3:
        clicks = rng.random(samples) < rng.uniform(2, 60) / SAMPLE_RATE
        sound += clicks * rng.normal(0, rng.uniform(5, 30), samples)
    return (0.25 * sound / np.abs(sound).max()).astype(np.float32)
