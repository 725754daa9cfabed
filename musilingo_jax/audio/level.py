"""How loud a waveform is, and how it is brought to a level.

An encoder that learnt from clips of one level hears another key in the same song at
half of it. So a song, or the part of it that is heard, is multiplied by the one number
that brings its root mean square to the level of those clips. A constant that a cheap
converter has added is taken away first, for it is not heard:

    recorded at      ▁▂▁▁▂▁        ▃▆▃▃▆▃        ▅█▅▅█▅
    encoded at       ▃▆▃▃▆▃        ▃▆▃▃▆▃        ▃▆▃▃▆▃

The features of a song are then the same at any level, to the bit if the levels differ
by a power of two, and else but for the rounding of float32. The level is that of all
that is heard, not of each chunk: a song's quiet beginning stays quiet.
"""

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from jaxtyping import Float

Block = Float[np.ndarray, " _"]  # Of any length; songs have blocks of several.
Tell = Callable[[str], None]
"""Takes what the listener should know: a clause whose subject is the file."""

SILENCE_PEAK = 1e-4  # −80 dB of full scale: less than the last of 14 bits.
_SILENCE_LEVEL = 1e-5  # −100 dB: a constant, or a click in ten seconds of silence.
# A song that must be raised by more has little above the noise of its recording.
_MUCH_DB = 40.0
# Samples of a song that are kept while its level is measured: two minutes at 24 kHz.
_HELD_SAMPLES = 120 * 24_000


class Meter:
    """Passes blocks on and measures them.

    Attributes:
      samples: how many have been passed on.
      peak: the largest of their absolute values.
      total, power: the sum of them, and of their squares.
    """

    def __init__(self, blocks: Iterable[Block]):
        self._blocks = blocks
        self.samples, self.peak, self.total, self.power = 0, 0.0, 0.0, 0.0

    def __iter__(self) -> Iterator[Block]:
        for block in self._blocks:
            self.samples += len(block)
            self.peak = max(self.peak, float(np.abs(block).max(initial=0.0)))
            self.total += float(block.sum(dtype=np.float64))
            self.power += float(np.square(block, dtype=np.float64).sum())
            yield block

    @property
    def silent(self) -> bool:
        """Whether no sample so far was above −80 dB of full scale.

        The clip may be silence, or its two channels may cancel each other out.
        """
        return self.peak < SILENCE_PEAK

    @property
    def level(self) -> float:
        """The root mean square about the mean so far, 1 being full scale."""
        return math.sqrt(max(0.0, self.power / max(1, self.samples) - self.mean**2))

    @property
    def mean(self) -> float:
        """The mean so far, which is near 0 for sound without a constant in it."""
        return self.total / max(1, self.samples)


def is_silent(waveform: Float[np.ndarray, " samples"]) -> bool:
    """Whether no sample is above −80 dB of full scale, as in `Meter`."""
    return bool(np.abs(waveform).max(initial=0.0) < SILENCE_PEAK)


def brought_to(
    level: float, read: Callable[[Tell], Iterator[Block]], tell: Tell
) -> Iterator[Block]:
    """A song at a level; silence stays as it is.

    The whole song is measured before its first block comes. A long one is not kept in
    memory but read again.

    Args:
      level: root mean square of the result, 1 being full scale; 0 for the song as it
        was recorded, without measuring it.
      read: returns the song's blocks, and tells what should be known of it.
      tell: gets what `read` tells, once, and how much a very quiet song was raised.
    """
    if not level:
        yield from read(tell)
        return
    meter = Meter(read(tell))
    held: list[Block] | None = []
    for block in meter:
        if held is not None:
            held.append(block)
        if meter.samples > _HELD_SAMPLES:
            held = None
    mean, gain = _line(level, meter, tell)
    for block in read(lambda notice: None) if held is None else held:
        yield (block - mean) * gain


def _line(level: float, meter: Meter, tell: Tell) -> tuple[np.float32, np.float32]:
    """What to take away from a measured song, and then to multiply it by."""
    if meter.silent:
        return np.float32(0), np.float32(1)
    if meter.level < _SILENCE_LEVEL:
        tell("is silent but for a constant, or for a click: expect no sensible answer")
        return np.float32(meter.mean), np.float32(1)
    gain = level / meter.level
    decibels = 20 * math.log10(gain)
    if decibels > _MUCH_DB:
        tell(
            f"is very quiet: it was raised by {decibels:.0f} dB to be heard, and the "
            "noise of its recording with it"
        )
    return np.float32(meter.mean), np.float32(gain)
