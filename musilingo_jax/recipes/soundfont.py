"""Plays a piece with soundfonts into a waveform, far faster than real time."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from musilingo_jax.corpora.synthetic import (
    BASS,
    CHORDS,
    DRUMS,
    FIGURE,
    LEAD,
    LEAD_IN,
    Piece,
)
from musilingo_jax.runtime.errors import UserError

SAMPLE_RATE = 24_000  # of all that the recipes render
# The parts of a piece, in the order in which they are played.
CHANNELS = (LEAD, BASS, CHORDS, FIGURE, DRUMS)
Waveform = Float[np.ndarray, " samples"]

STANDARD_KIT = 0
KITS = (STANDARD_KIT, 8, 16, 24, 25, 32, 40)
"""Drum kits: standard, room, power, electronic, TR-808, jazz, brush."""
_DRUM_BANK = 128  # General MIDI's percussion
_GAIN = -6.0  # decibels, so that many voices together stay below 1
_VOICES = 128  # that sound at the same time


def render(
    piece: Piece,
    soundfonts: Mapping[int, str | Path],
    *,
    sample_rate: int,
    drum_tuning: float,
    drum_kit: int,
    colour: Callable[[Waveform], Waveform],
) -> Waveform:
    """Renders a piece: float32, mono, peak below 1.

    Each part is rendered alone and brought to its loudness in the mix, because
    soundfonts disagree on how loud an instrument is. So the lead always leads.

    Args:
      piece: what is played.
      soundfonts: for each of `CHANNELS`, the file that plays it.
      sample_rate: samples per second.
      drum_tuning: semitones by which the drums are higher than in the file.
      drum_kit: one of `KITS`; a file that does not have it plays its standard kit.
      colour: applied to the sound of each part, for other timbres than the file's.

    Raises:
      UserError: a soundfont cannot be read, or `tinysoundfont` is not installed.
    """
    samples = round(piece.duration * sample_rate)
    mix = np.zeros(samples, np.float32)
    for channel in CHANNELS:
        notes = piece.notes[piece.notes["channel"] == channel]
        if not len(notes):
            continue
        font = _soundfont(str(soundfonts[channel]), sample_rate)
        tuning = drum_tuning if channel == DRUMS else piece.cents / 100
        program = drum_kit if channel == DRUMS else piece.programs[channel]
        part = colour(_play(font, piece, channel, program, notes, tuning, sample_rate))
        part = part[-samples:]
        loudness = _loudness(part, sample_rate)
        if loudness > 0:
            mix += part * np.float32(10 ** (piece.levels[channel] / 20) / loudness)
    return level(mix)


def level(waveform: Waveform) -> Waveform:
    """A common loudness, and a peak that survives 16 bits and lossy codecs."""
    loudness = np.sqrt(np.mean(np.square(waveform))) + 1e-9
    return waveform * np.float32(
        min(0.1 / loudness, 0.9 / (abs(waveform).max() + 1e-9))
    )


@functools.cache
def _soundfont(path: str, sample_rate: int) -> Any:
    """Loads a soundfont once per process; large ones take seconds."""
    try:
        # Here, because only rendering needs it, and `make recipe` installs it.
        from tinysoundfont import _tinysoundfont as tiny  # type: ignore
    except ImportError as error:
        raise UserError(
            "rendering needs tinysoundfont: pip install --no-deps tinysoundfont==0.3.7"
        ) from error
    if not Path(path).is_file():
        raise UserError(f"{path}: no such soundfont; give --soundfont a .sf2 or .sf3")
    try:
        font = tiny.SoundFont(path)
    except Exception as error:  # The binding raises a bare RuntimeError.
        raise UserError(f"{path}: not a readable soundfont: {error}") from error
    font.set_output(tiny.OutputMode.Mono, sample_rate, _GAIN)
    font.set_max_voices(_VOICES)
    return font


def _play(
    font: Any,
    piece: Piece,
    channel: int,
    program: int,
    notes: np.ndarray,
    tuning: float,
    sample_rate: int,
) -> Waveform:
    """One channel alone, from `-LEAD_IN` on: notes still ring as the clip begins."""
    font.reset()  # Lets the last sounds fade for 10 ms, within the lead-in.
    font.channel_set_bank(channel, _DRUM_BANK if channel == DRUMS else 0)
    font.channel_set_preset_number(channel, program, channel == DRUMS)
    font.channel_set_tuning(channel, tuning)
    events = [(start, 1, n) for n, start in enumerate(notes["start"])]
    if channel != DRUMS:
        events += [(end, 0, n) for n, end in enumerate(notes["end"])]
    sound = np.zeros(round((LEAD_IN + piece.duration) * sample_rate), np.float32)
    buffer = sound.view(np.uint8)  # The binding takes bytes.
    done = 0  # samples
    for seconds, begins, n in sorted(events):
        place = min(round((LEAD_IN + seconds) * sample_rate), len(sound))
        if place > done:
            font.render(buffer[4 * done : 4 * place], False)
            done = place
        pitch = int(notes["pitch"][n])
        if begins:
            font.channel_note_on(channel, pitch, float(notes["velocity"][n] / 127))
        else:
            font.channel_note_off(channel, pitch)
    if done < len(sound):
        font.render(buffer[4 * done :], False)
    return sound


def _loudness(part: Waveform, sample_rate: int) -> float:
    """Root mean square of the louder half of the sounding tenths of a second."""
    tenth = sample_rate // 10
    power = np.square(part[: len(part) // tenth * tenth].reshape(-1, tenth)).mean(1)
    sounding = np.sort(power[power > 1e-3 * power.max()])
    return float(np.sqrt(sounding[len(sounding) // 2 :].mean())) if len(sounding) else 0
