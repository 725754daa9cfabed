"""The feature cache of an experiment: filled, and refused if songs cannot be read."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from musilingo_jax.audio.cache import cache_state, description
from musilingo_jax.audio.cache import fill as cache_job
from musilingo_jax.audio.cache.cache_state import CacheState
from musilingo_jax.audio.cache.clips import Clip
from musilingo_jax.audio.cache.encode_shards import Encoder
from musilingo_jax.audio.cache.identity import Identity
from musilingo_jax.audio.cache.reader import FeatureCache
from musilingo_jax.audio.features import FeatureConfig
from musilingo_jax.corpora.records import Record
from musilingo_jax.jobs.engine import THIS_PROCESS, Engine
from musilingo_jax.jobs.share import Share
from musilingo_jax.pretrained import model_config, weights
from musilingo_jax.runtime import paths
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.printable import print_note
from musilingo_jax.runtime.settings import plain, read_section, setting
from musilingo_jax.runtime.sharding import local_mesh


@dataclass(frozen=True)
class CacheConfig:
    """Where features are kept.

    Attributes:
      cache: the folder.
      allow_missing: whether songs that cannot be read are left out.
      shard_clips: clips per shard; a job that is killed loses at most one shard.
    """

    cache: str
    allow_missing: bool
    shard_clips: int = setting(at_least=1)

    @classmethod
    def from_config(cls, config: ConfigDict) -> "CacheConfig":
        """These fields of the section `features`, which has others, too.

        Raises:
          UserError: a field is missing or out of bounds, or the section has a key that
            neither this class nor `FeatureConfig` reads.
        """
        known = {entry.name for kind in (cls, FeatureConfig) for entry in fields(kind)}
        section = plain(config.features, "config.features")
        if unknown := sorted(map(str, section.keys() - known)):
            raise UserError(
                f"config.features has {', '.join(unknown)}, which nothing reads: is it "
                "misspelt?"
            )
        return read_section(cls, config.features, "config.features", allow_others=True)


def prepare(
    config: ConfigDict, records: Sequence[Record], mesh: jax.sharding.Mesh
) -> FeatureCache:
    """The cache of an experiment, with all songs of `records` that can be read.

    The encoder is loaded only if there is something to encode. Several processes share
    the work, each on its own devices.

    Args:
      config: with the sections `model` and `features`.
      records: of the experiment.
      mesh: where the encoder runs, if there is only one process.

    Raises:
      UserError: as in `fill`; no adapter reads such features; or songs cannot be read
        and `config.features.allow_missing` is false.
    """
    reduction = FeatureConfig.from_config(config).reduction
    if reduction == "frames":
        raise UserError(
            f"config.features.reduction is {reduction!r}, which no adapter reads: "
            "set it to the kind that the adapter reads, pooled or layers (not for "
            "`python -m musilingo_jax.cache`)"
        )
    clips = clips_of(records)
    share = Share.of_this_process()
    state = fill(config, clips, share, mesh, THIS_PROCESS, retry=False, others=False)
    settings = CacheConfig.from_config(config)
    cache = FeatureCache(paths.open_folder(settings.cache), state)
    ids = [clip.id for clip in clips]
    cache.fetch(ids)
    if share.task == 0 and (line := description.notice_line(cache, ids)):
        print_note(line)
    if not settings.allow_missing:
        refuse_skipped(cache, ids)
    return cache


def clips_of(records: Iterable[Record]) -> list[Clip]:
    """The clips of records, each of them once."""
    clips = {r.clip: Clip(r.clip, r.audio, r.start, r.end, r.rate) for r in records}
    return list(clips.values())


def fill(
    config: ConfigDict,
    clips: Sequence[Clip],
    share: Share,
    mesh: jax.sharding.Mesh | None,
    engine: Engine,
    *,
    retry: bool,
    others: bool,
) -> CacheState:
    """Makes the shards of this share that have clips which the cache lacks.

    Args:
      config: with the sections `model`, of which the encoder is used, and `features`.
      clips: what the cache should hold.
      share: as in `fill.run`.
      mesh: where the encoder runs; None for all devices of the process that encodes.
      engine: in which processes the shards are made.
      retry: as in `fill.run`.
      others: whether unfinished shards of other clips are made, too.

    Returns:
      The state of the cache afterwards; with several tasks it may be incomplete.

    Raises:
      UserError: a setting is wrong, or as in `fill.run`.
    """
    settings = CacheConfig.from_config(config)
    folder = paths.open_folder(settings.cache)
    identity, numbers = Identity.of(config), FeatureConfig.from_config(config)
    source = model_config.named(config, "encoder")
    stored = weights.load_frames(source)
    if stored is not None:
        _check_stored(source, numbers, clips)

    def load() -> Encoder:
        if stored is not None:
            return stored
        where = mesh if mesh is not None and share.tasks == 1 else local_mesh()
        return weights.load_encoder(source, dtype=config.model.dtype, mesh=where), where

    state = cache_state.read(folder, identity)
    needed = bool(cache_job.unsettled(state, clips, retry=retry) or state.torn)
    if others:
        needed = needed or bool(state.unfinished) or not state.indexed
    if jax.process_count() > 1:
        needed = bool(multihost_utils.process_allgather(np.array(needed)).any())
    if not needed:
        return state
    cache_job.run(
        clips,
        load,
        numbers,
        folder,
        identity,
        share,
        engine,
        shard_clips=settings.shard_clips,
        retry=retry,
    )
    return cache_state.read(folder, identity)


def _check_stored(source: str, numbers: FeatureConfig, clips: Iterable[Clip]) -> None:
    """Checks that stored frames can be what a config and a corpus ask for.

    Raises:
      UserError: a setting is one of encoders that hear, or two songs would be given
        the same frames.
    """
    if numbers.level:
        raise UserError(
            f"config.features.level is {numbers.level}, but {source} has frames that "
            "were made before: set it to 0"
        )
    if numbers.reduction == "layers":
        raise UserError(
            f"config.features.reduction is 'layers', but {source} has stored frames, "
            "which have no layers: set it to pooled or frames"
        )
    named: dict[str, Path] = {}
    for clip in clips:
        other = named.setdefault(clip.path.stem, clip.path)
        if other != clip.path:
            raise UserError(
                f"{source}: {other} and {clip.path} would both have the frames of "
                f"{clip.path.stem}.npy: songs whose frames are stored need names of "
                "their own"
            )


def refuse_skipped(cache: FeatureCache, clips: Collection[str]) -> None:
    """Checks that all of these clips have features.

    Raises:
      UserError: some have not; the message lists them, with the reason and the remedy.
    """
    skipped = [clip for clip in clips if clip in cache.skipped]
    if not skipped:
        return
    cached = ""
    if any(clip in cache.ids for clip in clips):
        cached = f"; the others are cached in {cache.folder}"
    retry = "by `python -m musilingo_jax.cache --config=… --retry`"
    missing = sum(clip in cache.missing for clip in skipped)
    if not missing:
        again = f"they are tried again {retry}"
    elif missing == len(skipped):
        again = "each job looks for their files again"
    else:
        again = (
            f"each job looks again for the files of {missing} of them, the rest are "
            f"tried again {retry}"
        )
    reasons = "".join(f"\n  {cache.skipped[clip]}" for clip in skipped)
    raise UserError(
        f"{len(skipped)} of {len(clips)} songs cannot be read{cached}. Repair them "
        f"({again}), remove them from the corpus, or leave them out with "
        f"--config.features.allow_missing=True:{reasons}"
    )
