"""A stand-in for the soundfont player: a note is a decaying sine, a stroke a click.

    monkeypatch.setitem(sys.modules, "tinysoundfont", stand_in())

It has what `recipes/soundfont.py` uses of tinysoundfont's binding, and so renders whole
pieces without a soundfont: notes begin and end where the score says, at their pitch and
in tune. A "soundfont" is a file that holds the number of partials of its notes.
"""

import enum
import types
from pathlib import Path

import numpy as np

_DECAY = 1.5  # 1 / seconds
_STROKE = 0.05  # seconds


class OutputMode(enum.Enum):
    """As in the binding."""

    Mono = 0


class SoundFont:
    """As in the binding; one voice for each note that was begun and has not ended."""

    def __init__(self, path):
        try:
            self._partials = int(Path(path).read_text())
        except (ValueError, UnicodeDecodeError) as error:
            raise RuntimeError("cannot be parsed") from error
        self._rate, self._voices, self._tuning = 0, {}, {}
        self._drums = set()

    def set_output(self, mode, rate, gain):
        assert mode is OutputMode.Mono and gain <= 0
        self._rate = rate

    def set_max_voices(self, count):
        assert count > 0

    def reset(self):
        self._voices = {}

    def channel_set_bank(self, channel, bank):
        (self._drums.add if bank == 128 else self._drums.discard)(channel)

    def channel_set_preset_number(self, channel, program, drums):
        assert 0 <= program < 128 and drums == (channel in self._drums)

    def channel_set_tuning(self, channel, semitones):
        self._tuning[channel] = semitones

    def channel_note_on(self, channel, pitch, velocity):
        assert 0 < velocity <= 1
        self._voices[channel, pitch] = (0, velocity)

    def channel_note_off(self, channel, pitch):
        self._voices.pop((channel, pitch), None)

    def render(self, buffer, mix):
        assert not mix
        sound = buffer.view(np.float32)
        sound[:] = 0
        for (channel, pitch), (heard, velocity) in self._voices.items():
            times = (heard + np.arange(len(sound))) / self._rate
            key = pitch + self._tuning[channel]
            phase = 2 * np.pi * 440 * 2 ** ((key - 69) / 12) * times
            if channel in self._drums:
                wave = np.sin(phase) * (times < _STROKE)
            else:
                wave = sum(np.sin(n * phase) / n for n in range(1, self._partials + 1))
            sound += (0.1 * velocity * wave * np.exp(-_DECAY * times)).astype("f4")
            self._voices[channel, pitch] = (heard + len(sound), velocity)


def stand_in():
    """What `import tinysoundfont` should give."""
    binding = types.SimpleNamespace(SoundFont=SoundFont, OutputMode=OutputMode)
    return types.SimpleNamespace(_tinysoundfont=binding)


def write(path, partials):
    """Writes a "soundfont"."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(partials))
    return path
