"""The feature cache of an experiment: filled, summed up, and refused where it lacks."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from musilingo_jax.audio.cache import fill as cache_job
from musilingo_jax.audio.cache import shards
from musilingo_jax.audio.cache.fill import Clip, Share
from musilingo_jax.audio.cache.reader import TORN_REMEDY, FeatureCache, so_far
from musilingo_jax.audio.cache.shards import CacheState, printable
from musilingo_jax.audio.features import FeatureConfig
from musilingo_jax.corpora.records import Record
from musilingo_jax.models.mert import Mert
from musilingo_jax.pretrained import sources, weights
from musilingo_jax.runtime import paths
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.sharding import local_mesh

FORMAT = 3


@dataclass(frozen=True)
class Identity:
    """All that features depend on, besides the sound.

    Attributes:
      encoder: digest of the encoder, its preprocessing included.
      sample_rate: of the waveforms that it heard.
      window_frames, chunk_windows, reduction: as in `FeatureConfig`.
      dtype: of the encoder's weights while it listened.
      format: of the cache folder.
    """

    encoder: str
    sample_rate: int
    window_frames: int
    chunk_windows: int
    reduction: str
    dtype: str
    format: int

    @classmethod
    def of(cls, config: ConfigDict) -> "Identity":
        """What the features of this experiment depend on."""
        source = sources.named(config, "encoder")
        encoder = sources.find(source, "encoder")
        numbers = FeatureConfig.from_config(config)
        return cls(
            encoder=weights.digest(source, "encoder"),
            sample_rate=weights.blueprint(encoder).module.config.sample_rate,
            window_frames=numbers.window_frames,
            chunk_windows=numbers.chunk_windows,
            reduction=numbers.reduction,
            dtype=config.model.dtype,
            format=FORMAT,
        )


def prepare(
    config: ConfigDict, records: Sequence[Record], mesh: jax.sharding.Mesh
) -> FeatureCache:
    """The cache of an experiment, with all songs of `records` that can be read.

    Loads the encoder only if there is something to encode. Several processes share the
    work, each on its own devices.

    Raises:
      UserError: as in `cache_job.run`; the features are not pooled; or songs cannot be
        read and `config.features.allow_missing` is false.
    """
    reduction = FeatureConfig.from_config(config).reduction
    if reduction != "pooled":
        raise UserError(
            f"config.features.reduction is {reduction!r}: adapters here hear pooled "
            'windows, so it must be "pooled" but for `python -m musilingo_jax.cache`'
        )
    clips = clips_of(records)
    share = Share.of_this_process()
    state = fill(config, clips, share, mesh, retry=False, others=False)
    cache = FeatureCache(paths.open_folder(config.features.cache), state)
    cache.fetch(clip.id for clip in clips)
    if not config.features.allow_missing:
        refuse_skipped(cache, [clip.id for clip in clips])
    return cache


def clips_of(records: Iterable[Record]) -> list[Clip]:
    """What there is to encode, each clip once."""
    clips = {r.clip: Clip(r.clip, r.audio, r.start, r.end, r.rate) for r in records}
    return list(clips.values())


def fill(
    config: ConfigDict,
    clips: Sequence[Clip],
    share: Share,
    mesh: jax.sharding.Mesh | None,
    *,
    retry: bool,
    others: bool,
) -> CacheState:
    """Makes the shards of this share that hold clips which the cache lacks.

    Args:
      config: with the sections `model`, of which the encoder counts, and `features`.
      clips: what the cache should hold.
      share: as in `cache_job.run`.
      mesh: where the encoder runs; None for all devices of this process.
      retry: as in `cache_job.run`.
      others: whether shards of other clips, left by a job that was stopped, count too.

    Returns:
      What there is afterwards; with several tasks it may not be all.

    Raises:
      UserError: as in `cache_job.run`.
    """
    folder = paths.open_folder(config.features.cache)
    identity, numbers = asdict(Identity.of(config)), FeatureConfig.from_config(config)
    shard_clips = config.features.get("shard_clips")
    if not isinstance(shard_clips, int) or shard_clips < 1:
        raise UserError(
            f"config.features.shard_clips is {shard_clips}: it must be a whole number, "
            "1 or more"
        )

    def load() -> tuple[Mert, jax.sharding.Mesh]:
        source = sources.named(config, "encoder")
        where = mesh if mesh is not None and share.tasks == 1 else local_mesh()
        return weights.load_encoder(source, dtype=config.model.dtype, mesh=where), where

    state = shards.read(folder, identity)
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
        shard_clips=shard_clips,
        retry=retry,
    )
    return shards.read(folder, identity)


def summary(
    cache: FeatureCache, clips: Collection[str], *, reasons: bool = True
) -> str:
    """What the cache knows about some clips, for people, in UTF-8.

    Args:
      cache: after the job.
      clips: of those.
      reasons: whether to say why clips were skipped, not only how many.
    """
    held = [clip for clip in clips if clip in cache.ids]
    hours = sum(cache.seconds(clip) for clip in held) / 3600
    size = sum(map(cache.bytes, held))
    lines = [
        f"{cache.folder}: {len(held)} clips, {hours:.2f} h, {size:,} bytes of features "
        f"({cache.disk_bytes:,} bytes on disk for all {len(cache.ids)} clips)"
    ]
    for kind in ("silent", "skipped"):
        if some := sorted(set(getattr(cache, kind)) & set(clips)):
            names = [cache.skipped.get(clip, clip) for clip in some]
            if kind == "skipped" and not reasons:
                lines.append(f"{len(some)} {kind}")
                continue
            lines.append(f"{len(some)} {kind}:" + "".join(f"\n  {n}" for n in names))
    return printable("\n".join(lines))


def refuse_skipped(cache: FeatureCache, clips: Collection[str]) -> None:
    skipped = [clip for clip in clips if clip in cache.skipped]
    if skipped:
        listed = "".join(f"\n  {cache.skipped[clip]}" for clip in skipped)
        others = ""
        if any(clip in cache.ids for clip in clips):
            others = f"; the others are cached in {cache.folder}"
        again = "`python -m musilingo_jax.cache --config=… --retry` tries again"
        if lacking := sum(clip in cache.missing for clip in skipped):
            again = f"{lacking} of them are looked for by every job"
            if lacking < len(skipped):
                again += (
                    ", the rest are tried again by `python -m musilingo_jax.cache "
                    "--config=… --retry`"
                )
        raise UserError(
            f"{len(skipped)} of {len(clips)} songs cannot be read{others}. Mend them "
            f"({again}) or take them out of the corpus, or go on without them with "
            "--config.features.allow_missing=True:" + listed
        )


def inspection(folder: epath.Path) -> tuple[str, str | None]:
    """What a cache is and how far it is, for people, and why it cannot be used yet.

    Raises:
      UserError: there is none, or it cannot be read.
    """
    state = shards.read(folder, None)
    if not state.plans.shards:
        if state.torn:
            raise UserError(f"{state.torn}; {TORN_REMEDY}")
        raise UserError(f"{folder}: holds no features yet; {shards.REMEDY}")
    cache, fates = FeatureCache(folder, state), state.fates()
    clips = len(cache.ids)
    size = sum(line["features"] for line in state.lines.values())
    vectors = sum(cache.windows(clip) for clip in cache.ids)
    rows = {
        **(state.plans.identity or {}),
        "shards": so_far(state),
        "clips": f"{clips:,}",
        "hours": f"{sum(map(cache.seconds, cache.ids)) / 3600:,.2f}",
        "vectors": f"{vectors:,}",
        "feature bytes": f"{size:,}" + (f", {size // clips:,} a clip" if clips else ""),
        "bytes on disk": f"{cache.disk_bytes:,}",
        "silent": f"{len(cache.silent):,}",
        "skipped": f"{len(cache.skipped):,}",
        "of them missing": f"{len(cache.missing):,}",
        "not encoded yet": f"{list(fates.values()).count(shards.PENDING):,}",
    }
    lines = [str(folder), *(f"  {key:16} {value}" for key, value in rows.items())]
    if state.unfinished:
        lines.append(f"unfinished shards: {', '.join(map(str, state.unfinished))}")
    for clip in sorted(cache.silent & set(cache.ids)):
        lines.append(f"silent: {cache.path(clip)}")
    lines += [f"skipped: {reason}" for _, reason in sorted(cache.skipped.items())]
    problem = None
    if state.torn:
        problem = f"{state.torn}; {TORN_REMEDY}"
    elif state.damaged:
        problem = f"{folder / state.damaged[0]}: is missing or cut off; {shards.REMEDY}"
    elif state.unfinished:
        problem = f"{folder}: {so_far(state)}; {shards.REMEDY}"
    return printable("\n".join(lines)), problem
