"""What every decoder returns: a sample rate, and samples as they are decoded."""

from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from musilingo_jax.runtime.errors import UserError

# Headers with other values are damaged, and trusting them could fill the memory.
_RATES = (1_000, 1_000_000)
_MOST_CHANNELS = 256
_BLOCK_VALUES = 1 << 20  # Samples of all channels together that a block has at most.


class Sound(NamedTuple):
    """An opened file.

    Attributes:
      rate: samples per second.
      blocks: its samples, the mean of its channels, about a second at a time. The file
        is closed at their end, or by `blocks.close()`.
    """

    rate: int
    blocks: Generator[Float[np.ndarray, " frames"], None, None]


def check(path: Path, *, rate: int, channels: int) -> None:
    """Checks what a header says of the sound.

    Raises:
      UserError: no recording has such a sample rate or so many channels.
    """
    if not 1 <= channels <= _MOST_CHANNELS:
        raise UserError(f"{path}: its header says that it has {channels} channels")
    if not _RATES[0] <= rate <= _RATES[1]:
        raise UserError(
            f"{path}: its header says that it has {rate} samples per second"
        )


def check_start(path: Path, *, seconds: float, skip: int) -> None:
    """Checks that a song does not end before the part that is asked for.

    Raises:
      UserError: it does.
    """
    if skip and skip >= seconds:
        raise UserError(
            f"{path}: too short: it lasts {seconds:.1f} s, but a part after {skip} s "
            "was asked for"
        )


def block_frames(rate: int, channels: int) -> int:
    """Frames of a block: a second of them, fewer if there are many channels."""
    return max(1, min(rate, _BLOCK_VALUES // channels))
