"""The job that fills a cache, as `jobs.job` runs it.

    plan      clips that no shard has, or that have left a shard's corpus and are back
    make      encode the clips of a shard, write its two files       `encode_shards`
    finish    list all shards in one file                            `cache_state`

What is noted of a clip that gets no features:

    skipped    its file cannot be decoded; tried again with `retry`
    missing    its file does not exist, cannot be read, or is not what the id says; its
               shard is made again by the first job that finds the file
    absent     it is planned, but not in the corpus any more; planned anew by the first
               job that has it again
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from etils import epath

from musilingo_jax.audio.cache import cache_state, shards
from musilingo_jax.audio.cache.cache_state import (
    ABSENT,
    HELD,
    MISSING,
    SKIPPED,
    CacheState,
)
from musilingo_jax.audio.cache.clips import Clip, is_available
from musilingo_jax.audio.cache.encode_shards import Encoder, ShardWork, encode_shards
from musilingo_jax.audio.cache.identity import Identity
from musilingo_jax.audio.features import FeatureConfig
from musilingo_jax.jobs import job
from musilingo_jax.jobs.engine import Engine
from musilingo_jax.jobs.job import Place
from musilingo_jax.jobs.making import Maker
from musilingo_jax.jobs.share import Share
from musilingo_jax.runtime.errors import UserError


def run(
    clips: Iterable[Clip],
    load: Callable[[], Encoder],
    config: FeatureConfig,
    folder: epath.Path,
    identity: Identity,
    share: Share,
    engine: Engine,
    *,
    shard_clips: int,
    retry: bool,
) -> None:
    """Makes the shards of this share that the cache lacks.

    Args:
      clips: what the cache should hold; whatever else it holds is kept.
      load: returns the encoder and its mesh; called if there is something to encode.
      config: how songs become vectors.
      folder: the cache, made if it does not exist.
      identity: what the features depend on.
      share: which shards to make.
      engine: in which processes.
      shard_clips: clips per shard, for shards that are not planned yet.
      retry: whether clips that were skipped are planned anew.

    Raises:
      UserError: as in `jobs.job.run`; or a clip has been lost meanwhile.
    """
    corpus = {clip.id: clip for clip in clips}
    place = Place(
        folder,
        identity.stored(),
        shard_clips,
        flag="--config.features.cache",
        busy="filling this cache",
        label="encoding",
        unit="clip",
    )
    filling = Filling(place, corpus, load, config, identity, retry)
    state = job.run(filling, share, engine)
    _check_complete(folder, state, corpus)


@dataclass(frozen=True)
class Filling:
    """A `jobs.job.Job`.

    Attributes:
      place: where.
      corpus: id → clip, of all that the cache should hold.
      load_encoder, config, identity, retry: as in `run`.
    """

    place: Place
    corpus: Mapping[str, Clip]
    load_encoder: Callable[[], Encoder]
    config: FeatureConfig
    identity: Identity
    retry: bool

    def read(self) -> CacheState:
        """The contents of the cache."""
        return cache_state.read(self.place.folder, self.identity)

    def unplanned(self, state: CacheState) -> list[str]:
        """The clips that no shard has, or that are to be tried again."""
        fates = state.fates()
        again = (None, ABSENT, SKIPPED) if self.retry else (None, ABSENT)
        return [clip for clip in self.corpus if fates.get(clip) in again]

    def work(self, state: CacheState, share: Share) -> list[ShardWork]:
        """The shards of a share that are unfinished, or miss a file that is found."""
        work = []
        for number, ids in enumerate(state.plans.shards):
            if not share.has(number):
                continue
            clips = {id: self.corpus[id] for id in ids if id in self.corpus}
            note = state.notes.get(number)
            if note is None:
                work.append(ShardWork(number, ids, clips, again=False))
            elif any(is_available(clips[id]) for id in note["missing"] if id in clips):
                work.append(ShardWork(number, ids, clips, again=True))
        return work

    def items(self, work: ShardWork) -> int:
        """How many clips of a shard are to be encoded."""
        return len(work.clips)

    @property
    def load(self) -> Callable[[], Maker]:
        """Returns what encodes shards; it does without the clips of others."""
        return functools.partial(
            _load, self.load_encoder, self.config, self.place.folder, self.identity
        )

    def made(self) -> None:
        """Removes the index: another task may have written it with earlier notes."""
        (self.place.folder / shards.SHARD_INDEX).unlink(missing_ok=True)

    def finish(self, state: CacheState) -> CacheState:
        """Writes the index, if all shards are finished and it is not complete.

        Another task may make a shard again between reading the notes and writing the
        index. So the notes are read again afterwards, until nothing has changed.
        """
        folder = self.place.folder
        while not state.unfinished and not state.indexed:
            cache_state.write_index(folder, state)
            written = state.notes
            state = cache_state.read(folder, self.identity, trust_index=False)
            if state.notes == written:
                break
        return state


def _load(
    load_encoder: Callable[[], Encoder],
    config: FeatureConfig,
    folder: epath.Path,
    identity: Identity,
) -> Maker:
    """What encodes shards; it loads the encoder for the first clip that there is."""
    return functools.partial(
        encode_shards,
        load=functools.cache(load_encoder),
        config=config,
        folder=folder,
        identity=identity,
    )


def unsettled(state: CacheState, clips: Sequence[Clip], *, retry: bool) -> list[str]:
    """The clips for which a job would do something."""
    fates = state.fates()
    settled = (HELD,) if retry else (HELD, SKIPPED)
    return [
        clip.id
        for clip in clips
        if (fate := fates.get(clip.id)) not in settled
        and (fate != MISSING or is_available(clip))
    ]


def _check_complete(
    folder: epath.Path, state: CacheState, corpus: Iterable[str]
) -> None:
    """Checks that each clip is held, noted, or waiting for another task.

    Raises:
      UserError: a clip has been lost.
    """
    fates = state.fates()
    lost = [clip for clip in corpus if fates.get(clip) in (None, ABSENT)]
    if lost:
        raise UserError(
            f"{folder}: {len(lost)} clips, {lost[0]} for one, are neither encoded nor "
            "skipped; another program may have changed the folder meanwhile: run this "
            "again"
        )
