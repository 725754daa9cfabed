"""Waveforms → features of the frozen encoder, a few vectors per song.

The encoder's cost grows with the square of what it hears at once, so songs are cut into
chunks while they are decoded. A chunk is a whole number of pooling windows, hence a
song gives the same number of vectors as if it were encoded whole, each the mean over
the same frames; a song that fits into one chunk *is* encoded whole. Chunks of all songs
share batches of few shapes, and a song is done when all its chunks are:

    song A   [· · · · · ·|· · ·]     chunks of 2 windows of 3 frames
    song B   [· · · ·]

    batch    A · · · · · ·           batch    A · · ·           each row is masked to
             B · · · · . .                                      its own length
"""

import functools
import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from musilingo_jax.audio import waveforms
from musilingo_jax.models.adapter import pool, windows_of
from musilingo_jax.models.mert import Mert, MertConfig
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.sharding import RULES, batch_sharding

# Batches on the device at once: one being computed and one waiting for it.
_IN_FLIGHT = 2
# Full batches that a chunk of a rare length waits for others of its length.
_PATIENCE = 16

# What is kept of a song:
#   pooled   [windows, width]      the mean over all layers, averaged over windows
#   layers   [depth + 1, width]    each layer averaged over the song's frames
#   frames   [frames, width]       the mean over all layers
REDUCTIONS = ("pooled", "layers", "frames")


@dataclass(frozen=True)
class FeatureConfig:
    """How songs become vectors.

    Attributes:
      window_frames: the encoder's frames that are averaged into one vector.
      chunk_windows: vectors that are computed from one stretch of sound; what the
        encoder hears at once is this long.
      batch_size: chunks encoded together.
      reduction: one of `REDUCTIONS`; adapters here read "pooled", others may not.
    """

    window_frames: int
    chunk_windows: int
    batch_size: int
    reduction: str = "pooled"

    @classmethod
    def from_config(cls, config: ConfigDict) -> "FeatureConfig":
        """The section `features`, as far as it is about this.

        Raises:
          UserError: a number is missing or less than 1, or there is no such reduction.
        """
        found = {entry.name: config.features.get(entry.name) for entry in fields(cls)}
        # Configurations from before there was a choice do not make one.
        found["reduction"] = found["reduction"] or cls.reduction
        for name in ("window_frames", "chunk_windows", "batch_size"):
            if not isinstance(found[name], int) or found[name] < 1:
                raise UserError(
                    f"config.features.{name} is {found[name]}: it must be a whole "
                    "number, 1 or more"
                )
        if found["reduction"] not in REDUCTIONS:
            raise UserError(
                f"config.features.reduction is {found['reduction']!r}: it must be one "
                f"of {', '.join(REDUCTIONS)}"
            )
        return cls(**found)


class _Chunk(NamedTuple):
    song: int
    number: int
    samples: Float[np.ndarray, " samples"]
    frames: int
    windows: int


@dataclass
class _Song:
    """What is known so far of one song.

    Attributes:
      chunks: how many there are, once that is known.
      heard: how many of them have been encoded, …
      frames: … and their frames.
      parts: chunk → its vectors; of "layers" only their running sum over frames.
      error: why there will be no features.
    """

    chunks: int | None = None
    heard: int = 0
    frames: int = 0
    parts: dict[int, np.ndarray] = field(default_factory=dict)
    error: UserError | None = None

    def add(self, chunk: _Chunk, vectors: np.ndarray, reduction: str) -> None:
        self.heard += 1
        self.frames += chunk.frames
        if reduction == "layers":
            total = vectors.astype(np.float64) * chunk.frames
            self.parts[0] = self.parts[0] + total if self.parts else total
        else:
            rows = chunk.windows if reduction == "pooled" else chunk.frames
            # A copy, for a view would keep the whole batch in memory.
            self.parts[chunk.number] = vectors[:rows].copy()

    @property
    def done(self) -> bool:
        return self.error is not None or self.heard == self.chunks

    def result(self, reduction: str) -> np.ndarray | UserError:
        if self.error is not None:
            return self.error
        found = np.concatenate([self.parts[number] for number in sorted(self.parts)])
        if reduction == "layers":
            found = (found / self.frames).astype(np.float32)
        if not np.isfinite(found).all():
            return UserError("the encoder makes NaN or infinity of it")
        return found


