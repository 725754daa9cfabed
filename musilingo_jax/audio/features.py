"""Waveforms → features of the frozen encoder, a few vectors per song.

The encoder's cost grows with the square of the length of its input, so songs are cut
into chunks while they are decoded. A chunk is a whole number of pooling windows.
Therefore a song gives as many vectors as if it were encoded whole, each the mean over
the same frames, and a song that fits into one chunk *is* encoded whole. Chunks of all
songs share batches, and a song is finished when all its chunks are:

    song A   [· · · · · ·|· · ·]     chunks of 2 windows of 3 frames
    song B   [· · · ·]

    batch    A · · · · · ·           batch    A · · ·           each row is masked to
             B · · · · . .                                      its own length
"""

import functools
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import jax
import numpy as np
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from musilingo_jax.audio import chunks, waveforms
from musilingo_jax.audio.chunks import Chunk
from musilingo_jax.models.mert import Mert, MertConfig
from musilingo_jax.models.pooling import pool, windows_of
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.settings import read_section, setting
from musilingo_jax.runtime.sharding import batch_sharding, row_shares

# Batches on the device at once: one that is computed and one that is queued.
_IN_FLIGHT = 2

# What is kept of a song:
#   pooled   [windows, width]      the mean over all layers, averaged over windows
#   layers   [depth + 1, width]    each layer, averaged over the song's frames
#   frames   [frames, width]       the mean over all layers
REDUCTIONS = ("pooled", "layers", "frames")

Features = Float[np.ndarray, "rows width"]


@dataclass(frozen=True)
class FeatureConfig:
    """How songs become vectors.

    Attributes:
      window_frames: frames of the encoder that are averaged into one vector.
      chunk_windows: windows of one chunk; the encoder's input is at most this long.
      batch_size: chunks that are encoded together.
      reduction: one of `REDUCTIONS`. Adapters of this package read "pooled"; the others
        are for other tools.
      level: root mean square that a song is brought to before it is encoded, 1 being
        full scale; 0 to encode it as it was recorded. For encoders that learnt from
        clips of one level and do not normalise their input.
    """

    window_frames: int = setting(at_least=1)
    chunk_windows: int = setting(at_least=1)
    batch_size: int = setting(at_least=1)
    reduction: str = setting(choices=REDUCTIONS, before="pooled")
    level: float = setting(at_least=0, at_most=1, before=0.0)

    @classmethod
    def from_config(cls, config: ConfigDict) -> "FeatureConfig":
        """These fields of the section `features`, which has others, too.

        Raises:
          UserError: a field is missing or out of bounds.
        """
        return read_section(cls, config.features, "config.features", allow_others=True)


@dataclass
class _Song:
    """A song of which some chunks have been encoded.

    Attributes:
      chunks: how many it has; None until its end has been decoded.
      encoded: how many of them have been encoded.
      frames: how many frames those have.
      parts: chunk → its vectors; for "layers" only 0 → their sum over frames.
      error: why the song gets no features.
    """

    chunks: int | None = None
    encoded: int = 0
    frames: int = 0
    parts: dict[int, np.ndarray] = field(default_factory=dict)
    error: UserError | None = None

    def add(self, chunk: Chunk, vectors: np.ndarray, reduction: str) -> None:
        self.encoded += 1
        self.frames += chunk.frames
        if reduction == "layers":
            total = vectors.astype(np.float64) * chunk.frames
            self.parts[0] = self.parts[0] + total if self.parts else total
        else:
            rows = chunk.windows if reduction == "pooled" else chunk.frames
            # A view would keep the whole batch in memory.
            self.parts[chunk.number] = vectors[:rows].copy()

    @property
    def done(self) -> bool:
        return self.error is not None or self.encoded == self.chunks

    def result(self, reduction: str) -> Features | UserError:
        if self.error is not None:
            return self.error
        vectors = np.concatenate([self.parts[number] for number in sorted(self.parts)])
        if reduction == "layers":
            vectors = (vectors / self.frames).astype(np.float32)
        if not np.isfinite(vectors).all():
            return UserError("its features contain NaN or infinity")
        return vectors


