"""Makes shards: decodes their clips on threads, encodes them, writes what results.

    files ──threads──▶ blocks of sound ──▶ encoder ──▶ records of shard 0, 4, 8, …

The next shard's files are decoded while the encoder is busy with the last songs of this
one, but no batch holds songs of two shards. So a shard has the same bits whoever makes
it, and whatever was made before it.
"""

import contextlib
import functools
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import NamedTuple

import jax
import numpy as np
from etils import epath
from jaxtyping import Float

from musilingo_jax.audio import waveforms
from musilingo_jax.audio.cache import clips, shards
from musilingo_jax.audio.cache.clips import Clip, Unavailable
from musilingo_jax.audio.cache.identity import Identity
from musilingo_jax.audio.cache.shards import CachedClip, EarlierShard, ShardWriter
from musilingo_jax.audio.features import FeatureConfig, encode, frames_reduced
from musilingo_jax.audio.level import Block, Meter, brought_to
from musilingo_jax.jobs.making import Item, Made
from musilingo_jax.models.mert import Mert
from musilingo_jax.pretrained.stored_frames import StoredFrames
from musilingo_jax.runtime.errors import UserError

Encoder = tuple[Mert, jax.sharding.Mesh] | StoredFrames
"""An encoder and where it runs; or frames that were made before."""


class ShardWork(NamedTuple):
    """A shard to make.

    Attributes:
      number: of the shard.
      ids: its clips, as planned.
      clips: those of them that are in the corpus, by id.
      again: whether the shard is finished and is made again.
    """

    number: int
    ids: tuple[str, ...]
    clips: dict[str, Clip]
    again: bool


def encode_shards(
    work: Iterable[ShardWork],
    load: Callable[[], Encoder],
    config: FeatureConfig,
    folder: epath.Path,
    identity: Identity,
) -> Generator[Item | Made, None, None]:
    """Makes shards, one after the other.

    Args:
      work: the shards.
      load: returns the encoder and its mesh; called if there are clips to encode.
      config: how songs become vectors.
      folder: of the cache.
      identity: what the features depend on.

    Yields:
      Each clip and each shard that is done.

    Raises:
      UserError: an earlier shard is damaged.
      OSError: a file cannot be written.
    """
    work = list(work)
    encoder = load() if any(shard.clips for shard in work) else None
    with contextlib.closing(_encode_clips(work, encoder, config)) as results:
        for shard in work:
            note = shards.read_note(folder, shard.number) if shard.again else None
            with (
                ShardWriter(folder, shard.number, identity) as writer,
                EarlierShard(folder, shard.number, note) as earlier,
            ):
                for id in shard.ids:
                    result = None
                    if id in shard.clips:
                        result = next(results)
                        yield Item(result.seconds)
                    _add(writer, earlier, id, result)
                writer.finish()
            yield Made(shard.number, len(shard.clips))


class _Result(NamedTuple):
    """What came of a clip.

    Attributes:
      clip: the clip.
      features: its features, or why it has none.
      seconds: how much of it was decoded.
      silent: whether nothing in that is above −80 dB of full scale.
      notices: what its listener should know.
    """

    clip: Clip
    features: Float[np.ndarray, "rows width"] | UserError
    seconds: float
    silent: bool
    notices: list[str]


def _encode_clips(
    work: Iterable[ShardWork], encoder: Encoder | None, config: FeatureConfig
) -> Generator[_Result, None, None]:
    """What came of each clip of each shard, in order."""
    if encoder is None:
        return
    if isinstance(encoder, StoredFrames):
        yield from _read_clips(work, encoder, config)
        return
    mert, mesh = encoder
    sample_rate = mert.config.sample_rate
    metered: dict[int, tuple[Clip, Meter]] = {}
    notices: dict[str, list[str]] = {}

    def sounds() -> Iterator[Iterator[Block] | None]:
        for shard in work:
            for clip in shard.clips.values():
                told = notices[clip.id] = []
                read = functools.partial(clips.read, clip, sample_rate)
                yield brought_to(config.level, read, told.append)
            yield None

    def songs(decoded: Iterable) -> Iterator[Meter | None]:
        numbered = enumerate(clip for shard in work for clip in shard.clips.values())
        for blocks in decoded:
            if blocks is None:
                yield None
                continue
            number, clip = next(numbered)
            meter = Meter(blocks)
            metered[number] = clip, meter
            yield meter

    with contextlib.closing(waveforms.read_ahead(sounds())) as decoded:
        for number, features in encode(mert, songs(decoded), config, mesh):
            clip, meter = metered.pop(number)
            seconds, told = meter.samples / sample_rate, notices.pop(clip.id)
            yield _Result(clip, features, seconds, meter.silent, told)


def _read_clips(
    work: Iterable[ShardWork], stored: StoredFrames, config: FeatureConfig
) -> Iterator[_Result]:
    """What came of each clip of each shard, in order, of frames that were stored."""
    for clip in (clip for shard in work for clip in shard.clips.values()):
        seconds = 0.0
        try:
            clips.check_file(clip)
            frames = stored.read(clip.path, clip.start, clip.end)
            seconds = len(frames) / stored.config.frames_per_second
            features = frames_reduced(frames, config)
        except UserError as error:
            features = error
        yield _Result(clip, features, seconds, silent=False, notices=[])


def _add(
    writer: ShardWriter, earlier: EarlierShard, id: str, result: _Result | None
) -> None:
    """Writes what came of a clip into its shard; None if it has left the corpus.

    A clip whose file is not available, or that has left the corpus, keeps the features
    that it has.
    """
    if result is not None and isinstance(features := result.features, np.ndarray):
        writer.add(
            CachedClip(
                id,
                features,
                result.seconds,
                str(result.clip.path),
                result.silent,
                result.notices,
            )
        )
    elif result is not None and not isinstance(result.features, Unavailable):
        writer.add_skipped(id, _reason(result))
    elif kept := earlier.get(id):
        writer.add(kept)
    elif result is not None:
        writer.add_missing(id, _reason(result))
    else:
        writer.add_absent(id)


def _reason(result: _Result) -> str:
    """Why a clip has no features, beginning with its path."""
    path, reason = str(result.clip.path), str(result.features)
    return reason if reason.startswith(path) else f"{path}: {reason}"