def encode(
    mert: Mert,
    songs: Iterable[Iterable[waveforms.Block] | None],
    config: FeatureConfig,
    mesh: jax.sharding.Mesh,
) -> Iterator[tuple[int, np.ndarray | UserError]]:
    """The features of each song, in order, each soon after its sound has been heard.

    What a song gets depends on the songs beside it by no more than rounding. Their
    blocks are asked for as the device works; with `audio.read_ahead` around them they
    are decoded on threads meanwhile. Held are a few batches of sound, and the features
    of the songs that are not done yet.

    Args:
      mert: the encoder.
      songs: of each the blocks of its waveform, mono, at the encoder's sample rate.
        None between two of them separates them: songs before and after it share no
        batch, so that to the last bit they get what they would get by themselves.
      config: windows, chunks, batches and what is kept.
      mesh: the chunks of a batch are spread over its rows.

    Yields:
      The song's number, counted from 0 without the Nones, and float32 features in the
      shape that `config.reduction` says, or the `UserError` that its blocks raised.
    """
    devices = math.prod(mesh.shape[axis] for axis in RULES["batch"])
    running: deque[tuple[list[_Chunk], jax.Array]] = deque()
    unfinished: dict[int, _Song] = {}

    def collect() -> None:
        batch, reduced = running.popleft()
        for chunk, vectors in zip(batch, np.asarray(reduced), strict=False):
            if song := unfinished.get(chunk.song):
                song.add(chunk, vectors, config.reduction)

    def finished() -> Iterator[tuple[int, np.ndarray | UserError]]:
        while unfinished and unfinished[first := next(iter(unfinished))].done:
            yield first, unfinished.pop(first).result(config.reduction)

    chunks = _cut(songs, unfinished, mert.config, config)
    for batch in _batches(chunks, config.batch_size):
        while len(running) >= _IN_FLIGHT:
            collect()
        waveform, lengths = _stack(
            batch,
            rows=_rows(len(batch), config, devices),
            samples=_most_samples(mert.config, batch[0].windows * config.window_frames),
        )
        waveform, lengths = jax.device_put((waveform, lengths), batch_sharding(mesh))
        reduced = _reduced(
            mert,
            waveform,
            lengths,
            window_frames=config.window_frames,
            reduction=config.reduction,
        )
        running.append((batch, reduced))
        yield from finished()
    while running:
        collect()
    yield from finished()


@functools.partial(jax.jit, static_argnames=("window_frames", "reduction"))
def _reduced(
    mert: Mert,
    waveform: Float[Array, "batch samples"],
    lengths: Int[Array, " batch"],
    *,
    window_frames: int,
    reduction: str,
) -> Float[Array, "batch rows width"]:
    """Averages inside the encoder: the stack of hidden states never leaves it."""
    if reduction == "layers":
        means = mert.each(
            waveform, lengths, reduce=lambda x, valid: pool(x, valid, x.shape[1])[0]
        )
        return means[:, :, 0].swapaxes(0, 1)
    return mert(
        waveform,
        lengths,
        reduce=lambda x, valid: (
            pool(x, valid, window_frames)[0] if reduction == "pooled" else x
        ),
        remat=False,
    )


def crop(
    features: Float[np.ndarray, "windows width"],
    max_windows: int,
    rng: np.random.Generator | None,
) -> Float[np.ndarray, "windows width"]:
    """At most `max_windows` windows in a row: at random, or the middle without `rng`.

    7 windows, 3 wanted, without rng:   . . ♪ ♪ ♪ . .
    """
    spare = max(0, len(features) - max_windows)
    start = spare // 2 if rng is None else rng.integers(spare + 1)
    return features[start : start + max_windows]


def _cut(
    songs: Iterable[Iterable[waveforms.Block] | None],
    unfinished: dict[int, _Song],
    mert: MertConfig,
    config: FeatureConfig,
) -> Iterator[_Chunk | None]:
    """The chunks of all songs, which it enters into `unfinished`.

    A chunk has the most samples that make no more frames than it should have, and the
    next one starts with the first sample of the first frame that it lacks. So the
    frames of all chunks are those of the whole song, none missing and none twice.
    """
    chunk_frames = config.chunk_windows * config.window_frames
    number = 0
    for blocks in songs:
        if blocks is None:
            yield None
            continue
        song = unfinished[number] = _Song()
        pieces = waveforms.cut(
            blocks,
            chunk_samples=_most_samples(mert, chunk_frames),
            hop_samples=chunk_frames * mert.samples_per_frame,
        )
        count = 0
        try:
            for count, samples in enumerate(pieces, start=1):
                if (frames := mert.frames(len(samples))) < 1:
                    raise UserError(
                        f"{len(samples)} samples of sound are less than one frame of "
                        f"the encoder, which takes {mert.receptive_field}"
                    )
                windows = windows_of(frames, config.window_frames)
                yield _Chunk(number, count - 1, samples, frames, windows)
        except UserError as error:
            song.error = error
        song.chunks = count
        number += 1


def _most_samples(mert: MertConfig, frames: int) -> int:
    return mert.samples_for_frames(frames + 1) - 1


def _batches(chunks: Iterable[_Chunk | None], size: int) -> Iterator[list[_Chunk]]:
    """Up to `size` chunks of equally many windows, as soon as there are so many.

    Fewer, where chunks of a length are so rare that they would wait for long, and
    before each None. Which chunks meet depends on their order alone.
    """
    waiting: dict[int, list[_Chunk]] = {}  # The oldest is the first.
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


def _rows(count: int, config: FeatureConfig, devices: int) -> int:
    """Rows of a batch of `count` chunks: a power of two on each device.

    A full batch has its own size; smaller ones, at the end, few different ones, so that
    there is little to compile and a single short song is no full batch of padding.
    """
    most = -(-config.batch_size // devices)
    needed = -(-count // devices)
    return devices * min(most, 1 << (needed - 1).bit_length())


def _stack(
    batch: list[_Chunk], *, rows: int, samples: int
) -> tuple[Float[np.ndarray, "batch samples"], Int[np.ndarray, " batch"]]:
    """The chunks one below the other, then rows of silence to fill the shape."""
    waveform = np.zeros((rows, samples), np.float32)
    lengths = np.zeros(rows, np.int32)
    for row, chunk in enumerate(batch):
        waveform[row, : len(chunk.samples)] = chunk.samples
        lengths[row] = len(chunk.samples)
    return waveform, lengths
