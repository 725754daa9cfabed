"""What every decoder gives: a rate, and samples as they come."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from musilingo_jax.runtime.errors import UserError

# A header that says something else is damaged, and obeying it could fill the memory.
_RATES = (1_000, 1_000_000)
_MOST_CHANNELS = 256
_BLOCK_VALUES = 1 << 20  # samples of all channels decoded at once, at most


class Sound(NamedTuple):
    """An opened file.

    Attributes:
      rate: samples per second.
      blocks: its samples, the mean of its channels, about a second at a time; the file
        is closed at their end or with `blocks.close()`.
    """

    rate: int
    blocks: Iterator[Float[np.ndarray, " frames"]]


def check(path: Path, *, rate: int, channels: int) -> None:
    """Refuses what no recording has.

    Raises:
      UserError: with what the file says of itself.
    """
    if not 1 <= channels <= _MOST_CHANNELS:
        raise UserError(f"{path}: says that it has {channels} channels")
    if not _RATES[0] <= rate <= _RATES[1]:
        raise UserError(f"{path}: says that it has {rate} samples per second")


def check_start(path: Path, *, seconds: float, skip: int) -> None:
    """Refuses to hear a song from a moment after its end.

    Raises:
      UserError: with how long it is.
    """
    if skip and skip >= seconds:
        raise UserError(
            f"{path}: lasts {seconds:.1f} s, so there is nothing to hear after second "
            f"{skip}"
        )


def block_frames(rate: int, channels: int) -> int:
    """Moments decoded at once: a second of them, unless there are many channels."""
    return max(1, min(rate, _BLOCK_VALUES // channels))
