"""A song as a picture: its loudness, and which parts of it the model heard."""

import html
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from musilingo_jax.answering.excerpt import clock
from musilingo_jax.audio import waveforms
from musilingo_jax.runtime.errors import UserError

# Bars of a picture; of a phone's width, each has three pixels.
BARS = 120
# Samples per second that are looked at, and of each bar while a song is read.
_RATE = 4000
_STEP = 400
_WIDTH, _HEIGHT = 600, 64
# The least height of a bar, so that silence is seen, too.
_LEAST = 2.0


def loudness(path: Path, most_seconds: float) -> Float[np.ndarray, " BARS"]:
    """The peak of each of `BARS` equal parts of a song, the loudest one 1.

    The song is read in a stream: a number for each tenth of a second is in memory.

    Raises:
      UserError: it cannot be read, or is longer than `most_seconds`.
    """
    peaks: list[np.ndarray] = []
    rest = np.zeros(0, np.float32)
    for block in waveforms.read(path, sample_rate=_RATE, tell=lambda notice: None):
        block = np.concatenate([rest, np.abs(block)])
        whole = len(block) // _STEP * _STEP
        peaks.append(block[:whole].reshape(-1, _STEP).max(axis=1))
        if sum(map(len, peaks)) * _STEP > most_seconds * _RATE:
            raise UserError(
                f"{path}: lasts longer than the {most_seconds / 60:g} minutes that are "
                "taken here: cut out a part"
            )
        rest = block[whole:]
    if len(rest):
        peaks.append(rest.max(keepdims=True))
    steps = np.concatenate(peaks)
    places = np.arange(BARS) * len(steps) // BARS
    bars = np.maximum.reduceat(steps, places)
    return bars / max(float(bars.max()), 1e-6)


def picture(
    bars: Float[np.ndarray, " BARS"],
    heard: Sequence[tuple[float, float]],
    seconds: float,
) -> str:
    """An SVG of a song, in which what was heard is coloured.

    The page's style gives the colours (`wave-heard`, `wave-rest`), for day and night.

    Args:
      bars: of `loudness`.
      heard: where each part that the model heard begins and ends, in seconds.
      seconds: the length of the song.
    """
    width = _WIDTH / BARS
    rectangles = []
    for index, bar in enumerate(bars):
        middle = (index + 0.5) / BARS * seconds
        inside = any(start <= middle <= stop for start, stop in heard)
        height = max(_LEAST, float(bar) * _HEIGHT)
        rectangles.append(
            f'<rect class="{"wave-heard" if inside else "wave-rest"}" '
            f'x="{index * width:.1f}" y="{(_HEIGHT - height) / 2:.1f}" '
            f'width="{width * 0.7:.1f}" height="{height:.1f}" rx="1"/>'
        )
    label = html.escape(f"Waveform; heard: {spans(heard)} of {clock(seconds)}")
    return (
        f'<svg class="wave" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{label}" preserveAspectRatio="none">'
        f"{''.join(rectangles)}</svg>"
    )


def spans(heard: Sequence[tuple[float, float]]) -> str:
    """The parts that were heard, as people write them."""
    return ", ".join(f"{clock(start)}–{clock(stop)}" for start, stop in heard)
