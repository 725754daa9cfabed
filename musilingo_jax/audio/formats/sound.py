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
# Equal neighbours above this are the flat top of a wave that was cut off: 1 dB below
# full scale, for converters and limiters clip a little below it.
_CLIPPED = 0.89
_CLIPPED_SHARE = 1e-3
# Power of the channels' mean, relative to their mean power: −20 dB. Two channels with
# nothing in common have −3 dB, and one that is silent makes it −3 dB, too.
_CANCELLED = 1e-2


class Sound(NamedTuple):
    """An opened file.

    Attributes:
      rate: samples per second.
      blocks: its samples, the mean of its channels, about a second at a time. The file
        is closed at their end, or by `blocks.close()`.
      notices: what the listener should know: sound that is missing, or that is in the
        file and not heard. Clauses whose subject is the file; those about the samples
        are added at the end of `blocks`.
    """

    rate: int
    blocks: Generator[Float[np.ndarray, " frames"], None, None]
    notices: list[str]


class Mixer:
    """Averages the channels, and notices what that or a converter did to the sound."""

    def __init__(self, notices: list[str]):
        self._notices = notices
        self._values = self._flat = 0
        self._power = self._mean_power = 0.0
        self._channels = 1

    def mix(
        self, block: Float[np.ndarray, "frames channels"]
    ) -> Float[np.ndarray, " frames"]:
        """The mean of the channels, in float32."""
        mean = block.mean(axis=1, dtype=np.float32)
        self.look(block, mean)
        return mean

    def look(
        self,
        block: Float[np.ndarray, "frames channels"],
        mean: Float[np.ndarray, " frames"],
    ) -> None:
        """Looks at the next samples, with full scale = 1, and at their mean."""
        # Samples may be infinite, which is refused by whoever reads the blocks.
        with np.errstate(over="ignore", invalid="ignore"):
            flat = (block[1:] == block[:-1]) & (np.abs(block[1:]) >= _CLIPPED)
            self._flat += int(np.count_nonzero(flat))
            self._values += block.size
            self._channels = block.shape[1]
            if block.shape[1] > 1:
                self._power += float(np.square(block, dtype=np.float64).mean(1).sum())
                self._mean_power += float(np.square(mean, dtype=np.float64).sum())

    def finish(self) -> None:
        """Adds what was noticed to the notices."""
        if self._channels > 2:
            self._notices.append(
                f"has {self._channels} channels, of which the mean is heard"
            )
        if self._flat > _CLIPPED_SHARE * self._values:
            share = 100 * self._flat / self._values
            self._notices.append(
                f"is clipped: {share:.1f} % of its samples are flat tops near full "
                "scale, and what was above them is lost"
            )
        if self._mean_power < _CANCELLED * self._power:
            self._notices.append(
                "has channels that nearly cancel each other out: their mean, which is "
                "heard, is more than 20 dB below them"
            )


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
