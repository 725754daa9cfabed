"""Waveforms → pooled features of the frozen encoder, a few vectors per song.

The encoder's cost grows with the square of what it hears at once, so songs are cut into
chunks. A chunk is a whole number of pooling windows, hence a song gives the same number
of vectors as if it were encoded whole, each the mean over the same frames; a song that
fits into one chunk *is* encoded whole. Chunks of all songs share batches of few shapes:

    song A   [· · · · · ·|· · ·]     chunks of 2 windows of 3 frames
    song B   [· · · ·]

    batch    A · · · · · ·           batch    A · · ·           each row is masked to
             B · · · · . .                                      its own length
"""

import functools
import itertools
import math
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from musilingo_jax import audio
from musilingo_jax.errors import UserError
from musilingo_jax.models.adapter import pool, windows_of
from musilingo_jax.models.mert import Mert, MertConfig
from musilingo_jax.sharding import RULES, batch_sharding

# Batches on the device at once: one being computed and one waiting for it.
_IN_FLIGHT = 2


@dataclass(frozen=True)
class FeatureConfig:
    """How songs become vectors.

    Attributes:
      window_frames: the encoder's frames that are averaged into one vector.
      chunk_windows: vectors that are computed from one stretch of sound; what the
        encoder hears at once is this long.
      batch_size: chunks encoded together.
    """

    window_frames: int
    chunk_windows: int
    batch_size: int

    @classmethod
    def from_config(cls, config: ConfigDict) -> "FeatureConfig":
        """The section `features`, as far as it is about this.

        Raises:
          UserError: a number is missing or less than 1.
        """
        numbers = {field.name: config.features.get(field.name) for field in fields(cls)}
        for name, number in numbers.items():
            if not isinstance(number, int) or number < 1:
                raise UserError(
                    f"config.features.{name} is {number}: it must be a whole number, 1 "
                    "or more"
                )
        return cls(**numbers)


class _Chunk(NamedTuple):
    song: int
    number: int
    samples: Float[np.ndarray, " chunk_samples"]
    length: int
    windows: int


def encode(
    mert: Mert,
    waveforms: Iterable[Float[np.ndarray, " samples"]],
    config: FeatureConfig,
    mesh: jax.sharding.Mesh,
) -> list[Float[np.ndarray, "windows width"]]:
    """The pooled features of each waveform.

    What a song gets does not depend on the songs beside it. `waveforms` is read as the
    device works, so that it may be a generator that decodes files.

    Args:
      mert: the encoder.
      waveforms: mono songs at the encoder's sample rate, of any length from one frame.
      config: windows, chunks and batches.
      mesh: the chunks of a batch are spread over its rows.

    Returns:
      For each waveform, in order, float32 [⌈frames / window_frames⌉, width].
    """
    devices = math.prod(mesh.shape[axis] for axis in RULES["batch"])
    running: deque[tuple[list[_Chunk], jax.Array]] = deque()
    done: list[tuple[int, int, np.ndarray]] = []

    def collect() -> None:
        batch, pooled = running.popleft()
        for chunk, vectors in zip(batch, np.asarray(pooled), strict=False):
            done.append((chunk.song, chunk.number, vectors[: chunk.windows]))

    for batch in _batches(_cut(waveforms, mert.config, config), config.batch_size):
        while len(running) >= _IN_FLIGHT:
            collect()
        waveform, lengths = _stack(batch, rows=_rows(len(batch), config, devices))
        waveform, lengths = jax.device_put((waveform, lengths), batch_sharding(mesh))
        pooled = _pooled(mert, waveform, lengths, window_frames=config.window_frames)
        running.append((batch, pooled))
    while running:
        collect()

    done.sort(key=lambda entry: entry[:2])
    songs = itertools.groupby(done, key=lambda entry: entry[0])
    return [np.concatenate([vectors for *_, vectors in parts]) for _, parts in songs]


@functools.partial(jax.jit, static_argnames="window_frames")
def _pooled(
    mert: Mert,
    waveform: Float[Array, "batch samples"],
    lengths: Int[Array, " batch"],
    *,
    window_frames: int,
) -> Float[Array, "batch windows width"]:
    """Pools inside the encoder: only means leave it, never the hidden states."""
    return mert(
        waveform,
        lengths,
        reduce=lambda hidden, valid: pool(hidden, valid, window_frames)[0],
        remat=False,
    )


def _cut(
    waveforms: Iterable[np.ndarray], mert: MertConfig, config: FeatureConfig
) -> Iterator[_Chunk]:
    """The chunks of all songs, each in a buffer of a whole number of windows.

    A chunk has the most samples that make no more frames than it should have, and the
    next one starts with the first sample of the first frame that it lacks. So the
    frames of all chunks are those of the whole song, none missing and none twice.
    """

    def most_samples(frames: int) -> int:
        return mert.samples_for_frames(frames + 1) - 1

    chunk_frames = config.chunk_windows * config.window_frames
    for song, waveform in enumerate(waveforms):
        if mert.frames(len(waveform)) < 1:
            raise ValueError(f"{len(waveform)} samples are less than one frame")
        pieces, lengths = audio.chunks(
            waveform,
            chunk_samples=most_samples(chunk_frames),
            hop_samples=chunk_frames * mert.samples_per_frame,
        )
        for number, (samples, length) in enumerate(zip(pieces, lengths, strict=True)):
            windows = windows_of(mert.frames(int(length)), config.window_frames)
            buffer = most_samples(windows * config.window_frames)
            yield _Chunk(song, number, samples[:buffer], length, windows)


def _batches(chunks: Iterable[_Chunk], size: int) -> Iterator[list[_Chunk]]:
    """Up to `size` chunks of equally many windows, as soon as there are so many."""
    waiting: defaultdict[int, list[_Chunk]] = defaultdict(list)
    for chunk in chunks:
        waiting[chunk.windows].append(chunk)
        if len(waiting[chunk.windows]) == size:
            yield waiting.pop(chunk.windows)
    yield from waiting.values()


def _rows(count: int, config: FeatureConfig, devices: int) -> int:
    """Rows of a batch of `count` chunks: a power of two on each device.

    A full batch has its own size; smaller ones, at the end, few different ones, so that
    there is little to compile and a single short song is no full batch of padding.
    """
    most = -(-config.batch_size // devices)
    needed = -(-count // devices)
    return devices * min(most, 1 << (needed - 1).bit_length())


def _stack(
    batch: list[_Chunk], *, rows: int
) -> tuple[Float[np.ndarray, "batch samples"], Int[np.ndarray, " batch"]]:
    """The chunks one below the other, then rows of silence to fill the shape."""
    waveform = np.zeros((rows, len(batch[0].samples)), np.float32)
    lengths = np.zeros(rows, np.int32)
    for row, chunk in enumerate(batch):
        waveform[row, : chunk.length] = chunk.samples[: chunk.length]
        lengths[row] = chunk.length
    return waveform, lengths
