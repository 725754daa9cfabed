"""Features by song: the frozen encoder hears each song once, not once per epoch.

    python -m musilingo_jax.cache --config=configs/features/tiny.py
    python -m musilingo_jax.cache --config=… --task=3 --tasks=16     # of a job array
    python -m musilingo_jax.cache --config=… --distributed           # on each of a pod
    python -m musilingo_jax.cache inspect runs/tiny/cache
    python -m musilingo_jax.cache export runs/tiny/cache --out=embeddings.parquet

The first encodes the songs that the cache lacks. Kill it whenever you like: it goes on
with the shard that was not finished, and ends with the same bits as if nobody had
stopped it, or as if any number of tasks had shared the work, on machines of one kind.
Songs that cannot be read are listed, not replaced, and the exit status is 1 unless
`--allow_missing` is given. Those whose files are missing, or not what the corpus
knows, are looked for by every job; those that cannot be decoded are tried again with
`--retry`. Folders may be on `gs://`.
"""

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import numpy as np
from absl import flags
from etils import epath
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from musilingo_jax.audio.cache import export, shards
from musilingo_jax.audio.cache import fill as cache_job
from musilingo_jax.audio.cache.fill import Clip, Share
from musilingo_jax.audio.cache.reader import TORN_REMEDY, Cache, so_far
from musilingo_jax.audio.cache.shards import State, printable
from musilingo_jax.audio.features import FeatureConfig
from musilingo_jax.corpora import mixture
from musilingo_jax.corpora.records import Record
from musilingo_jax.models.mert import Mert
from musilingo_jax.pretrained import sources, weights
from musilingo_jax.runtime import cli, distributed, folders
from musilingo_jax.runtime.compilation_cache import keep_compiled_programs
from musilingo_jax.runtime.errors import UsageError, UserError
from musilingo_jax.runtime.sharding import local_mesh, make_mesh

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
) -> Cache:
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
    cache = Cache(folders.open_folder(config.features.cache), state)
    cache.fetch(clip.id for clip in clips)
    if not config.features.allow_missing:
        _refuse_skipped(cache, [clip.id for clip in clips])
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
) -> State:
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
    folder = folders.open_folder(config.features.cache)
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


def summary(cache: Cache, clips: Collection[str], *, reasons: bool = True) -> str:
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


def _refuse_skipped(cache: Cache, clips: Collection[str]) -> None:
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
    cache, fates = Cache(folder, state), state.fates()
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


def main(argv: list[str]) -> None:
    """Encodes the songs of `config.corpus`, or looks at what there is of them."""
    config, arguments = flags.FLAGS.config, argv[1:]
    command = "encode"
    if arguments and arguments[0] in ("inspect", "export"):
        command, *arguments = arguments
    if command != "encode" and arguments:
        name, *arguments = arguments
    elif config is not None:
        name = config.features.cache
    else:
        raise UsageError("--config is missing: name a file of configs/")
    if arguments:
        raise UsageError(f"unknown argument {arguments[0]!r} (try --help)")
    if command == "encode":
        _encode(config)
    elif command == "inspect":
        told, problem = inspection(folders.open_folder(name))
        print(told)
        if problem:
            raise UserError(problem)
    elif flags.FLAGS.out is None:
        raise UsageError("--out is missing: name a file ending in .parquet or .npz")
    else:
        cache = Cache.open(name, None)
        cache.fetch(cache.ids)
        export.export(cache, Path(flags.FLAGS.out))


def _encode(config: ConfigDict) -> None:
    """This process's share of the work, and what came of it."""
    started = time.monotonic()
    share = _share()
    keep_compiled_programs()
    if flags.FLAGS.allow_missing:
        config.features.allow_missing = True
    clips = clips_of(mixture.load(config.corpus))
    mesh = make_mesh(**config.mesh) if share.tasks == 1 else None
    state = fill(config, clips, share, mesh, retry=flags.FLAGS.retry, others=True)
    cache = Cache(folders.open_folder(config.features.cache), state)
    told = [clip.id for clip in clips]
    if state.unfinished:
        # What is wrong with the songs of other tasks, those will tell.
        mine = [ids for n, ids in enumerate(state.plans.shards) if share.has(n)]
        mine = set().union(*mine)
        told = [clip for clip in told if clip in mine]
    if jax.process_index() == 0:
        print(summary(cache, told, reasons=config.features.allow_missing))
        if state.unfinished:
            print(
                f"task {share.task} of {share.tasks} is done; {so_far(state)}: the "
                "cache can be used when the other tasks are done too"
            )
        print(f"took {time.monotonic() - started:.1f} s")
    if not config.features.allow_missing:
        _refuse_skipped(cache, told)


def _share() -> Share:
    """What the flags say about other processes.

    Raises:
      UsageError: it makes no sense.
    """
    task, tasks = flags.FLAGS.task, flags.FLAGS.tasks
    distributed.start()
    together = Share.of_this_process()
    if together.tasks > 1:
        if tasks > 1:
            raise UsageError(
                "--tasks and --distributed or --processes are two ways; choose one"
            )
        return together
    if not 0 <= task < tasks:
        raise UsageError(
            f"--task={task} --tasks={tasks}: tasks are counted from 0, so --task must "
            f"be from 0 to {tasks - 1}"
        )
    if tasks > 1 and flags.FLAGS.retry:
        raise UsageError(
            "--retry makes a new plan, which depends on what failed: start it once, "
            "without --tasks"
        )
    return Share(task, tasks)


if __name__ == "__main__":
    cli.define_config()
    flags.DEFINE_integer("task", 0, "which task of --tasks this is, from 0")
    flags.DEFINE_integer("tasks", 1, "how many tasks share the songs", lower_bound=1)
    distributed.define_flags()
    flags.DEFINE_bool("retry", False, "try again what could not be read")
    flags.DEFINE_bool("allow_missing", False, "accept that songs cannot be read")
    flags.DEFINE_string("out", None, "export: a file ending in .parquet or .npz")
    cli.run(main)