def encode(
    mert: Mert,
    songs: Iterable[Iterable[waveforms.Block] | None],
    config: FeatureConfig,
    mesh: jax.sharding.Mesh,
) -> Iterator[tuple[int, Features | UserError]]:
    """The features of each song, in order, each soon after its last block is read.

    A song's features depend on the other songs of its batches by no more than rounding.
    Blocks are read while the device computes; with `waveforms.read_ahead` around the
    songs, threads decode them meanwhile. In memory are a few batches of sound, and the
    features of songs that are not finished.

    Args:
      mert: the encoder.
      songs: for each song the blocks of its waveform, mono, at the encoder's sample
        rate. A None between two songs separates them: songs before and after it share
        no batch, so that each side gets the same bits as without the other.
      config: windows, chunks, batches and the reduction.
      mesh: the rows of a batch are spread over its devices.

    Yields:
      The song's number, counted from 0 without the Nones, and its float32 features in
      the shape that `config.reduction` says, or the `UserError` that its blocks raised.
    """
    devices = row_shares(mesh.shape)
    running: deque[tuple[list[Chunk], jax.Array]] = deque()
    unfinished: dict[int, _Song] = {}

    def collect() -> None:
        batch, reduced = running.popleft()
        # Rows beyond the batch are padding.
        for chunk, vectors in zip(batch, np.asarray(reduced), strict=False):
            if song := unfinished.get(chunk.song):
                song.add(chunk, vectors, config.reduction)

    def finished() -> Iterator[tuple[int, Features | UserError]]:
        while unfinished and unfinished[first := next(iter(unfinished))].done:
            yield first, unfinished.pop(first).result(config.reduction)

    pieces = _cut(songs, unfinished, mert.config, config)
    for batch in chunks.batches(pieces, config.batch_size):
        while len(running) >= _IN_FLIGHT:
            collect()
        waveform, lengths = chunks.stack(
            batch,
            rows=chunks.count_rows(
                len(batch), batch_size=config.batch_size, devices=devices
            ),
            samples=_most_samples(mert.config, batch[0].windows * config.window_frames),
        )
        waveform, lengths = jax.device_put((waveform, lengths), batch_sharding(mesh))
        reduced = encode_batch(
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
def encode_batch(
    mert: Mert,
    waveform: Float[Array, "batch samples"],
    lengths: Int[Array, " batch"],
    *,
    window_frames: int,
    reduction: str,
) -> Float[Array, "batch rows width"]:
    """The encoder with the reduction inside: no stack of states is ever kept."""
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


def frames_reduced(
    frames: Float[np.ndarray, "frames width"], config: FeatureConfig
) -> Features:
    """The features of a song whose frames are there already.

    The last window may have fewer frames.

    Args:
      frames: of the whole song.
      config: whose reduction is "pooled" or "frames": there are no layers.
    """
    if config.reduction == "frames":
        return frames
    starts = np.arange(0, len(frames), config.window_frames)
    sizes = np.diff(np.append(starts, len(frames)))
    return np.add.reduceat(frames, starts) / sizes[:, None].astype(np.float32)


def _cut(
    songs: Iterable[Iterable[waveforms.Block] | None],
    unfinished: dict[int, _Song],
    mert: MertConfig,
    config: FeatureConfig,
) -> Iterator[Chunk | None]:
    """The chunks of all songs; enters each song into `unfinished` as it comes.

    A chunk has the most samples that make no more frames than a chunk should have. The
    next chunk starts at the first sample of the first frame that this one lacks. So
    the frames of all chunks are those of the whole song, none missing and none twice.
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
                if (frames := int(mert.frames(len(samples)))) < 1:
                    raise UserError(
                        f"{len(samples)} samples of sound are less than one frame of "
                        f"the encoder, which takes {mert.receptive_field}"
                    )
                windows = int(windows_of(frames, config.window_frames))
                yield Chunk(number, count - 1, samples, frames, windows)
        except UserError as error:
            song.error = error
        song.chunks = count
        number += 1


def _most_samples(mert: MertConfig, frames: int) -> int:
    """The most samples of which the encoder makes no more than `frames` frames."""
    return mert.samples_for_frames(frames + 1) - 1


def crop(
    features: Float[np.ndarray, "windows width"],
    max_windows: int,
    rng: np.random.Generator | None,
) -> Float[np.ndarray, "cropped width"]:
    """At most `max_windows` consecutive windows: random ones, or the middle ones.

    7 windows, at most 3, without `rng`:   . . ♪ ♪ ♪ . .
    """
    spare = max(0, len(features) - max_windows)
    start = spare // 2 if rng is None else rng.integers(spare + 1)
    return features[start : start + max_windows]
