"""Music whose answers are known: C G Am F, a bar each, at 120 per minute."""

import numpy as np

RATE = 22_050
BPM = 120
CHORDS = {
    "C major": (48, 60, 64, 67),
    "G major": (43, 59, 62, 67),
    "A minor": (45, 57, 60, 64),
    "F major": (41, 57, 60, 65),
}


def tone(pitch, seconds):
    time = np.arange(round(seconds * RATE)) / RATE
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    wave = sum(np.sin(2 * np.pi * frequency * n * time) / n**2 for n in (1, 2, 3, 4))
    return wave * np.exp(-1.2 * time) * np.minimum(1, time * 200)


def click(strong):
    time = np.arange(round(0.06 * RATE)) / RATE
    low = np.sin(2 * np.pi * 70 * time) * (1.0 if strong else 0.0)
    noise = np.random.default_rng(0).normal(0, 0.3, len(time))
    return (low + noise * 0.5) * np.exp(-60 * time)


def song(bars=12, beats=4, bpm=BPM):
    """A waveform whose first bar begins at 0."""
    beat = 60 / bpm
    wave = np.zeros(round(bars * beats * beat * RATE) + RATE // 10)
    for bar in range(bars):
        chord = list(CHORDS.values())[bar % 4]
        for pitch in chord:
            add(wave, bar * beats * beat, 0.2 * tone(pitch, beats * beat))
        for n in range(beats):
            add(wave, (bar * beats + n) * beat, 0.5 * click(n == 0))
    return (0.5 * wave / np.abs(wave).max()).astype(np.float32)


def add(wave, start, sound):
    place = round(start * RATE)
    sound = sound[: len(wave) - place]
    wave[place : place + len(sound)] += sound
