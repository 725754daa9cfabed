"""Chunks of songs → batches of few shapes.

The encoder compiles a program for each shape of batch. So a batch holds chunks of
equally many pooling windows, and the number of its rows is a power of two:

    chunks, in windows     A 3   A 3   A 1   B 3   B 2   C 3   D 3
    batches of 4           [A 3  A 3  B 3  C 3]   [A 1]   [B 2]   [D 3]
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

# Full batches that a chunk of a rare length waits for others of its length.
_PATIENCE = 16


class Chunk(NamedTuple):
    """A stretch of a song that the encoder gets at once.

    Attributes:
      song: the song's number, from 0.
      number: the chunk's number within the song, from 0.
      samples: the waveform.
      frames: how many frames the encoder makes of it.
      windows: how many pooling windows these frames fill, the last one in part.
    """

    song: int
    number: int
    samples: Float[np.ndarray, " samples"]
    frames: int
    windows: int


def batches(chunks: Iterable[Chunk | None], size: int) -> Iterator[list[Chunk]]:
    """Groups of up to `size` chunks of equally many windows.

    A group is yielded as soon as it is full. It is yielded before that where chunks of
    its length are rare, so that no song waits for long, and at each None. Which chunks
    share a group depends on nothing but their order.
    """
    waiting: dict[int, list[Chunk]] = {}  # windows → chunks; the oldest group first
    since: dict[int, int] = {}
    for place, chunk in enumerate(chunks):
        if chunk is None:
            yield from waiting.values()
            waiting.clear()
            continue
        if chunk.windows not in waiting:
            waiting[chunk.windows] = []
            since[chunk.windows] = place
        waiting[chunk.windows].append(chunk)
        if len(waiting[chunk.windows]) == size:
            yield waiting.pop(chunk.windows)
        oldest = next(iter(waiting), None)
        if oldest is not None and place - since[oldest] >= _PATIENCE * size:
            yield waiting.pop(oldest)
    yield from waiting.values()


def count_rows(chunks: int, *, batch_size: int, devices: int) -> int:
    """Rows of a batch of `chunks` chunks: on each device a power of two.

    A full batch has `batch_size` rows, rounded up to a multiple of `devices`. Smaller
    batches, at the end of a corpus, have few different sizes, so that there is little
    to compile, and a single short song is not padded to a full batch.
    """
    most = -(-batch_size // devices)
    needed = -(-chunks // devices)
    return devices * min(most, 1 << (needed - 1).bit_length())


def stack(
    batch: list[Chunk], *, rows: int, samples: int
) -> tuple[Float[np.ndarray, "rows samples"], Int[np.ndarray, " rows"]]:
    """The chunks as rows of one array, and their lengths; the rest is zeros."""
    waveform = np.zeros((rows, samples), np.float32)
    lengths = np.zeros(rows, np.int32)
    for row, chunk in enumerate(batch):
        waveform[row, : len(chunk.samples)] = chunk.samples
        lengths[row] = len(chunk.samples)
    return waveform, lengths
