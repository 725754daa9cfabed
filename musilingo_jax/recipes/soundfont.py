"""A piece and a soundfont become a waveform, far faster than one could listen."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

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

# The parts of a piece, in the order in which they are played.
CHANNELS = (LEAD, BASS, CHORDS, FIGURE, DRUMS)
Waveform = Float[np.ndarray, " samples"]


def render(
    piece: Piece,
    soundfonts: Mapping[int, str | Path],
    *,
    sample_rate: int,
    drum_tuning: float,
    colour: Callable[[Waveform], Waveform],
) -> Waveform:
    """The piece as sound: float32, mono, peak below 1.

    Each part is rendered alone and brought to its loudness in the mix, because
    soundfonts disagree on how loud an instrument is; so the lead always leads.

    Args:
      piece: what is played.
      soundfonts: of each of `CHANNELS`, the file that plays it.
      sample_rate: samples per second.
      drum_tuning: semitones by which the drums are higher than in the file.
      colour: what is done to the sound of each part, for other timbres than the file's.

    Raises:
      UserError: if a soundfont cannot be read or `tinysoundfont` is not installed.
    """
    samples = round(piece.duration * sample_rate)
    mix = np.zeros(samples, np.float32)
    for channel in CHANNELS:
        notes = piece.notes[piece.notes["channel"] == channel]
        if not len(notes):
            continue
        font = _soundfont(str(soundfonts[channel]), sample_rate)
        tuning = drum_tuning if channel == DRUMS else piece.cents / 100
        part = colour(_play(font, piece, channel, notes, tuning, sample_rate))
        part = part[-samples:]
        loudness = _loudness(part, sample_rate)
        if loudness > 0:
            mix += part * np.float32(10 ** (piece.levels[channel] / 20) / loudness)
    return level(mix)


@functools.cache
def _soundfont(path: str, sample_rate: int):
    """Loads a soundfont once per process; the large ones take seconds."""
    try:
        # Only this program plays soundfonts; composing does without.
        from tinysoundfont import _tinysoundfont as tiny
    except ImportError as error:
        raise UserError(
            "rendering needs tinysoundfont: pip install --no-deps tinysoundfont"
        ) from error
    if not Path(path).is_file():
        raise UserError(f"{path}: no such soundfont; give --soundfont a .sf2 or .sf3")
    try:
        font = tiny.SoundFont(path)
    except Exception as error:  # the binding raises a bare RuntimeError
        raise UserError(f"{path}: not a readable soundfont: {error}") from error
    font.set_output(tiny.OutputMode.Mono, sample_rate, -6.0)
    font.set_max_voices(128)
    return font


def _play(font, piece, channel, notes, tuning, sample_rate):
    """One channel alone, from `-LEAD_IN` on: notes still ring as the clip begins."""
    font.reset()  # lets the last sounds fade for 10 ms; the lead-in swallows that
    font.channel_set_bank(channel, 128 if channel == DRUMS else 0)
    program = 0 if channel == DRUMS else piece.programs[channel]
    font.channel_set_preset_number(channel, program, channel == DRUMS)
    font.channel_set_tuning(channel, tuning)
    events = [(start, 1, n) for n, start in enumerate(notes["start"])]
    if channel != DRUMS:
        events += [(end, 0, n) for n, end in enumerate(notes["end"])]
    sound = np.zeros(round((LEAD_IN + piece.duration) * sample_rate), np.float32)
    buffer = sound.view(np.uint8)  # the binding takes bytes
    here = 0
    for seconds, on, n in sorted(events):
        place = min(round((LEAD_IN + seconds) * sample_rate), len(sound))
        if place > here:
            font.render(buffer[4 * here : 4 * place], False)
            here = place
        if on:
            velocity = notes["velocity"][n] / 127
            font.channel_note_on(channel, int(notes["pitch"][n]), float(velocity))
        else:
            font.channel_note_off(channel, int(notes["pitch"][n]))
    if here < len(sound):
        font.render(buffer[4 * here :], False)
    return sound


def _loudness(part, sample_rate):
    """Root mean square of the louder half of the sounding tenths of a second."""
    tenth = sample_rate // 10
    power = np.square(part[: len(part) // tenth * tenth].reshape(-1, tenth)).mean(1)
    sounding = np.sort(power[power > 1e-3 * power.max()])
    return float(np.sqrt(sounding[len(sounding) // 2 :].mean())) if len(sounding) else 0


def level(waveform: Waveform) -> Waveform:
    """A common loudness, and a peak that survives 16 bits and lossy codecs."""
    loudness = np.sqrt(np.mean(np.square(waveform))) + 1e-9
    return waveform * np.float32(
        min(0.1 / loudness, 0.9 / (abs(waveform).max() + 1e-9))
    )
