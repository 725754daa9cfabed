"""Sound in NumPy files, the format in which MusiLingo's authors keep MusicCaps."""

import contextlib
import tokenize
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from musilingo_jax.audio.formats.sound import (
    Mixer,
    Sound,
    block_frames,
    check,
    check_start,
)
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.paths import open_regular_file

MAGIC = b"\x93NUMPY"

# What Python's parser of literals and NumPy's dtypes raise for a damaged header.
_HEADER_ERRORS = (
    ArithmeticError,
    LookupError,
    MemoryError,
    OSError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
    tokenize.TokenError,
)
# Sample type → the value of full scale.
_FULL_SCALES = {
    np.dtype(order + name): scale
    for order in "<>"
    for name, scale in (
        ("f2", 1),
        ("f4", 1),
        ("f8", 1),
        ("i1", 2**7),
        ("u1", 2**7),
        ("i2", 2**15),
        ("i4", 2**31),
    )
}


@dataclass(frozen=True)
class _Layout:
    """How samples are arranged in the file.

    Attributes:
      offset: bytes before the first sample.
      dtype: of a sample.
      channels, samples: how many channels, and samples per channel, it has.
      by_channel: whether all samples of a channel are consecutive, rather than all
        channels of a moment.
    """

    offset: int
    dtype: np.dtype
    channels: int
    samples: int
    by_channel: bool


def open_array(path: Path, rate: int | None, skip: int) -> Sound:
    """Opens an array, leaving out its first `skip` seconds.

    The shorter axis is that of the channels. The array is read block by block rather
    than mapped, so that a long one does not fill the memory. Pickles are refused.

    Args:
      path: the file.
      rate: samples per second.
      skip: seconds at the beginning to leave out.

    Raises:
      UserError: the file does not hold samples, has impossible values, is damaged or
        cut off, or `rate` is None.
    """
    if rate is None:
        raise UserError(
            f"{path}: is an array, which does not store its sample rate; give the "
            "rate in the annotations"
        )
    layout = _layout(path)
    check(path, rate=rate, channels=layout.channels)
    expected = layout.channels * layout.samples * layout.dtype.itemsize
    actual = path.stat().st_size - layout.offset
    if actual < expected:
        raise UserError(
            f"{path}: cut off: it has {actual:,} bytes of {expected:,}; get or export "
            "it again"
        )
    check_start(path, seconds=layout.samples / rate, skip=skip)
    notices = []
    if actual > expected:
        notices.append(
            f"has {actual - expected:,} bytes after its array, which are not heard: "
            "another array, perhaps"
        )
    return Sound(rate, _blocks(path, layout, rate, skip, notices), notices)


def _layout(path: Path) -> _Layout:
    """The arrangement that the header describes.

    Raises:
      UserError: the header is damaged, or the array cannot be sound.
    """
    try:
        with open_regular_file(path) as file:
            readers = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }
            read_header = readers[np.lib.format.read_magic(file)]
            shape, by_column, dtype = read_header(file)
            offset = file.tell()
    except _HEADER_ERRORS as error:
        raise UserError(
            f"{path}: cannot be decoded: its NumPy header is damaged"
        ) from error
    if dtype not in _FULL_SCALES:
        raise UserError(
            f"{path}: contains {dtype}; samples are float16, float32, float64, int32, "
            "int16, int8 or uint8"
        )
    if len(shape) not in (1, 2) or min(shape) < 0:
        raise UserError(
            f"{path}: has the shape {list(shape)}; sound has the shape [samples], "
            "[channels, samples] or [samples, channels]"
        )
    rows, columns = shape if len(shape) == 2 else (1, *shape)
    return _Layout(
        offset=offset,
        dtype=dtype,
        channels=min(rows, columns),
        samples=max(rows, columns),
        by_channel=(rows <= columns) != by_column,
    )


def _blocks(
    path: Path, layout: _Layout, rate: int, skip: int, notices: list[str]
) -> Generator[Float[np.ndarray, " frames"], None, None]:
    channels, samples, dtype = layout.channels, layout.samples, layout.dtype
    size = block_frames(rate, channels)
    mixer = Mixer(notices)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open_regular_file(path))
        stack.callback(mixer.finish)

        def numbers(first: int, count: int) -> np.ndarray:
            file.seek(layout.offset + first * dtype.itemsize)
            found = np.fromfile(file, dtype, count)
            if len(found) < count:
                raise UserError(f"{path}: became shorter while it was read")
            return found

        for first in range(skip * rate, samples, size):
            count = min(size, samples - first)
            if layout.by_channel:
                parts = [numbers(c * samples + first, count) for c in range(channels)]
                block = np.stack(parts, axis=1)
            else:
                block = numbers(first * channels, count * channels)
                block = block.reshape(count, channels)
            # Values out of range become infinite here, and are refused as such.
            with np.errstate(over="ignore", invalid="ignore"):
                mean = block.mean(axis=1, dtype=np.float64)
                if dtype.kind == "u":
                    mean -= 2**7
                mean = (mean / _FULL_SCALES[dtype]).astype(np.float32)
                values = block.astype(np.float32)
                if dtype.kind == "u":
                    values -= 2**7
                mixer.look(values / _FULL_SCALES[dtype], mean)
            yield mean
